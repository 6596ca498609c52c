"""Gaussian noise from seeds, in the order in which the WebUI draws it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lib_latent_upscale.samplers import Noise
from lib_latent_upscale.schedules import StepPlan

__all__ = ["SeededNoise"]


class SeededNoise:
    """Gaussian noise of a batch of pictures, each from its own seed, made on the CPU whatever the device.

    The first draw is the starting noise, later ones are what ancestral samplers add: the order of the WebUI's
    `rng.ImageRNG` with its setting "Random number generator source: CPU".
    """

    def __init__(self, seeds: Sequence[int], shape: tuple[int, ...]) -> None:
        self.seeds = list(seeds)
        self.shape = shape
        self._generators = [torch.Generator("cpu").manual_seed(seed) for seed in self.seeds]

    def draw(self) -> Tensor:
        """The next noise: float32 (pictures, channels, height, width) on the CPU."""
        return torch.stack([torch.randn(self.shape, generator=generator) for generator in self._generators])

    def along(self, plan: StepPlan) -> Noise:
        """The noise for a sampler that runs `plan`."""
        positive = plan.sigmas[plan.sigmas > 0]
        return Noise(self.draw, self.seeds, positive.min(), positive.max())
