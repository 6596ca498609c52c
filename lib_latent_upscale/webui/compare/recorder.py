"""How a comparison takes part in its runs: pictures are encoded only once, and what ran is recorded."""

from __future__ import annotations

import hashlib
import time
from typing import Any

import torch
from torch import Tensor

from lib_latent_upscale.webui.host import processing as host
from lib_latent_upscale.webui.run.collaborator import Collaborator

__all__ = ["EncodeCache", "Recorder"]


class Recorder(Collaborator):
    """Lets a variant use pictures that others have encoded, and records what really ran."""

    def __init__(self, encoded: EncodeCache) -> None:
        self.steps = 0
        self.fewer = False
        self.first_sigma: float | None = None
        self.started: float | None = None
        self._shared = encoded

    def encode(self, encode: host.Encode) -> host.Encode:
        return self._shared.through(encode)

    def prepared(self, p: Any) -> None:
        self._watch(p.sampler)

    def sampling(self, p: Any) -> None:  # noqa: ARG002
        if self.started is None:
            self.started = time.perf_counter()

    def sampled(self, p: Any, calls: int | None) -> None:  # noqa: ARG002
        if calls is not None and calls < self.steps:
            self.steps, self.fewer = calls, True

    def _watch(self, sampler: Any) -> None:
        """Record schedule and steps when the sampler starts; the sampler object belongs to this run."""
        launch: Any = sampler.launch_sampling
        get_sigmas: Any = getattr(sampler, "get_sigmas", None)
        made: list[Tensor] = []

        def noted_sigmas(*args: Any, **kwargs: Any) -> Tensor:
            made[:] = [get_sigmas(*args, **kwargs)]
            return made[0]

        def noted_launch(steps: int, *args: Any, **kwargs: Any) -> Any:
            self.steps = steps
            self.first_sigma = made[0][-steps - 1].item() if made else None
            return launch(steps, *args, **kwargs)

        sampler.launch_sampling = noted_launch
        if get_sigmas is not None:
            sampler.get_sigmas = noted_sigmas


class EncodeCache:
    """Latents of pictures that have been encoded, by picture and seed."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, bytes], tuple[Tensor, Any]] = {}

    @property
    def sizes(self) -> set[tuple[int, ...]]:
        """(height, width) of the latents in cells."""
        return {tuple(latent.shape[-2:]) for latent, _ in self._kept.values()}

    def through(self, encode: host.Encode) -> host.Encode:
        """`encode`, but only once for each picture; the random state afterwards is always as if it had been encoded."""

        def encoded(pixels: Tensor) -> Tensor:
            key = (torch.initial_seed(), hashlib.sha256(pixels.float().cpu().numpy().tobytes()).digest())
            if key not in self._kept:
                self._kept[key] = encode(pixels), host.saved_rng_state()
            latent, put_back = self._kept[key]
            put_back()
            return latent.clone()

        return encoded
