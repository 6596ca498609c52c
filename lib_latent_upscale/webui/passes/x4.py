"""The x4 upscaler as the last pass: finished pictures become four times larger before they are saved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from lib_latent_upscale.errors import GenerationError, InputError, Interrupted, NotFinite
from lib_latent_upscale.options import SettingsError
from lib_latent_upscale.samplers import X4_SAMPLERS, available
from lib_latent_upscale.webui.host import machine as host_machine
from lib_latent_upscale.webui.host import processing as host
from lib_latent_upscale.webui.host.options import X4_KEEP, default_settings, option_name
from lib_latent_upscale.webui.passes.base import ModelCache, Outcome, Pass
from lib_latent_upscale.webui.passes.x4_models import choose_model, find_models, own_folder
from lib_latent_upscale.webui.passes.x4_requirements import make_importable, missing
from lib_latent_upscale.webui.ui.fields import PassPanel, make_controls, make_pass_panel, rest
from lib_latent_upscale.x4_upscaler import (
    X4Model,
    X4Result,
    X4Settings,
    check_x4,
    load_x4,
    upscale_x4,
)

__all__ = ["X4Pass"]

Progress = Callable[[int, int], None]

_SEEDS = 2**63
_NO_SAMPLER = "{sampler} is {0!r}, which this WebUI's k_diffusion does not have; choose one of: {1}"


_LAYOUT = (
    ("prompt", "negative_prompt"),
    ("noise_level", "guidance_scale"),
    ("sampler", "scheduler"),
    ("steps", "seed"),
    ("tile", "overlap", "decoder_tile"),
    ("colour_guard",),
)
"""Rows of the panel."""


@dataclass(frozen=True)
class _Loaded:
    key: tuple[Any, ...]
    model: X4Model


class X4Pass(Pass):
    """Makes every picture four times larger; the seed of the noise is that of the picture."""

    NAME = "x4 upscaler"
    SETTINGS = X4Settings
    ENLARGES = True

    def __init__(self, p: Any, values: Mapping[str, Any], kept: ModelCache) -> None:
        self._p = p
        self._kept = kept
        self._settings = X4Settings.from_api(values, default_settings(X4Settings))
        reason = missing()
        if reason is not None:
            raise InputError(reason)
        usable = available(X4_SAMPLERS)
        if self._settings.sampler not in usable:
            raise SettingsError(X4Settings, _NO_SAMPLER, self._settings.sampler, ", ".join(usable))
        self._name, self._path = choose_model(values.get(X4Settings.api_name("model")) or "")
        check_x4(self._path)
        self._loaded: _Loaded | None = None

    @classmethod
    def panel(cls, elem_id: Callable[[str], str]) -> PassPanel:
        layout = (*_LAYOUT, *rest(X4Settings, _LAYOUT))
        controls = partial(make_controls, default_settings(X4Settings), elem_id, layout)
        return make_pass_panel(X4Settings, elem_id, _introduction(), _offered, controls)

    @property
    def infotext(self) -> Mapping[str, Any]:
        return self._written(self._settings)

    def _written(self, settings: X4Settings) -> dict[str, Any]:
        """Infotext labels and values, without the seed if it is the picture's own, which is already there."""
        written = settings.with_model(self._name)
        if self._settings.seed < 0:
            del written[X4Settings.labels()["seed"]]
        return written

    @contextmanager
    def installed(self) -> Iterator[None]:
        host_machine.more_jobs(self._p, each=self._p.batch_size)
        yield

    def finish(self, picture: Image.Image) -> Outcome:
        if host_machine.stopped():
            return Outcome(picture, notes=[f"{host_machine.stopped()} before the x4 upscaler."])
        settings = self._settings
        if settings.seed < 0:
            settings = replace(settings, seed=int(self._p.seeds[self._p.batch_index]) % _SEEDS)
        try:
            with host_machine.progress(f"{self.NAME}:") as progress, host_machine.offloaded_checkpoint():
                result = self._enlarged(picture, settings, progress)
        except Interrupted as error:
            return Outcome(picture, notes=[str(error)])
        except (InputError, GenerationError) as error:
            return Outcome(picture, notes=[f"the picture before the x4 upscaler is kept. {error}"])
        return Outcome(result.image, self._written(result.settings), result.notes)

    def _enlarged(self, picture: Image.Image, settings: X4Settings, progress: Progress) -> X4Result:
        """The result; if half precision overflows, it is repeated in full precision, with a note."""

        def stopped() -> bool:
            return bool(host_machine.stopped())

        device, dtype = host_machine.device_and_dtype()
        model = self._model(device, dtype)
        try:
            return upscale_x4(picture, model, settings, progress=progress, interrupted=stopped)
        except NotFinite:
            if model.unet.dtype == torch.float32:
                raise
        del model  # not two at once
        model = self._load(device, torch.float32, self._key(device, dtype))
        result = upscale_x4(picture, model, settings, progress=progress, interrupted=stopped)
        return replace(result, notes=(*result.notes, "The x4 upscaler overflowed and was run again in full precision."))

    def _key(self, *place: Any) -> tuple[Any, ...]:
        return self._path, _stamp(self._path), *place

    def _model(self, device: torch.device, dtype: torch.dtype | None) -> X4Model:
        """The model, kept from an earlier picture or generation if it is still the same."""
        key = self._key(device, dtype)
        loaded = self._loaded or self._kept.get(self.NAME)
        if loaded is None or loaded.key != key:
            return self._load(device, dtype, key)
        self._keep(loaded)
        model: X4Model = loaded.model
        return model

    def _load(self, device: torch.device, dtype: torch.dtype | None, key: tuple[Any, ...]) -> X4Model:
        self._loaded = None
        self._kept.pop(self.NAME, None)
        make_importable()
        with torch.inference_mode(False):  # Forge's generations run in it, and what it makes cannot be moved later
            model = load_x4(self._path, device=device, dtype=dtype, download=False)
        self._keep(_Loaded(key, model))
        return model

    def _keep(self, loaded: _Loaded) -> None:
        """Keep the model for the pictures of this run, and for later runs if the setting says so."""
        self._loaded = loaded
        self._kept.pop(self.NAME, None)
        if host.option(option_name(X4_KEEP), True):
            self._kept[self.NAME] = loaded


def _stamp(path: Path) -> tuple[float, ...]:
    """Times of a model's files, which change when the model does."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return tuple(file.stat().st_mtime for file in files)


def _introduction() -> str:
    reason = missing()
    if reason is not None:
        return f"<b>{escape(reason)}</b>"
    return (
        "<small>Makes every picture four times wider and higher, as the last step. Models: x4-upscaler-ema.safetensors "
        f"or the folder stable-diffusion-x4-upscaler, in {escape(str(own_folder()))}</small>"
    )


def _offered(_refresh: bool) -> list[str]:
    return list(find_models())
