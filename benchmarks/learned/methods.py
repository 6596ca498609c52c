"""The ways from a small picture to large latents that are compared, and what is measured of the decoded result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from lib_latent_upscale.comparison.metrics import measure
from lib_latent_upscale.interpolation import interpolate_latent
from lib_latent_upscale.learned import restore_latent, upscale_latent

CELL = 8
CEILING = "round trip"
"""The original through the autoencoder: no method can be expected to do better."""


@dataclass(frozen=True)
class Case:
    """One picture at one factor in the latents of one family."""

    original: Image.Image
    small: Image.Image
    factor: float
    family: str
    encoder: nn.Module
    decoder: nn.Module

    @torch.no_grad()
    def encode(self, picture: Image.Image) -> Tensor:
        values = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255
        latent: Tensor = self.encoder(values.contiguous(memory_format=torch.channels_last))
        return latent

    @torch.no_grad()
    def decode(self, latent: Tensor) -> Image.Image:
        values = self.decoder(latent)[0].clamp(0, 1)
        return Image.fromarray((values * 255).round().byte().permute(1, 2, 0).numpy())

    def resized(self) -> Image.Image:
        return self.small.resize(self.original.size, Image.Resampling.LANCZOS)


def interpolated(case: Case, method: str) -> Tensor:
    width, height = case.original.size
    return interpolate_latent(case.encode(case.small), (height // CELL, width // CELL), method)


def learned_latent(case: Case) -> Tensor:
    width, height = case.original.size
    return upscale_latent(case.encode(case.small), (height // CELL, width // CELL), case.family)


METHODS: Mapping[str, Callable[[Case], Tensor]] = {
    CEILING: lambda case: case.encode(case.original),
    **{name: partial(interpolated, method=name) for name in ("nearest-exact", "bilinear", "bicubic")},
    "pixels": lambda case: case.encode(case.resized()),
    "learned": lambda case: restore_latent(case.encode(case.resized()), case.factor, case.family),
    "learned-latent": learned_latent,
}

FIGURES = ("PSNR", "SSIM", "GMSD", "gradient energy", "colour", "latent distance")


def gradient_energy(picture: Image.Image) -> float:
    """Mean squared difference of neighbouring grey values."""
    grey = np.asarray(picture.convert("L"), dtype=np.float64) / 255
    return float((np.diff(grey, axis=0) ** 2).mean() + (np.diff(grey, axis=1) ** 2).mean())


def figures(case: Case, picture: Image.Image, ceiling: Image.Image) -> dict[str, float]:
    """Of one result: against the original, and its mean colour against the round trip's, in steps of 255."""
    mean, wanted = (np.asarray(one, dtype=np.float64).mean(axis=(0, 1)) for one in (picture, ceiling))
    return {**nearness(case, picture), "colour": float(np.abs(mean - wanted).max())}


def nearness(case: Case, picture: Image.Image) -> dict[str, float]:
    """Of one result: against the original."""
    reference = measure(picture, case.small, reference=case.original).reference
    if reference is None or reference.gmsd is None:
        raise SystemExit("piq is needed for GMSD: pip install -e '.[standalone]'")
    return {
        "PSNR": reference.psnr,
        "SSIM": reference.ssim,
        "GMSD": reference.gmsd,
        "gradient energy": gradient_energy(picture) / gradient_energy(case.original),
    }
