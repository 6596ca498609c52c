"""Two networks: one makes the latents of a resized picture sharp, one enlarges the latents of a small picture.

Both predict a difference to their input (the second to the bicubic enlargement), so that an untrained network changes
nothing. The factor is an input, too. Latents have a deviation of about 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from lib_latent_upscale.checkpoints import Shapes

__all__ = ["Enlarge", "Restore", "in_float32", "load_network"]


class Block(nn.Module):
    """Two convolutions beside a shortcut (EDSR, Lim et al. 2017: no normalisation)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        result: Tensor = self.second(F.silu(self.first(features)))
        return features + result


def _plane(latent: Tensor, value: float) -> Tensor:
    return latent.new_full((len(latent), 1, *latent.shape[-2:]), value)


def _zeroed(convolution: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(convolution.weight)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    return convolution


class Restore(nn.Module):
    """From the latents of a resized picture to those of a sharp one: (batch, channels, height, width) in and out."""

    def __init__(self, channels: int, width: int = 64, depth: int = 10) -> None:
        super().__init__()
        self.inward = nn.Conv2d(channels + 1, width, 3, padding=1)
        self.body = nn.Sequential(*(Block(width) for _ in range(depth)))
        self.outward = _zeroed(nn.Conv2d(width, channels, 3, padding=1))

    def forward(self, latent: Tensor, factor: float) -> Tensor:
        """The restored latents; `factor` is how many times the picture was enlarged, 1 to 4."""
        features = self.inward(torch.cat([latent, _plane(latent, math.log2(factor))], 1))
        result: Tensor = self.outward(self.body(features))
        return latent + result


class Enlarge(nn.Module):
    """From small latents to large ones of any size: features are computed small, resized, and refined at that size."""

    def __init__(self, channels: int, width: int = 64, depth: int = 8, refinement: int = 3) -> None:
        super().__init__()
        self.inward = nn.Conv2d(channels + 2, width, 3, padding=1)
        self.body = nn.Sequential(*(Block(width) for _ in range(depth)))
        self.spread = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.placed = nn.Conv2d(2 * width + 4, width, 1)
        self.refined = nn.Sequential(*(Block(width) for _ in range(refinement)))
        self.outward = _zeroed(nn.Conv2d(width, channels, 3, padding=1))

    def forward(self, latent: Tensor, size: tuple[int, int]) -> Tensor:
        """The enlarged latents; `size` is their (height, width) in cells."""
        factors = [math.log2(large / small) for large, small in zip(size, latent.shape[-2:], strict=True)]
        features = self.inward(torch.cat([latent, *(_plane(latent, factor) for factor in factors)], 1))
        smooth, sharp = self.spread(features + self.body(features)).chunk(2, 1)
        parts = [
            F.interpolate(smooth, size, mode="bilinear", align_corners=False),
            F.interpolate(sharp, size, mode="nearest-exact"),
            _offsets(latent, size).expand(len(latent), -1, -1, -1),
        ]
        result: Tensor = self.outward(self.refined(self.placed(torch.cat(parts, 1))))
        return F.interpolate(latent, size, mode="bicubic", align_corners=False) + result


def _offsets(latent: Tensor, size: tuple[int, int]) -> Tensor:
    """The position of each large cell within its small one, -1 to 1 down and across, and the squares: (1, 4, *size)."""
    lines = []
    for large, small in zip(size, latent.shape[-2:], strict=True):
        centre = (torch.arange(large, device=latent.device, dtype=latent.dtype) + 0.5) * (small / large)
        lines.append((centre - centre.floor()) * 2 - 1)
    down, across = torch.meshgrid(*lines, indexing="ij")
    return torch.stack([down, across, down**2, across**2])[None]


def load_network(path: Path, build: Callable[[Shapes], nn.Module], device: torch.device) -> nn.Module:
    """A network with the weights of a safetensors file as float32, ready to compute on `device`.

    `build` makes it from the shapes of the tensors by their names; its parameters get no values and no memory.
    """
    weights = {name: value.float() for name, value in load_file(path).items()}
    with torch.device("meta"):  # no random numbers are drawn, so that the noise that is drawn next stays the same
        network = build({name: tuple(value.shape) for name, value in weights.items()})
    network.load_state_dict(weights, assign=True)
    return network.eval().requires_grad_(requires_grad=False).to(device)


@torch.no_grad()
def in_float32(function: Callable[[Tensor], Tensor], latent: Tensor) -> Tensor:
    """The result of `function` for a latent, computed in float32 whatever autocast says, in the dtype of `latent`."""
    with torch.autocast(latent.device.type, enabled=False):
        return function(latent.float()).to(latent.dtype)
