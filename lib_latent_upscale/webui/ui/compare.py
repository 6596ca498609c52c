"""The controls of a comparison, in the script's panel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gradio as gr

from lib_latent_upscale.comparison.settings import CompareSettings
from lib_latent_upscale.method_files import file_of
from lib_latent_upscale.options import Switch, rows
from lib_latent_upscale.webui.host.ui import accordion
from lib_latent_upscale.webui.ui.fields import PassPanel, folded_tips, is_ours, make_controls, pasted_methods, rest

__all__ = ["make_compare_panel"]

_LAYOUT = (("compare_methods", "compare_schedulers"), ("compare_difference",))


def make_compare_panel(shown: CompareSettings, elem_id: Callable[[str], str]) -> PassPanel:
    """Build the accordion; like the host's "Refiner" it has a checkbox in its head."""
    further = rest(CompareSettings, (*_LAYOUT, ("compare",)))
    with accordion(rows(CompareSettings)["compare"].label, elem_id("compare")) as switch:
        gr.HTML(
            "<small>Runs the WebUI's own latent upscale, the settings above, and every combination of what is chosen "
            "here, with the same seed and noise. You get each picture, a labelled sheet with figures, and a slider "
            "above the results.</small>"
        )
        controls = {"compare": switch, **make_controls(shown, elem_id, (*_LAYOUT, *further))}
        gr.HTML(folded_tips(CompareSettings))
    return PassPanel(controls, [(control, _pasted(name)) for name, control in controls.items()])


def _pasted(name: str) -> Callable[[Mapping[str, Any]], Any]:
    """How a pasted infotext sets a control: that of a sheet as it was, that of a single picture of ours off."""
    label = CompareSettings.labels()[name]
    sheet = CompareSettings.labels()["compare"]
    switch = isinstance(rows(CompareSettings)[name].allowed, Switch)

    def pasted(infotext: Mapping[str, Any]) -> Any:
        if sheet not in infotext:
            return False if switch and is_ours(infotext) else None  # the host leaves alone what None comes back for
        value = getattr(CompareSettings.from_infotext({label: infotext[label]} if label in infotext else {}), name)
        if any(map(file_of, value if isinstance(value, tuple) else ())):
            return pasted_methods(CompareSettings, name, list(value))
        return list(value) if isinstance(value, tuple) else value

    return pasted
