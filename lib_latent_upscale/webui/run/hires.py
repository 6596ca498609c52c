"""Our methods in the Upscaler menu of txt2img's Hires. fix."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from lib_latent_upscale.errors import InputError
from lib_latent_upscale.interpolation import INTERPOLATIONS
from lib_latent_upscale.latent_layouts import resized
from lib_latent_upscale.learned.files import check_size
from lib_latent_upscale.method_files import file_of
from lib_latent_upscale.methods import METHODS, weights_of
from lib_latent_upscale.settings import TITLE, WEIGHTS_LABEL, UpscaleSettings
from lib_latent_upscale.webui.errors import refusing
from lib_latent_upscale.webui.host import hires, learned_files, models
from lib_latent_upscale.webui.host import processing as host

__all__ = ["UPSCALERS", "add_upscalers", "install", "remove_upscalers", "uninstall"]

_START = f"{TITLE}: "


def _upscalers() -> dict[str, UpscaleSettings]:
    """Every interpolation with and without keep statistics, and the learned methods; hosts can resize pictures already.

    They are the same on every host, whatever upscalers it has, so that an infotext can be used everywhere.
    """
    plain = {name: UpscaleSettings(method=name) for name in INTERPOLATIONS}
    kept = {f"{name} (keep statistics)": UpscaleSettings(method=name, keep_statistics=True) for name in INTERPOLATIONS}
    learned = {name: UpscaleSettings(method=name) for name, method in METHODS.items() if method.network}
    return {f"{_START}{name}": settings for name, settings in {**plain, **kept, **learned}.items()}


UPSCALERS: Mapping[str, UpscaleSettings] = MappingProxyType(_upscalers())
"""Settings by the name in the menu, the infotext and the API. Files of the user's own are not included."""


def add_upscalers() -> None:
    """Add our upscalers to the host's menu, with the files that exist now."""
    hires.add_modes([*UPSCALERS, *(f"{_START}{method}" for method in learned_files.methods())])


def remove_upscalers() -> None:
    """Remove our upscalers from the host's menu."""
    hires.remove_modes(_START)


def install(p: Any) -> None:
    """Let the Hires. fix of a txt2img generation use our upscalers; for the hook `before_process`."""
    if getattr(p, "enable_hr", False):
        hires.take_over(p, _START, _admit, partial(_check, p), partial(_enlarged, p))


def _settings(name: str) -> UpscaleSettings | None:
    """The settings of the upscaler with this name; None if it is not ours. Its file need not exist."""
    method = name[len(_START) :]
    return UPSCALERS.get(name) or (UpscaleSettings(method) if file_of(method) else None)


@refusing()
def _admit(name: str) -> None:
    """Add a file to the host's menu that was put there after the menu was made.

    Raises:
        ArgumentError: there is no such file.
    """
    settings = _settings(name)
    if settings is not None and learned_files.file_for(settings.method) is not None:
        hires.add_modes([name])


@refusing()
def _check(p: Any, name: str) -> None:
    """Check before the first pass that the second one will be possible.

    Raises:
        ArgumentError: no network knows the latents of this checkpoint, or it cannot make the size.
    """
    settings = _settings(name)
    if settings is None or not hires.keeps_checkpoint(p):
        return
    file = learned_files.file_for(settings.method)
    weights_of(settings.method, models.latent_family(p.sd_model), file)
    if file is not None:
        check_size(file, *hires.sizes(p))


def uninstall(p: Any) -> None:
    """Give `p` back as it was; for the hook `postprocess`."""
    hires.release(p)


def _enlarged(p: Any, name: str, latent: Tensor, size: tuple[int, int], seeds: Sequence[int]) -> Tensor:
    """The latents of the first pass, enlarged for the second.

    Args:
        p: the host's processing object.
        name: name of the upscaler.
        latent: (batch, channels, h, w).
        size: (height, width) of the result in cells.
        seeds: one for each picture, for methods that encode a picture.

    Raises:
        ArgumentError: no network knows these latents, or it cannot make the size.
    """
    settings, family = _settings(name), models.latent_family(p.sd_model)
    with refusing():
        if settings is None:
            raise InputError(f"there is no upscaler {name}; known are: {', '.join(UPSCALERS)}")
        file = learned_files.file_for(settings.method)
        weights = weights_of(settings.method, family, file)
        if weights:  # X/Y/Z plot's copies of `p` share the dictionary
            p.extra_generation_params = {**p.extra_generation_params, WEIGHTS_LABEL: weights}
        pairs = zip(latent, seeds, strict=False)
        enlarge = partial(settings.enlarge, family=family, file=file)
        return torch.cat([_one(p, settings, enlarge, one[None], size, int(seed)) for one, seed in pairs])


def _one(
    p: Any,
    settings: UpscaleSettings,
    enlarge: Callable[..., Tensor],
    latent: Tensor,
    size: tuple[int, int],
    seed: int,
) -> Tensor:
    cell = models.vae_scale_factor()
    source = (latent.shape[-2], latent.shape[-1])
    if settings.resizes_picture:
        target = (size[1] * cell, size[0] * cell)
        picture = host.enlarged(hires.decoded(p, latent)[0], target, 0)
        latent = hires.encoded(picture, seed, latent)
    return resized(latent, size, partial(enlarge, source=source), cell=cell)
