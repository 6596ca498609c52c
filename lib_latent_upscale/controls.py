"""A Gradio control for each option, for both pages; callers pass their own Gradio module, of any version."""

from __future__ import annotations

from typing import Any

from lib_latent_upscale.options import Chosen, Integer, Names, Number, Option, Switch

__all__ = ["component", "make_control"]


def make_control(gr: Any, row: Option, value: Any, **more: Any) -> Any:
    """The control of an option, showing `value`; `more` is passed on and takes precedence."""
    kind, details = component(gr, row)
    shown = list(value) if isinstance(value, tuple) else value
    return kind(**{"label": row.label, "value": shown, **details, **more})


def component(gr: Any, row: Option) -> tuple[Any, dict[str, Any]]:
    """The class of an option's control, and its arguments besides label and value."""
    allowed = row.allowed
    if isinstance(allowed, Switch):
        return gr.Checkbox, {}
    if isinstance(allowed, Chosen):
        several = {"multiselect": True} if isinstance(allowed, Names) else {}
        return gr.Dropdown, {"choices": list(allowed.names), **several}
    if isinstance(allowed, (Integer, Number)):
        return _number(gr, row, allowed)
    return gr.Textbox, {"placeholder": row.tip.partition(";")[0]}


def _number(gr: Any, row: Option, allowed: Integer | Number) -> tuple[Any, dict[str, Any]]:
    if row.slider is None:
        return gr.Number, {"precision": 0} if isinstance(allowed, Integer) else {}
    highest, step = row.slider
    return gr.Slider, {"minimum": allowed.least, "maximum": highest, "step": step}
