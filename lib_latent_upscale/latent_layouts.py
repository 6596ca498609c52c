"""Latents that are not plain (batch, channels, h, w): a frame axis, and cells packed into channels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lib_latent_upscale.errors import InputError

__all__ = ["pack_cells", "resized", "unpack_cells"]

Size = tuple[int, int]

_PACKED = (128, 16)
"""Channels, and pixels per cell, of Flux.2's latents: 32 channels of 2x2 cells of 8 pixels each."""


def unpack_cells(latent: Tensor) -> Tensor:
    """(batch, 4 * channels, h, w) as (batch, channels, 2 * h, 2 * w).

    Channel `4 * c + 2 * row + column` is cell (row, column) of channel `c`, as diffusers' `Flux2Pipeline` packs them.
    """
    return torch.pixel_shuffle(latent, 2)


def pack_cells(latent: Tensor) -> Tensor:
    """The reverse of `unpack_cells`."""
    return torch.pixel_unshuffle(latent, 2)


def resized(latent: Tensor, size: Size, resize: Callable[[Tensor, Size], Tensor], *, cell: int = 8) -> Tensor:
    """Latents of any model at another size, by what resizes plain ones.

    Args:
        latent: (batch, channels, h, w), or (batch, channels, 1, h, w) as in Wan, Qwen-Image and related models.
        size: (height, width) of the result in the latent's own cells.
        resize: resizes a latent (batch, channels, h, w) to (height, width).
        cell: pixels per cell. 128 channels of 16 pixels are Flux.2's packed ones; packed, neighbours would be mixed
            with cells two apart.

    Raises:
        ValueError: the latent is a video; and what `resize` raises.
    """
    if latent.ndim == 5:
        if latent.shape[2] != 1:
            raise InputError(f"latent has {latent.shape[2]} frames; a video is not resized, only single pictures are")
        return resized(latent[:, :, 0], size, resize, cell=cell)[:, :, None]
    if latent.ndim == 4 and (latent.shape[1], cell) == _PACKED:
        return pack_cells(resize(unpack_cells(latent), (2 * size[0], 2 * size[1])))
    return resize(latent, size)
