"""Our methods in the Upscaler menu of txt2img's Hires. fix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from lib_latent_upscale.interpolation import INTERPOLATIONS
from lib_latent_upscale.latent_layouts import resized
from lib_latent_upscale.methods import METHODS, weights_of
from lib_latent_upscale.settings import UpscaleSettings
from lib_latent_upscale.webui.errors import refusing
from lib_latent_upscale.webui.host import hires
from lib_latent_upscale.webui.host import processing as host
from lib_latent_upscale.webui.run.latent_upscale import TITLE, WEIGHTS_LABEL

__all__ = ["UPSCALERS", "add_upscalers", "install", "remove_upscalers", "uninstall"]


def _upscalers() -> dict[str, UpscaleSettings]:
    """Every interpolation with and without keep statistics, and what a network does; the host resizes pictures itself.

    The same on each host, whatever it has by itself, so that an infotext is read everywhere.
    """
    plain = {name: UpscaleSettings(method=name) for name in INTERPOLATIONS}
    kept = {f"{name} (keep statistics)": UpscaleSettings(method=name, keep_statistics=True) for name in INTERPOLATIONS}
    learned = {name: UpscaleSettings(method=name) for name, method in METHODS.items() if method.network}
    return {f"{TITLE}: {name}": settings for name, settings in {**plain, **kept, **learned}.items()}


UPSCALERS: Mapping[str, UpscaleSettings] = MappingProxyType(_upscalers())
"""By the name in the menu, the infotext and the API."""


def add_upscalers() -> None:
    """Put them into the host's menu."""
    hires.add_modes(UPSCALERS)


def remove_upscalers() -> None:
    """Take them out of the host's menu."""
    hires.remove_modes(UPSCALERS)


def install(p: Any) -> None:
    """Let the Hires. fix of a txt2img generation know our upscalers, for the hook `before_process`."""
    if getattr(p, "enable_hr", False):
        hires.take_over(p, UPSCALERS, partial(_enlarged, p))


def uninstall(p: Any) -> None:
    """For the hook `postprocess`."""
    hires.release(p)


def _enlarged(p: Any, name: str, latent: Tensor, size: tuple[int, int], seeds: Sequence[int]) -> Tensor:
    """The latents of the first pass at the size of the second, each with the draw of its own seed where one is drawn.

    Raises:
        ArgumentError: no network knows these latents, or the size is not one that it makes.
    """
    settings, family = UPSCALERS[name], host.latent_family(p.sd_model)
    with refusing():
        weights = weights_of(settings.method, family)
        if weights:  # X/Y/Z plot's copies of `p` share the dictionary
            p.extra_generation_params = {**p.extra_generation_params, WEIGHTS_LABEL: weights}
        pairs = zip(latent, seeds, strict=False)
        return torch.cat([_one(p, settings, family, one[None], size, int(seed)) for one, seed in pairs])


def _one(
    p: Any, settings: UpscaleSettings, family: str | None, latent: Tensor, size: tuple[int, int], seed: int
) -> Tensor:
    cell = host.cell()
    source = (latent.shape[-2], latent.shape[-1])
    if settings.resizes_picture:
        target = (size[1] * cell, size[0] * cell)
        picture = host.enlarged(hires.decoded(p, latent)[0], target, 0)
        latent = hires.encoded(picture, seed, latent)
    return resized(latent, size, partial(settings.enlarge, source=source, family=family), cell=cell)
