"""Tile ControlNet as a pass: the picture guides the denoising, during the upscale or in a run of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from html import escape
from typing import Any

import gradio as gr

from lib_latent_upscale.errors import InputError
from lib_latent_upscale.options import SettingsError
from lib_latent_upscale.settings import AUTOMATIC
from lib_latent_upscale.tile_settings import TileSettings
from lib_latent_upscale.webui.host import processing as host
from lib_latent_upscale.webui.host.controlnet import Unit, control_modes, find_controlnet, is_there
from lib_latent_upscale.webui.host.geometry import picture_mode
from lib_latent_upscale.webui.host.options import default_settings
from lib_latent_upscale.webui.passes.base import ModelCache, OwnRun, Pass
from lib_latent_upscale.webui.passes.tile_models import choose_model, offered_models, where_to_put
from lib_latent_upscale.webui.ui.fields import PassPanel, make_controls, make_pass_panel, rest

__all__ = ["MISSING", "TilePass"]

MISSING = (
    "This WebUI has no ControlNet: install the extension sd-webui-controlnet, or enable the one built into Forge "
    "and reForge, and restart"
)


class TilePass(Pass):
    """Adds a unit with a tile model to those of the host's ControlNet."""

    NAME = "tile ControlNet"
    SETTINGS = TileSettings

    def __init__(self, p: Any, values: Mapping[str, Any], kept: ModelCache) -> None:  # noqa: ARG002
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

    @classmethod
    def panel(cls, elem_id: Callable[[str], str]) -> PassPanel:
        controls = partial(_controls, default_settings(TileSettings), elem_id)
        return make_pass_panel(TileSettings, elem_id, _introduction(), _offered, controls, _MODEL_TIP)

    @property
    def infotext(self) -> Mapping[str, Any]:
        return self._settings.with_model(self._model.name)

    @property
    def own_run(self) -> OwnRun | None:
        settings = self._settings
        if not settings.second_pass:
            return None
        return OwnRun(settings.second_denoising_strength, settings.second_steps, settings.second_scheduler)

    @contextmanager
    def installed(self) -> Iterator[None]:
        p = self._p
        unit = Unit(self._model.key, host.flattened(p.init_images[0]), picture_mode(p.resize_mode), self._settings)
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


# the panel

_FIRST = (("weight", "start", "end"), ("preprocessor", "control_mode"), ("down_sampling_rate",))
_SWITCH = (("second_pass",),)
_SECOND = (("second_denoising_strength", "second_steps"), ("second_scheduler",))
_MODEL_TIP = "automatic: the first one that fits the checkpoint"


def _introduction() -> str:
    if not is_there():
        return f"<b>{escape(MISSING)}.</b>"
    return (
        "<small>Shows the picture to the model at every step, so that a denoising strength of 0.8 keeps the "
        f"composition. Units in the ControlNet panel stay active. {escape(where_to_put())}.</small>"
    )


def _offered(refresh: bool) -> list[str]:
    return [AUTOMATIC, *offered_models(refresh=refresh)]


def _controls(shown: TileSettings, elem_id: Callable[[str], str]) -> dict[str, Any]:
    further = rest(TileSettings, (*_FIRST, *_SWITCH, *_SECOND))
    controls = make_controls(shown, elem_id, (*_FIRST, *further, *_SWITCH), control_mode=control_modes())
    with gr.Column(visible=shown.second_pass) as of_the_second:
        controls |= make_controls(shown, elem_id, _SECOND)
    second = controls["second_pass"]
    second.change(fn=_shown, inputs=[second], outputs=[of_the_second], show_progress=False, queue=False)
    return controls


def _shown(second_pass: bool) -> Any:
    return gr.update(visible=second_pass)
