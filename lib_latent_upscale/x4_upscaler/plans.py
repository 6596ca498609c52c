"""Splitting work into tiles that fit into memory, and into smaller ones if they do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lib_latent_upscale.errors import OutOfMemory
from lib_latent_upscale.memory import free_memory, is_out_of_memory, release_memory
from lib_latent_upscale.tiling import Tile, tile_grid
from lib_latent_upscale.x4_settings import SMALLEST_TILE

__all__ = ["DECODER", "UNET", "Plan", "Work", "fit"]

_UNKNOWN_MEMORY = 4 * 2**30
_SHARE = 0.6
"""Part of the free memory that tiles may fill."""
_MOST_TILES_AT_ONCE = 8


@dataclass(frozen=True)
class Work:
    """A kind of work, on which the choice of tiles depends."""

    purpose: str
    """What messages call it."""
    tiles: tuple[int, ...]
    """Tile sizes tried from the largest, in input pixels."""
    values: int
    """Values in memory at the peak for each pixel of a tile."""


UNET = Work("sampling", (512, 384, 256, 192, 128, 96), 4000)
"""0.95 GiB for two tiles of 256x256 in float16. Training crops had 128x128; smaller than 96 is unlike them."""
DECODER = Work("decoding", (128, 96, 64), 12_300)
"""3.0 GiB for 256x256 in float32. Attention is quadratic in a tile's area, so that small tiles save work."""


@dataclass(frozen=True)
class Plan:
    """Tiles for one kind of work."""

    work: Work
    tile: int
    """Side of a tile in input pixels."""
    overlap: int
    """Least overlap in input pixels; at most half a tile is used."""
    batch: int = 1
    """Number of tiles at once."""

    @classmethod
    def choose(
        cls, work: Work, size: tuple[int, int], tile: int, overlap: int, *, bytes_per_value: int, device: torch.device
    ) -> Plan:
        """Tiles of `tile`, and as many of them at once as fit the free memory, for a picture of `size` (h, w).

        Where `tile` is 0: the smallest of `work.tiles` that covers the picture if that fits, so that the free memory
        does not show in it; else the largest that fits.
        """
        free = free_memory(device)
        budget = int(_SHARE * (_UNKNOWN_MEMORY if free is None else free))
        each = work.values * bytes_per_value
        plan = cls(work, tile or _largest(work, size, budget // each), overlap)
        tiles = plan.tiles(size)
        height, width = tiles[0].size
        return replace(plan, batch=max(min(budget // (height * width * each), _MOST_TILES_AT_ONCE, len(tiles)), 1))

    @property
    def used_overlap(self) -> int:
        return min(self.overlap, self.tile // 16 * 8)

    def tiles(self, size: tuple[int, int]) -> list[Tile]:
        """The tiles of a picture of (height, width)."""
        return tile_grid(size, self.tile, self.used_overlap)

    def smaller(self) -> Plan | None:
        """Half the work at once: fewer tiles first, then smaller ones; None if it cannot be smaller."""
        if self.batch > 1:
            return replace(self, batch=self.batch // 2)
        half = max(self.tile // 16 * 8, SMALLEST_TILE)
        return replace(self, tile=half) if half < self.tile else None

    def __str__(self) -> str:
        tiles = f"tiles of {self.tile}" if self.batch == 1 else f"{self.batch} tiles of {self.tile} at once"
        return f"{tiles} for {self.work.purpose}"


def _largest(work: Work, size: tuple[int, int], pixels: int) -> int:
    """The side of the largest tile with at most so many pixels of the picture, never larger than covers it."""
    longest = max(size)
    covering = min((side for side in work.tiles if side >= longest), default=work.tiles[0])
    sides = (side for side in work.tiles if side <= covering)
    return next((side for side in sides if min(side, size[0]) * min(side, size[1]) <= pixels), work.tiles[-1])


def fit(
    plan: Plan, work: Callable[[Plan], Tensor], device: torch.device, tell: Callable[[str], None]
) -> tuple[Tensor, Plan]:
    """Do `work(plan)`; if memory runs out, tell so and do it again with a smaller plan.

    Raises:
        OutOfMemory: the smallest plan is too large.
    """
    while True:
        try:
            return work(plan), plan
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside of `except`: the error's traceback holds on to the tensors that fill the memory.
        release_memory(device)
        smaller = plan.smaller()
        if smaller is None:
            raise OutOfMemory(
                f"The x4 upscaler ran out of memory even with {plan}: close other programs and try again."
            )
        tell(f"The x4 upscaler ran out of memory with {plan}; it went on with {smaller}.")
        plan = smaller
