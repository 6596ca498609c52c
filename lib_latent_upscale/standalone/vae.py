"""Encode and decode pictures of any size: above a size in tiles that share one set of statistics, so without seams."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lib_latent_upscale.tiling import Tile, TileBlend, tile_grid

__all__ = ["TILE", "decode_latent", "encode_picture"]

TILE = 96
"""Latent cells of a side (768 pixels) up to which nothing is tiled."""
_OVERLAP = 16
"""Latent cells by which tiles overlap: the farther from its own picture, the less a value counts."""
_SAMPLE = 32
"""Latent cells of a side of the samples that the shared statistics come from."""
_SAMPLES = 9
"""Number of those samples; together they are as large as one tile."""


class _SharedNorm:
    """Stands in for a GroupNorm's forward: statistics of the first batch, kept for every later one.

    A GroupNorm takes mean and variance over its whole input, so each tile would get its own contrast and colour.
    """

    def __init__(self, norm: nn.GroupNorm) -> None:
        self.norm = norm
        self.kept: tuple[Tensor, Tensor] | None = None

    def __call__(self, values: Tensor) -> Tensor:
        grouped = values.float().reshape(len(values), self.norm.num_groups, -1, *values.shape[2:])
        if self.kept is None:
            dims = [dim for dim in range(grouped.dim()) if dim != 1]
            variance, mean = torch.var_mean(grouped, dim=dims, correction=0, keepdim=True)
            self.kept = mean.squeeze(), (variance + self.norm.eps).rsqrt().squeeze()
        mean, scale = self.kept
        shape = (1, -1) + (1,) * (grouped.dim() - 2)
        normal = ((grouped - mean.view(shape)) * scale.view(shape)).flatten(1, 2).to(values.dtype)
        scaled: Tensor = normal * self.norm.weight.view(shape[:-1]) + self.norm.bias.view(shape[:-1])
        return scaled


@contextmanager
def _shared_statistics(network: nn.Module) -> Iterator[None]:
    """Within, the first call of `network` sets the statistics of its group norms for all later calls."""
    norms = [module for module in network.modules() if isinstance(module, nn.GroupNorm)]
    for norm in norms:
        norm.forward = _SharedNorm(norm)  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


def _samples(size: tuple[int, int]) -> list[Tile]:
    """Squares spread evenly over a latent of `size` (height, width), at its own scale."""
    side, count = min(_SAMPLE, *size), math.isqrt(_SAMPLES)
    rows, columns = ([round(index * (length - side) / (count - 1)) for index in range(count)] for length in size)
    return [Tile(slice(row, row + side), slice(column, column + side)) for row in rows for column in columns]


def _tiled(
    network: nn.Module,
    code: Callable[[Tensor], Tensor],
    values: Tensor,
    cells: tuple[int, int],
    factors: tuple[int, int],
) -> Tensor:
    """Run `code` on tiles of one picture or latent and blend the results.

    `cells` is the latent's size; `factors` says how many values of the input and of the output one cell covers.
    """
    inward, outward = factors
    blend = TileBlend((cells[0] * outward, cells[1] * outward), _OVERLAP * outward)
    with _shared_statistics(network):
        code(torch.cat([sample.scaled(inward).cut(values) for sample in _samples(cells)]))
        for tile in tile_grid(cells, TILE, _OVERLAP):
            blend.add(tile.scaled(outward), code(tile.scaled(inward).cut(values)))
    return blend.mean()


def _coded(network: nn.Module, code: Callable[[Tensor], Tensor], values: Tensor, factors: tuple[int, int]) -> Tensor:
    cells = values.shape[-2] // factors[0], values.shape[-1] // factors[0]
    if max(cells) <= TILE:
        return code(values)
    return torch.cat([_tiled(network, code, single[None], cells, factors) for single in values])


@torch.no_grad()
def encode_picture(vae: Any, picture: Tensor, cell: int) -> Tensor:
    """Latent (batch, channels, h, w) of pictures (batch, 3, height, width) in -1 to 1, sides multiples of `cell`.

    Takes the mean of the autoencoder's distribution and no sample of it, so that the same picture gives the same
    latent. In the units that the UNet works in.
    """

    def code(part: Tensor) -> Tensor:
        mean: Tensor = vae.encode(part.to(vae.device, vae.dtype)).latent_dist.mode()
        return mean.float()

    latent = _coded(vae.encoder, code, picture, (cell, 1))
    scaling: float = vae.config.scaling_factor
    return (latent - (getattr(vae.config, "shift_factor", None) or 0.0)) * scaling


@torch.no_grad()
def decode_latent(vae: Any, latent: Tensor, cell: int) -> Tensor:
    """Pictures (batch, 3, height, width) in about -1 to 1 of latents (batch, channels, h, w), `cell` pixels a cell."""

    def code(part: Tensor) -> Tensor:
        decoded: Tensor = vae.decode(part.to(vae.device, vae.dtype)).sample
        return decoded.float()

    unscaled = latent / vae.config.scaling_factor + (getattr(vae.config, "shift_factor", None) or 0.0)
    return _coded(vae.decoder, code, unscaled, (1, cell))
