"""The controls of tile ControlNet, in the script's panel."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

import gradio as gr
from modules.ui_common import create_refresh_button
from modules.ui_components import InputAccordion

from lib_latent_upscale.settings import AUTOMATIC
from lib_latent_upscale.tile_settings import PREPROCESSORS, TILE_INFOTEXT_LABELS, TILE_MODEL_LABEL, TileSettings
from lib_latent_upscale.webui.host import controlnet
from lib_latent_upscale.webui.host.options import SCHEDULERS
from lib_latent_upscale.webui.passes.tile import MISSING, SETTINGS
from lib_latent_upscale.webui.passes.tile_models import offered_models, where_to_put
from lib_latent_upscale.webui.ui.fields import PassPanel, pasted_settings

__all__ = ["make_tile_panel"]


def make_tile_panel(elem_id: Callable[[str], str]) -> PassPanel:
    """Build the accordion; like the host's "Refiner" it has a checkbox in its head."""
    usual = TileSettings()

    def made(kind: Any, field: str, label: str, **more: Any) -> Any:
        return kind(label=label, value=getattr(usual, field), elem_id=elem_id(f"tile_{field}"), **more)

    def share(field: str, label: str) -> Any:
        return made(gr.Slider, field, label, minimum=0, maximum=1, step=0.01)

    with InputAccordion(False, label="Tile ControlNet", elem_id=elem_id("tile")) as switch:
        gr.HTML(_introduction())
        with gr.Row():
            model = _models(elem_id)
        with gr.Row():
            weight = made(gr.Slider, "weight", "Tile weight", minimum=0, maximum=2, step=0.05)
            start, end = share("start", "Tile start"), share("end", "Tile end")
        with gr.Row():
            preprocessor = made(gr.Dropdown, "preprocessor", "Tile preprocessor", choices=list(PREPROCESSORS))
            mode = made(gr.Dropdown, "control_mode", "Tile control mode", choices=list(controlnet.control_modes()))
        rate = made(gr.Slider, "down_sampling_rate", "Tile down-sampling rate", minimum=1, maximum=8, step=0.01)
        second = made(gr.Checkbox, "second_pass", "Tile ControlNet as a second pass")
        with gr.Column(visible=usual.second_pass) as of_the_second:
            with gr.Row():
                strength = share("second_denoising_strength", "Second pass denoising strength")
                steps = made(gr.Slider, "second_steps", "Second pass steps", minimum=1, maximum=150, step=1)
            scheduler = made(gr.Dropdown, "second_scheduler", "Second pass scheduler", choices=list(SCHEDULERS))
        gr.HTML("<br>".join(f"<small><b>{name}</b>: {tip}</small>" for name, tip in _TIPS.items()))
    second.change(fn=_shown, inputs=[second], outputs=[of_the_second], show_progress=False, queue=False)
    second.do_not_save_to_config = True  # switched on by ui-config.json, it would not show its controls
    controls = {
        "weight": weight,
        "start": start,
        "end": end,
        "preprocessor": preprocessor,
        "down_sampling_rate": rate,
        "control_mode": mode,
        "second_pass": second,
        "second_denoising_strength": strength,
        "second_steps": steps,
        "second_scheduler": scheduler,
    }
    pasted = pasted_settings(TileSettings, TILE_MODEL_LABEL, TILE_INFOTEXT_LABELS, switch, model, controls)
    return PassPanel([switch, model, *(controls[field] for field in SETTINGS)], pasted)


_TIPS = {
    "Tile model": "automatic takes the first that fits the checkpoint",
    "Tile weight": "how strongly the picture guides, from start to end of the steps",
    "Tile down-sampling rate": "for tile_resample; more leaves more room for new detail",
    "As a second pass": "after the latent upscale, at the same size, with steps and a denoising strength of its own",
}


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

    model = gr.Dropdown(label="Tile model", value=AUTOMATIC, elem_id=elem_id("tile_model"), **choices(refresh=False))
    create_refresh_button(model, lambda: None, lambda: choices(refresh=True), elem_id("tile_refresh"))
    return model
