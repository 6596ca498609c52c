"""The controls of a comparison, in the script's panel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr
from modules.ui_components import InputAccordion

from lib_latent_upscale.interpolation import INTERPOLATIONS
from lib_latent_upscale.settings import INFOTEXT_LABELS
from lib_latent_upscale.webui.compare.variants import COMPARE_CONTROLS, COMPARE_LABELS
from lib_latent_upscale.webui.host.options import SCHEDULERS

__all__ = ["ComparePanel", "make_compare_panel"]


@dataclass(frozen=True)
class ComparePanel:
    """The controls, one per field in `COMPARE_CONTROLS`."""

    compare: Any
    compare_methods: Any
    compare_schedulers: Any
    compare_difference: Any

    @property
    def controls(self) -> list[Any]:
        """What is handed to the script's `run`, after the settings."""
        return [getattr(self, field) for field in COMPARE_CONTROLS]

    @property
    def infotext_fields(self) -> list[tuple[Any, Callable[[Mapping[str, Any]], Any]]]:
        """How a pasted infotext sets the controls: that of a sheet on, that of a single picture off."""
        return [
            (self.compare, _switch("compare")),
            (self.compare_methods, _names("compare_methods")),
            (self.compare_schedulers, _names("compare_schedulers")),
            (self.compare_difference, _switch("compare_difference")),
        ]


def make_compare_panel(elem_id: Callable[[str], str]) -> ComparePanel:
    """Build the accordion; like the host's "Refiner" it has a checkbox in its head."""
    with InputAccordion(False, label="Compare", elem_id=elem_id("compare")) as compare:
        gr.HTML(
            "<small>Runs the WebUI's own latent upscale, the settings above, and every combination of what is chosen "
            "here, with the same seed and noise. You get each picture, a labelled sheet with figures, and a slider "
            "above the results.</small>"
        )
        with gr.Row():
            methods = _choice("Methods to compare", list(INTERPOLATIONS), elem_id("compare_methods"))
            schedulers = _choice("Schedulers to compare", list(SCHEDULERS), elem_id("compare_schedulers"))
        difference = gr.Checkbox(label="Difference map", value=False, elem_id=elem_id("compare_difference"))
    return ComparePanel(compare, methods, schedulers, difference)


def _choice(label: str, choices: list[str], elem_id: str) -> Any:
    return gr.Dropdown(label=label, choices=choices, value=[], multiselect=True, elem_id=elem_id)


def _is_ours(infotext: Mapping[str, Any]) -> bool:
    return any(label in infotext for _, label in INFOTEXT_LABELS)


def _switch(field: str) -> Callable[[Mapping[str, Any]], bool | None]:
    """The host leaves a control alone for which None comes back."""
    return lambda infotext: infotext.get(COMPARE_LABELS[field]) == "True" if _is_ours(infotext) else None


def _names(field: str) -> Callable[[Mapping[str, Any]], list[str] | None]:
    def pasted(infotext: Mapping[str, Any]) -> list[str] | None:
        if COMPARE_LABELS["compare"] not in infotext:
            return None
        return [name for name in infotext.get(COMPARE_LABELS[field], "").split(", ") if name]

    return pasted
