"""The controls of the x4 upscaler, in the script's panel."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

import gradio as gr

from lib_latent_upscale.webui.host.ui import accordion, add_refresh_button
from lib_latent_upscale.webui.passes.x4_models import find_models, own_folder
from lib_latent_upscale.webui.passes.x4_requirements import missing
from lib_latent_upscale.webui.ui.fields import PassPanel, folded_tips, make_controls, pasted_settings, rest
from lib_latent_upscale.x4_settings import X4_MODEL_LABEL, X4Settings

__all__ = ["make_x4_panel"]

_LAYOUT = (
    ("prompt", "negative_prompt"),
    ("noise_level", "guidance_scale"),
    ("sampler", "scheduler"),
    ("steps", "seed"),
    ("tile", "overlap", "decoder_tile"),
    ("colour_guard",),
)


def make_x4_panel(shown: X4Settings, elem_id: Callable[[str], str]) -> PassPanel:
    """Build the accordion; like the host's "Refiner" it has a checkbox in its head."""
    with accordion(X4Settings.NAME, elem_id("x4")) as switch:
        gr.HTML(_introduction())
        with gr.Row():
            model = _models(elem_id)
        controls = make_controls(shown, elem_id, (*_LAYOUT, *rest(X4Settings, _LAYOUT)))
        gr.HTML(folded_tips(X4Settings))
    named = {X4Settings.api_name(name): control for name, control in controls.items()}
    pasted = pasted_settings(X4Settings, X4_MODEL_LABEL, switch, model, controls)
    return PassPanel({X4Settings.SWITCH: switch, X4Settings.api_name("model"): model, **named}, pasted)


def _introduction() -> str:
    reason = missing()
    if reason is not None:
        return f"<b>{escape(reason)}</b>"
    return (
        "<small>Makes every picture four times wider and higher, last of all. Models: x4-upscaler-ema.safetensors or "
        f"the folder stable-diffusion-x4-upscaler, in {escape(str(own_folder()))}</small>"
    )


def _models(elem_id: Callable[[str], str]) -> Any:
    def choices() -> dict[str, Any]:
        return {"choices": list(find_models())}

    names = list(find_models())
    model = gr.Dropdown(
        label=X4Settings.MODEL, choices=names, value=next(iter(names), None), elem_id=elem_id("x4_model")
    )
    add_refresh_button(model, choices, elem_id("x4_refresh"))
    return model
