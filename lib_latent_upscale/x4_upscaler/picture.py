"""From the input picture to a padded tensor, and from the decoded tensor to a picture four times as large."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from lib_latent_upscale.pictures import rgb_and_alpha

__all__ = ["FACTOR", "Source", "guard_colours", "prepare"]

FACTOR = 4
_SMALLEST = 64
"""Smaller pictures are padded to this side: the model never saw fewer pixels at once."""
_MULTIPLE = 8
"""The UNet halves its input three times."""
_GUARD_BLUR = 8.0
"""Standard deviation, in input pixels, of the blur that selects low frequencies."""


@dataclass(frozen=True, eq=False)
class Source:
    """A picture prepared for the model."""

    pixels: Tensor
    """float32 (1, 3, padded height, padded width) in -1 to 1 on the CPU; the border is mirrored."""
    size: tuple[int, int]
    """(width, height) of the picture itself."""
    offset: tuple[int, int]
    """(left, top) of the picture within `pixels`."""
    alpha: Image.Image | None
    """Transparency of the picture, mode L; None if it has none."""

    @property
    def padded(self) -> tuple[int, int]:
        """(height, width) of `pixels`."""
        return self.pixels.shape[-2], self.pixels.shape[-1]

    def finish(self, decoded: Tensor) -> Image.Image:
        """The picture in `decoded` (1, 3, 4 * padded height, 4 * padded width): RGB, or RGBA where the input was."""
        left, top = (FACTOR * side for side in self.offset)
        width, height = (FACTOR * side for side in self.size)
        cut = decoded[0, :, top : top + height, left : left + width]
        values = (cut / 2).add_(0.5).clamp_(0, 1).mul_(255).round_().to(torch.uint8).permute(1, 2, 0)
        picture = Image.fromarray(np.ascontiguousarray(values.numpy()))
        if self.alpha is not None:
            picture.putalpha(self.alpha.resize(picture.size, Image.Resampling.BICUBIC))
        return picture


def prepare(picture: Image.Image) -> Source:
    """A picture of any mode as the model's input: RGB, mirrored at the border to multiples of 8, at least 64 pixels."""
    rgb, alpha = rgb_and_alpha(picture)
    values = np.asarray(rgb, dtype=np.float32)
    top, bottom = _margins(rgb.height)
    left, right = _margins(rgb.width)
    values = np.pad(values, ((top, bottom), (left, right), (0, 0)), mode="symmetric")
    pixels = 2.0 * torch.from_numpy(values.transpose(2, 0, 1)[None] / 255.0) - 1.0
    return Source(pixels.contiguous(), rgb.size, (left, top), alpha)


def _margins(length: int) -> tuple[int, int]:
    missing = max(math.ceil(length / _MULTIPLE) * _MULTIPLE, _SMALLEST) - length
    return missing // 2, missing - missing // 2


def guard_colours(decoded: Tensor, source: Tensor) -> Tensor:
    """Make the low frequencies of `decoded` follow the input's; float32, in place.

    `decoded` is (1, 3, 4h, 4w), `source` (1, 3, h, w), both in -1 to 1. The difference between the input and the
    shrunk result is blurred, enlarged and added: shifts of colour and brightness go, detail stays.
    """
    shrunk = F.avg_pool2d(decoded.clamp(-1, 1), FACTOR)
    drift = _blur(source - shrunk, _GUARD_BLUR)
    return decoded.add_(F.interpolate(drift, scale_factor=FACTOR, mode="bilinear", align_corners=False))


def _blur(values: Tensor, deviation: float) -> Tensor:
    """Gaussian blur, mirrored at the border."""
    radius = min(math.ceil(3 * deviation), min(values.shape[-2:]) - 1)
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / deviation) ** 2)
    kernel = (kernel / kernel.sum()).expand(values.shape[1], 1, 1, -1)
    padded = F.pad(values, (radius, radius, radius, radius), mode="reflect")
    return F.conv2d(F.conv2d(padded, kernel, groups=values.shape[1]), kernel.transpose(-1, -2), groups=values.shape[1])
