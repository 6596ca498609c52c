"""Families of models with the same latents: channels, and the scale and shift of the autoencoder's output."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torch import Tensor

__all__ = ["LATENTS", "Family", "family_of"]


@dataclass(frozen=True)
class Family:
    """Models with the same latents: `(raw - shift) * scale`, where `raw` is the autoencoder's output."""

    title: str
    channels: int
    scale: float
    shift: float = 0.0

    def raw(self, latent: Tensor) -> Tensor:
        """The autoencoder's output, from the latents that the denoising model sees; any shape."""
        return latent / self.scale + self.shift

    def own(self, raw: Tensor) -> Tensor:
        """The reverse of `raw`."""
        return (raw - self.shift) * self.scale


LATENTS: Mapping[str, Family] = MappingProxyType(
    {
        "sd1": Family("SD 1.x and 2.x", 4, 0.18215),
        "sdxl": Family("SDXL", 4, 0.13025),
        "sd3": Family("SD 3.x", 16, 1.5305, 0.0609),
        "flux1": Family("Flux.1", 16, 0.3611, 0.1159),
    }
)
"""All families that are told apart, with the numbers of their published `vae/config.json`."""


def family_of(scale: float, shift: float = 0.0, channels: int | None = None) -> str | None:
    """The family whose latents have this scale and shift, a name in `LATENTS`; None for all others.

    Args:
        scale, shift: as in `Family`.
        channels: of the latents, if known.
    """

    def fits(one: Family) -> bool:
        same = math.isclose(one.scale, scale, rel_tol=1e-3) and math.isclose(one.shift, shift, abs_tol=1e-3)
        return same and channels in (None, one.channels)

    return next((name for name, one in LATENTS.items() if fits(one)), None)
