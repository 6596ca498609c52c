"""Tile ControlNet as a pass: the picture itself guides the denoising, during the upscale or in a pass of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lib_latent_upscale.errors import InputError
from lib_latent_upscale.options import SettingsError
from lib_latent_upscale.settings import AUTOMATIC
from lib_latent_upscale.tile_settings import TILE_MODEL_LABEL, TileSettings
from lib_latent_upscale.webui.host import processing as host
from lib_latent_upscale.webui.host.controlnet import Unit, control_modes, find_controlnet
from lib_latent_upscale.webui.host.geometry import LATENT, STRETCH
from lib_latent_upscale.webui.host.options import default_settings
from lib_latent_upscale.webui.passes.base import Kept, OwnRun, Pass
from lib_latent_upscale.webui.passes.tile_models import choose_model

__all__ = ["MISSING", "TilePass"]

MISSING = (
    "This WebUI has no ControlNet: install the extension sd-webui-controlnet, or switch the one that Forge and reForge "
    "have built in on again, and restart"
)


class TilePass(Pass):
    """Adds a unit with a tile model to those of the host's ControlNet."""

    NAME = "tile ControlNet"
    SETTINGS = TileSettings

    def __init__(self, p: Any, values: Mapping[str, Any], kept: Kept) -> None:  # noqa: ARG002
        self._p = p
        self._settings = TileSettings.from_api(values, default_settings(TileSettings))
        controlnet = find_controlnet(p.scripts)
        if controlnet is None:
            raise InputError(MISSING)
        self._controlnet = controlnet
        _check_mode(self._settings.control_mode)
        self._model = choose_model(str(values.get(TileSettings.api_name("model")) or AUTOMATIC), p.override_settings)
        if len(p.init_images or ()) > 1 and not self._settings.second_pass:
            raise SettingsError(
                TileSettings,
                "tile ControlNet is shown one picture, but init_images has {0}; make one call for each, or set "
                "{second_pass}",
                len(p.init_images),
            )

    @property
    def infotext(self) -> Mapping[str, Any]:
        return {TILE_MODEL_LABEL: self._model.name, **self._settings.to_infotext()}

    @property
    def own_run(self) -> OwnRun | None:
        settings = self._settings
        if not settings.second_pass:
            return None
        return OwnRun(settings.second_denoising_strength, settings.second_steps, settings.second_scheduler)

    @contextmanager
    def installed(self) -> Iterator[None]:
        p = self._p
        mode = STRETCH if p.resize_mode == LATENT else p.resize_mode
        unit = Unit(self._model.key, host.flattened(p.init_images[0]), mode, self._settings)
        with self._controlnet.attached(p, unit):
            yield


def _check_mode(mode: str) -> None:
    known = control_modes()
    if mode not in known:
        raise SettingsError(
            TileSettings,
            "{control_mode} is {0!r}, which the ControlNet of this WebUI ignores; choose {1}",
            mode,
            ", ".join(known),
        )
