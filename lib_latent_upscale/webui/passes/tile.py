"""Tile ControlNet as a pass: the picture itself guides the denoising, during the upscale or in a pass of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, ClassVar

from lib_latent_upscale.settings import AUTOMATIC
from lib_latent_upscale.tile_settings import TILE_MODEL_LABEL, TileSettings
from lib_latent_upscale.webui.host import processing as host
from lib_latent_upscale.webui.host.controlnet import Unit, control_modes, find_controlnet
from lib_latent_upscale.webui.host.geometry import LATENT, STRETCH
from lib_latent_upscale.webui.passes.base import Kept, OwnRun, Pass
from lib_latent_upscale.webui.passes.tile_models import choose_model

__all__ = ["MISSING", "SETTINGS", "TilePass"]

SETTINGS: tuple[str, ...] = tuple(field.name for field in fields(TileSettings))
"""Settings of the pass, in the order of the controls."""

MISSING = (
    "This WebUI has no ControlNet: install the extension sd-webui-controlnet, or switch the one that Forge and reForge "
    "have built in on again, and restart"
)

_SWITCH = "tile_controlnet"
_PREFIX = f"{_SWITCH}_"


class TilePass(Pass):
    """Adds a unit with a tile model to those of the host's ControlNet."""

    NAME = "tile ControlNet"
    FIELDS: ClassVar[tuple[str, ...]] = (_SWITCH, f"{_PREFIX}model", *(_PREFIX + name for name in SETTINGS))

    def __init__(self, p: Any, values: Mapping[str, Any], kept: Kept) -> None:  # noqa: ARG002
        self._p = p
        self._settings = _settings(values)
        controlnet = find_controlnet(p.scripts)
        if controlnet is None:
            raise ValueError(MISSING)
        self._controlnet = controlnet
        _check_mode(self._settings.control_mode)
        self._model = choose_model(str(values.get(f"{_PREFIX}model") or AUTOMATIC), p.override_settings)
        if len(p.init_images or ()) > 1 and not self._settings.second_pass:
            raise ValueError(
                f"tile ControlNet is shown one picture, but init_images has {len(p.init_images)}; make one call for "
                f"each, or set {_PREFIX}second_pass"
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
        raise ValueError(
            f"{_PREFIX}control_mode is {mode!r}, which the ControlNet of this WebUI ignores; choose {', '.join(known)}"
        )


def _settings(values: Mapping[str, Any]) -> TileSettings:
    given = {name: values[_PREFIX + name] for name in SETTINGS if _PREFIX + name in values}
    try:
        return TileSettings(**{name: _whole(value) for name, value in given.items()})
    except ValueError as error:
        raise ValueError(f"{_PREFIX}{error}") from None


def _whole(value: Any) -> Any:
    """Sliders of some hosts hand over 20.0 for 20."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
