"""Even splits of a picture into overlapping tiles, and weights that blend them without a seam."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Tile", "TileBlend", "batches", "map_tiles", "split_evenly", "tile_grid", "tile_weight"]


@dataclass(frozen=True)
class Tile:
    """A rectangle of a picture or latent."""

    rows: slice
    """Rows of the tile, start and stop always set."""
    columns: slice
    """Columns of the tile, start and stop always set."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the tile."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start

    def cut(self, values: Tensor) -> Tensor:
        """The tile's part of `values` (..., height, width), a view."""
        return values[..., self.rows, self.columns]

    def scaled(self, factor: int) -> Tile:
        """The same tile where every side is `factor` times longer: latent to picture."""
        return Tile(_scaled(self.rows, factor), _scaled(self.columns, factor))


def _scaled(part: slice, factor: int) -> slice:
    return slice(part.start * factor, part.stop * factor)


def _round_up(value: float, multiple: int) -> int:
    return math.ceil(value / multiple) * multiple


def _check(length: int, tile: int, overlap: int, multiple: int) -> None:
    if length < 1 or multiple < 1:
        raise ValueError(f"length {length} and multiple {multiple}: both must be at least 1.")
    if tile < multiple:
        raise ValueError(f"tile size {tile} is too small: allowed is {multiple} or more, in steps of {multiple}.")
    largest = (tile // multiple - 1) * multiple
    if not 0 <= overlap <= largest:
        raise ValueError(f"overlap {overlap} does not fit tile size {tile}: allowed is 0 to {largest}.")


def split_evenly(length: int, tile: int, overlap: int, multiple: int = 8) -> list[slice]:
    """Split `length` into the fewest equal parts of at most `tile` that overlap by at least `overlap`.

    A length that fits is one part, whatever its size. Otherwise every part has the same size, a multiple of
    `multiple`, and every start is a multiple too, except the last one of a `length` that is none. `tile` is rounded
    down and `overlap` up to a multiple. Even parts cost little more than the overlap: a length of 512 in tiles of 256
    with overlap 32 is three parts of 192, not three of 256.

    Raises:
        ValueError: a tile smaller than `multiple` or an overlap that leaves no room to move on.
    """
    _check(length, tile, overlap, multiple)
    if length <= tile:
        return [slice(0, length)]
    tile, overlap = tile // multiple * multiple, _round_up(overlap, multiple)
    count = math.ceil((length - overlap) / (tile - overlap))
    size = _round_up((length + (count - 1) * overlap) / count, multiple)
    last = length - size
    # Rounding up, the gap between two starts stays at most size - overlap, also before an unaligned last part.
    starts = [min(-(-index * last // ((count - 1) * multiple)) * multiple, last) for index in range(count - 1)]
    return [slice(start, start + size) for start in [*starts, last]]


def tile_grid(size: tuple[int, int], tile: int, overlap: int, multiple: int = 8) -> list[Tile]:
    """Split (height, width) into equal tiles, row by row: `split_evenly` on both sides."""
    height, width = size
    columns = split_evenly(width, tile, overlap, multiple)
    return [Tile(row, column) for row in split_evenly(height, tile, overlap, multiple) for column in columns]


def _profile(part: slice, length: int, overlap: int) -> Tensor:
    """Weight along one side: raised cosine ramps of `overlap` values at the ends that are not the picture's."""
    size = part.stop - part.start
    weight = torch.ones(size)
    ramp_size = min(overlap, size)
    ramp = 0.5 - 0.5 * torch.cos(torch.pi * (torch.arange(ramp_size) + 0.5) / max(ramp_size, 1))
    if part.start > 0:
        weight[:ramp_size] *= ramp
    if part.stop < length:
        weight[size - ramp_size :] *= ramp.flip(0)
    return weight


def tile_weight(tile: Tile, size: tuple[int, int], overlap: int) -> Tensor:
    """Blending weight of a tile of a picture of `size` (height, width): float32 (tile height, tile width), above 0.

    1 inside and along the picture's own border, falling as a raised cosine over `overlap` values towards the tile's
    interior edges. Float32 on purpose: half precision loses the corners and divides 0 by 0. Weights of overlapping
    tiles do not add up to 1; divide by their sum, as `TileBlend` does.
    """
    rows = _profile(tile.rows, size[0], overlap)
    return rows[:, None] * _profile(tile.columns, size[1], overlap)[None, :]


class TileBlend:
    """Weighted mean of overlapping tiles, in float32 on the CPU, so that it needs no memory of the device."""

    def __init__(self, size: tuple[int, int], overlap: int) -> None:
        self.size = size
        self.overlap = overlap
        self._sum: Tensor | None = None
        self._weight = torch.zeros(size)

    def add(self, tile: Tile, values: Tensor) -> None:
        """Add the values (..., tile height, tile width) of one tile; any float type, any device."""
        values = values.detach().to("cpu", torch.float32)
        if self._sum is None:
            self._sum = torch.zeros(*values.shape[:-2], *self.size)
        weight = tile_weight(tile, self.size, self.overlap)
        tile.cut(self._sum).add_(values * weight)
        tile.cut(self._weight).add_(weight)

    def mean(self) -> Tensor:
        """The blended whole, float32 (..., height, width).

        Raises:
            ValueError: a place was never covered.
        """
        if self._sum is None or not bool((self._weight > 0).all()):
            raise ValueError(f"the tiles added do not cover the whole of {self.size[0]}x{self.size[1]}.")
        return self._sum / self._weight


def map_tiles(
    function: Callable[[Tensor], Tensor],
    values: Tensor,
    tile: int,
    overlap: int,
    *,
    factor: int = 1,
    finished: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Apply `function` to tiles of `values` (..., height, width) and blend what it returns.

    `function` returns its tile with both sides `factor` times longer (8 for the decoder of Stable Diffusion's
    autoencoder). `tile` and `overlap` are in units of `values`. `finished(done, total)` is called after every tile.
    The result is float32 on the CPU; only one tile at a time is anywhere else.
    """
    height, width = values.shape[-2:]
    tiles = tile_grid((height, width), tile, overlap)
    blend = TileBlend((height * factor, width * factor), overlap * factor)
    for done, part in enumerate(tiles, start=1):
        blend.add(part.scaled(factor), function(part.cut(values)))
        if finished is not None:
            finished(done, len(tiles))
    return blend.mean()


def batches(tiles: list[Tile], size: int) -> Iterator[list[Tile]]:
    """Consecutive groups of at most `size` tiles."""
    for start in range(0, len(tiles), size):
        yield tiles[start : start + size]
