"""Encode and decode pictures of any size; large ones in tiles that share one set of statistics, so without seams."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lib_latent_upscale.memory import is_out_of_memory
from lib_latent_upscale.tiling import Tile, TileBlend, tile_grid

__all__ = ["TILE", "decode_latent", "encode_picture", "shift_factor"]

_log = logging.getLogger(__name__)

TILE = 128
"""Latent cells: pictures with longer sides (1024 pixels) are tiled, and smaller ones only if memory runs out."""
_SMALLEST_TILE = 32
"""Latent cells; the smallest side of a tile."""
_SAMPLES = 3
"""The shared statistics come from this number of samples in each direction, each a quarter of a tile long."""


class _SharedNorm:
    """Replaces the forward of a GroupNorm: the statistics of the first batch are used for all later ones.

    A GroupNorm computes mean and variance over its whole input, so each tile would get its own contrast and colour.
    """

    def __init__(self, norm: nn.GroupNorm) -> None:
        self.norm = norm
        self.kept: tuple[Tensor, Tensor] | None = None

    def __call__(self, values: Tensor) -> Tensor:
        if self.kept is None:
            self.kept = self._line(values.float())
        shape = (1, -1) + (1,) * (values.dim() - 2)
        factor, offset = (part.to(values.dtype).view(shape) for part in self.kept)
        return torch.addcmul(offset, values, factor)

    def _line(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """The norm as a factor and an offset for each channel, from the statistics of all `values`."""
        groups = values.reshape(len(values), self.norm.num_groups, -1)
        variances, means = torch.var_mean(groups, dim=-1, correction=0)
        mean = means.mean(dim=0)
        variance = variances.mean(dim=0) + means.var(dim=0, correction=0)
        channels = values.shape[1] // self.norm.num_groups
        scale = (variance + self.norm.eps).rsqrt().repeat_interleave(channels)
        factor = scale * self.norm.weight
        return factor, self.norm.bias - mean.repeat_interleave(channels) * factor


@contextmanager
def _shared_statistics(network: nn.Module) -> Iterator[None]:
    """Inside, the first call of `network` sets the statistics of its group norms for all later calls."""
    norms = [module for module in network.modules() if isinstance(module, nn.GroupNorm)]
    for norm in norms:
        norm.forward = _SharedNorm(norm)  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


@contextmanager
def _sums_in_place(network: nn.Module) -> Iterator[None]:
    """Inside, residual blocks add to their input in place, which is not needed afterwards.

    The values are the same. Three tensors of the result's size are in memory at once instead of five: 0.5 GiB less for
    1024x1024 pixels and 64 channels.
    """
    from diffusers.models.resnet import ResnetBlock2D

    blocks = [one for one in network.modules() if isinstance(one, ResnetBlock2D) and one.output_scale_factor == 1]
    for block in blocks:
        block.forward = partial(_residual, block)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def _residual(block: Any, values: Tensor, temb: None = None) -> Tensor:  # noqa: ARG001 - only UNets have it
    """An autoencoder's residual block, computed into `values`; each line frees the tensor before it."""
    hidden = values
    for norm, convolution in ((block.norm1, block.conv1), (block.norm2, block.conv2)):
        hidden = norm(hidden)
        hidden = block.nonlinearity(hidden)
        hidden = convolution(hidden)
    if block.conv_shortcut is not None:
        values = block.conv_shortcut(values)
    return values.add_(hidden)


def _samples(size: tuple[int, int], tile: int) -> list[Tile]:
    """Squares spread evenly over a latent of `size` (height, width), in cells."""
    side = min(tile // 4, *size)
    rows, columns = ([round(index * (length - side) / (_SAMPLES - 1)) for index in range(_SAMPLES)] for length in size)
    return [Tile(slice(row, row + side), slice(column, column + side)) for row in rows for column in columns]


@dataclass(frozen=True)
class _Coder:
    """The encoder or the decoder of an autoencoder."""

    network: nn.Module
    code: Callable[[Tensor], Tensor]
    inward: int
    """Side of a latent cell in the input: pixels when encoding, otherwise 1."""
    outward: int
    """The same in the output."""
    singly: bool = False
    """Whether the pictures of a batch are coded one by one: on a CPU up to a fifth faster, and with less memory."""

    def __call__(self, values: Tensor) -> Tensor:
        """Code a batch: in tiles if it is large, in smaller ones if memory runs out."""
        with _sums_in_place(self.network):
            return self._within_memory(values, TILE)

    def _within_memory(self, values: Tensor, tile: int) -> Tensor:
        cells = values.shape[-2] // self.inward, values.shape[-1] // self.inward
        try:
            if max(cells) <= tile:
                parts = torch.split(values, 1 if self.singly else len(values))
                return torch.cat([self.code(part) for part in parts])
            return torch.cat([self._tiled(single[None], cells, tile) for single in values])
        except RuntimeError as error:
            if tile <= _SMALLEST_TILE or not is_out_of_memory(error):
                raise
        _log.info("Not enough memory for tiles of %d cells: trying tiles of half that size.", tile)
        return self._within_memory(values, tile // 2)  # outside of except: the error holds on to the memory

    def _tiled(self, values: Tensor, cells: tuple[int, int], tile: int) -> Tensor:
        """Code one picture or latent (with a batch dimension) in tiles, and blend them."""
        overlap = tile // 8
        blend = TileBlend((cells[0] * self.outward, cells[1] * self.outward), overlap * self.outward)
        with _shared_statistics(self.network):
            samples = _samples(cells, tile)
            self.code(torch.cat([sample.scaled(self.inward).cut(values) for sample in samples]))
            for part in tile_grid(cells, tile, overlap, multiple=1):
                blend.add(part.scaled(self.outward), self.code(part.scaled(self.inward).cut(values)))
        return blend.mean()


def _ready(vae: Any, values: Tensor) -> Tensor:
    """`values` on the autoencoder's device and in its dtype; channels last, which decodes a fifth faster on a CPU."""
    return values.to(vae.device, vae.dtype, memory_format=torch.channels_last)


def shift_factor(config: Any) -> float:
    """The shift of an autoencoder's latents before they are scaled; older configurations have none, or None."""
    return getattr(config, "shift_factor", None) or 0.0


def _on_processor(vae: Any) -> bool:
    device: torch.device = vae.device
    return device.type == "cpu"


@torch.no_grad()
def encode_picture(vae: Any, picture: Tensor, cell: int, seed: int | Sequence[int] | None = None) -> Tensor:
    """The latents of pictures, scaled as the UNet expects them.

    An autoencoder returns a distribution. With a seed, each picture's latent is drawn from it by a generator of its
    own, as the extension does in the WebUI: the same seed gives the same latent in both. Without, it is the mean.

    Args:
        vae: diffusers' AutoencoderKL.
        picture: (batch, 3, height, width) in -1 to 1; sides are multiples of `cell`.
        cell: side of a latent cell in pixels.
        seed: one for all pictures, or one for each.

    Returns:
        (batch, channels, height / cell, width / cell), float32.
    """

    def code(part: Tensor) -> Tensor:
        distribution = vae.encode(_ready(vae, part)).latent_dist
        return torch.cat([distribution.mean, distribution.std], dim=1).float()

    latent, deviation = _Coder(vae.encoder, code, cell, 1, _on_processor(vae))(picture).chunk(2, dim=1)
    if seed is not None:
        seeds = [seed] * len(latent) if isinstance(seed, int) else seed
        draws = [torch.randn(latent.shape[1:], generator=torch.Generator().manual_seed(one)) for one in seeds]
        latent = latent + deviation * torch.stack(draws).to(latent)
    scaling: float = vae.config.scaling_factor
    return (latent - shift_factor(vae.config)) * scaling


@torch.no_grad()
def decode_latent(vae: Any, latent: Tensor, cell: int) -> Tensor:
    """The pictures of latents.

    Args:
        vae: diffusers' AutoencoderKL.
        latent: (batch, channels, h, w), scaled as the UNet expects them.
        cell: side of a latent cell in pixels.

    Returns:
        (batch, 3, h * cell, w * cell) in about -1 to 1, float32.
    """

    def code(part: Tensor) -> Tensor:
        decoded: Tensor = vae.decode(_ready(vae, part)).sample
        return decoded.float()

    unscaled = latent / vae.config.scaling_factor + shift_factor(vae.config)
    return _Coder(vae.decoder, code, 1, cell, _on_processor(vae))(unscaled)
