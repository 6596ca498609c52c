"""Tables of the noise that models were trained with, as k-diffusion's sigmas."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lib_latent_upscale.errors import InputError

__all__ = ["LEAST_ALPHA", "NoiseTable", "sd1_sigmas", "sigmas_of"]


LEAST_ALPHA = 4.8973451890853435e-08
"""Replaces a cumulative product of 0 (zero terminal SNR), whose sigma would be infinite; the WebUI's own value."""


def sigmas_of(alphas: Tensor) -> Tensor:
    """Sigmas, ascending, from cumulative products of 1 - beta: the noise's deviation, relative to the picture's."""
    return ((1 - alphas) / alphas).sqrt()


def sd1_sigmas() -> Tensor:
    """The noise table of SD 1.x and SDXL: 1000 sigmas, ascending, 0.029 to 14.6 (betas of `scaled_linear`)."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return sigmas_of((1 - betas).cumprod(0)).float()


@dataclass(frozen=True, eq=False)
class NoiseTable:
    """The noise table of a model."""

    alphas: Tensor
    """Cumulative products of 1 - beta, float32 (timesteps,) on the CPU."""
    prediction: str = "v_prediction"
    """What the UNet returns: "v_prediction", "epsilon" or "sample"."""

    @property
    def sigmas(self) -> Tensor:
        """k-diffusion's noise levels, float64, ascending."""
        return sigmas_of(self.alphas.double())

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> NoiseTable:
        """The table that a scheduler_config.json of diffusers describes.

        Raises:
            ValueError: a schedule of betas that is not known.
        """
        count = config.get("num_train_timesteps", 1000)
        start, end = config.get("beta_start", 0.0001), config.get("beta_end", 0.02)
        make = _BETAS.get(config.get("beta_schedule", "linear"))
        if make is None:
            raise InputError(f"beta_schedule is {config['beta_schedule']!r}; known are: {', '.join(_BETAS)}")
        betas = torch.tensor(config["trained_betas"]) if config.get("trained_betas") else make(start, end, count)
        return cls(torch.cumprod(1 - betas, 0), config.get("prediction_type", "epsilon"))


_BETAS: Mapping[str, Callable[[float, float, int], Tensor]] = {
    "linear": torch.linspace,
    "scaled_linear": lambda start, end, count: torch.linspace(start**0.5, end**0.5, count) ** 2,
}
