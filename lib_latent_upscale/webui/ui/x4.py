"""The controls of the x4 upscaler, in the script's panel."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

import gradio as gr
from modules.ui_common import create_refresh_button
from modules.ui_components import InputAccordion

from lib_latent_upscale.schedules import SCHEDULES
from lib_latent_upscale.webui.passes.x4 import SETTINGS
from lib_latent_upscale.webui.passes.x4_models import find_models, own_folder
from lib_latent_upscale.webui.passes.x4_requirements import missing
from lib_latent_upscale.webui.ui.fields import PassPanel, pasted_settings
from lib_latent_upscale.x4_upscaler import SAMPLERS, X4_INFOTEXT_LABELS, X4_MODEL_LABEL, X4Settings

__all__ = ["make_x4_panel"]


def make_x4_panel(elem_id: Callable[[str], str]) -> PassPanel:
    """Build the accordion; like the host's "Refiner" it has a checkbox in its head."""
    usual = X4Settings()

    def made(kind: Any, field: str, label: str, **more: Any) -> Any:
        return kind(label=label, value=getattr(usual, field), elem_id=elem_id(f"x4_{field}"), **more)

    with InputAccordion(False, label="x4 upscaler", elem_id=elem_id("x4")) as switch:
        gr.HTML(_introduction())
        with gr.Row():
            model = _models(elem_id)
        with gr.Row():
            prompt = made(gr.Textbox, "prompt", "x4 prompt", placeholder="what the picture shows; may stay empty")
            negative = made(gr.Textbox, "negative_prompt", "x4 negative prompt")
        with gr.Row():
            noise = made(gr.Slider, "noise_level", "x4 noise level", minimum=0, maximum=349, step=1)
            guidance = made(gr.Slider, "guidance_scale", "x4 guidance scale", minimum=1, maximum=50, step=0.5)
        with gr.Row():
            sampler = made(gr.Dropdown, "sampler", "x4 sampler", choices=list(SAMPLERS))
            scheduler = made(gr.Dropdown, "scheduler", "x4 scheduler", choices=list(SCHEDULES))
        with gr.Row():
            steps = made(gr.Slider, "steps", "x4 steps", minimum=1, maximum=150, step=1)
            seed = made(gr.Number, "seed", "x4 seed", precision=0)
        with gr.Row():
            tile = made(gr.Slider, "tile", "x4 tile size", minimum=0, maximum=2048, step=8)
            overlap = made(gr.Slider, "overlap", "x4 tile overlap", minimum=0, maximum=256, step=8)
            decoder = made(gr.Slider, "decoder_tile", "x4 decoder tile size", minimum=0, maximum=2048, step=8)
        guard = made(gr.Checkbox, "colour_guard", "x4 colour guard")
        gr.HTML("<br>".join(f"<small><b>x4 {name}</b>: {tip}</small>" for name, tip in _TIPS.items()))
    controls = {
        "prompt": prompt,
        "negative_prompt": negative,
        "noise_level": noise,
        "guidance_scale": guidance,
        "steps": steps,
        "sampler": sampler,
        "scheduler": scheduler,
        "seed": seed,
        "colour_guard": guard,
        "tile": tile,
        "overlap": overlap,
        "decoder_tile": decoder,
    }
    pasted = pasted_settings(X4Settings, X4_MODEL_LABEL, X4_INFOTEXT_LABELS, switch, model, controls)
    return PassPanel([switch, model, *(controls[field] for field in SETTINGS)], pasted)


_TIPS = {
    "noise level": "more lets the model invent more; about 100 is recommended for generated pictures",
    "seed": "-1 takes the picture's own",
    "tile size": "0 chooses from the free memory; below 96 the model sees less than it was trained on",
    "colour guard": "the colours of large areas follow the picture's",
}


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
    model = gr.Dropdown(label="x4 model", choices=names, value=next(iter(names), None), elem_id=elem_id("x4_model"))
    create_refresh_button(model, lambda: None, choices, elem_id("x4_refresh"))
    return model
