"""The controls of a comparison, in the script's panel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from html import escape
from typing import Any

import gradio as gr

from lib_latent_upscale.comparison.settings import CompareSettings
from lib_latent_upscale.errors import InputError
from lib_latent_upscale.method_files import file_of
from lib_latent_upscale.options import Switch, rows
from lib_latent_upscale.settings import UpscaleSettings
from lib_latent_upscale.webui.compare.variants import make_variants
from lib_latent_upscale.webui.host.ui import accordion
from lib_latent_upscale.webui.ui.fields import PassPanel, folded_tips, is_ours, make_controls, pasted_methods, rest

__all__ = ["make_compare_panel"]

_LAYOUT = (("compare_methods", "compare_schedulers"), ("compare_difference",))


def make_compare_panel(
    shown: CompareSettings,
    elem_id: Callable[[str], str],
    upscale: Mapping[str, Any],
    passes: Mapping[str, Any],
) -> PassPanel:
    """Build the accordion; like the host's "Refiner" it has a checkbox in its head.

    Args:
        shown: the settings.
        elem_id: makes a control's id.
        upscale: the controls of `UpscaleSettings`, by its fields' names.
        passes: the switches of the passes, by the passes' names.
    """
    further = rest(CompareSettings, (*_LAYOUT, ("compare",)))
    with accordion(rows(CompareSettings)["compare"].label, elem_id("compare")) as switch:
        gr.HTML(
            "<small>Runs the WebUI's own latent upscale, the settings above, and every combination of what is chosen "
            "here, with the same seed and noise. You get each picture, a labelled sheet with metrics, and a slider "
            "above the results.</small>"
        )
        controls = {"compare": switch, **make_controls(shown, elem_id, (*_LAYOUT, *further))}
        runs = gr.HTML(_LITTLE_TO_COMPARE, elem_id=elem_id("runs"))
        gr.HTML(folded_tips(CompareSettings))
    compared = {name: controls[name] for name in rows(CompareSettings) if name in controls}
    watched = [*upscale.values(), *passes.values(), *compared.values()]
    told = partial(_runs, tuple(upscale), tuple(passes), tuple(compared))
    for control in watched:
        control.change(fn=told, inputs=watched, outputs=[runs], show_progress=False, queue=False)
    return PassPanel(controls, [(control, _pasted(name)) for name, control in controls.items()])


_LITTLE_TO_COMPARE = "<small>The number of runs is shown here when Compare is on.</small>"


def _runs(upscale: Sequence[str], passes: Sequence[str], compared: Sequence[str], *values: Any) -> str:
    """How many runs a comparison will make, and which, as HTML; or why it is not possible."""
    given = iter(values)
    settings, on, asked = (dict(zip(names, given)) for names in (upscale, passes, compared))  # noqa: B905
    if not asked["compare"]:
        return _LITTLE_TO_COMPARE
    try:
        own, comparison = UpscaleSettings.from_dict(settings), CompareSettings.from_dict(asked)
        variants = make_variants(own, comparison, "normal", [name for name, chosen in on.items() if chosen])
    except InputError as error:
        return f"<small>{escape(str(error))}</small>"
    told = "; ".join(variant.name for variant in variants)
    return f"<small>{len(variants)} runs for each picture, equal ones once: {escape(told)}.</small>"


def _pasted(name: str) -> Callable[[Mapping[str, Any]], Any]:
    """How a pasted infotext sets a control: to the value of a sheet, or off for a single picture of ours."""
    label = CompareSettings.labels()[name]
    sheet = CompareSettings.labels()["compare"]
    switch = isinstance(rows(CompareSettings)[name].allowed, Switch)

    def pasted(infotext: Mapping[str, Any]) -> Any:
        if sheet not in infotext:
            return False if switch and is_ours(infotext) else None  # for None, the host leaves the control unchanged
        value = getattr(CompareSettings.from_infotext({label: infotext[label]} if label in infotext else {}), name)
        if any(map(file_of, value if isinstance(value, tuple) else ())):
            return pasted_methods(CompareSettings, name, list(value))
        return list(value) if isinstance(value, tuple) else value

    return pasted
