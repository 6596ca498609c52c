"""The controls of tile ControlNet, in the script's panel."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

import gradio as gr

from lib_latent_upscale.settings import AUTOMATIC
from lib_latent_upscale.tile_settings import TILE_MODEL_LABEL, TileSettings
from lib_latent_upscale.webui.host import controlnet
from lib_latent_upscale.webui.host.ui import accordion, add_refresh_button
from lib_latent_upscale.webui.passes.tile import MISSING
from lib_latent_upscale.webui.passes.tile_models import offered_models, where_to_put
from lib_latent_upscale.webui.ui.fields import PassPanel, folded_tips, make_controls, pasted_settings, rest

__all__ = ["make_tile_panel"]

_FIRST = (("weight", "start", "end"), ("preprocessor", "control_mode"), ("down_sampling_rate",))
_SWITCH = (("second_pass",),)
_SECOND = (("second_denoising_strength", "second_steps"), ("second_scheduler",))


def make_tile_panel(shown: TileSettings, elem_id: Callable[[str], str]) -> PassPanel:
    """Build the accordion; like the host's "Refiner" it has a checkbox in its head."""
    further = rest(TileSettings, (*_FIRST, *_SWITCH, *_SECOND))
    with accordion(TileSettings.NAME, elem_id("tile")) as switch:
        gr.HTML(_introduction())
        with gr.Row():
            model = _models(elem_id)
        modes = controlnet.control_modes()
        controls = make_controls(shown, elem_id, (*_FIRST, *further, *_SWITCH), control_mode=modes)
        with gr.Column(visible=shown.second_pass) as of_the_second:
            controls |= make_controls(shown, elem_id, _SECOND)
        gr.HTML(f"<small><b>Tile model</b>: {_MODEL_TIP}</small>{folded_tips(TileSettings)}")
    second = controls["second_pass"]
    second.change(fn=_shown, inputs=[second], outputs=[of_the_second], show_progress=False, queue=False)
    named = {TileSettings.api_name(name): control for name, control in controls.items()}
    pasted = pasted_settings(TileSettings, TILE_MODEL_LABEL, switch, model, controls)
    return PassPanel({TileSettings.SWITCH: switch, TileSettings.api_name("model"): model, **named}, pasted)


_MODEL_TIP = "automatic takes the first that fits the checkpoint"


def _shown(second_pass: bool) -> Any:
    return gr.update(visible=second_pass)


def _introduction() -> str:
    if not controlnet.is_there():
        return f"<b>{escape(MISSING)}.</b>"
    return (
        "<small>Shows the picture to the model at every step, so that a denoising strength of 0.8 keeps the "
        f"composition. Units in the ControlNet panel work beside it. {escape(where_to_put())}.</small>"
    )


def _models(elem_id: Callable[[str], str]) -> Any:
    def choices(*, refresh: bool) -> dict[str, Any]:
        return {"choices": [AUTOMATIC, *offered_models(refresh=refresh)]}

    model = gr.Dropdown(
        label=TileSettings.MODEL, value=AUTOMATIC, elem_id=elem_id("tile_model"), **choices(refresh=False)
    )
    add_refresh_button(model, lambda: choices(refresh=True), elem_id("tile_refresh"))
    return model
