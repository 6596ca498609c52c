"""The controls of a class of settings, in rows, and how a pasted infotext sets them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import Any

import gradio as gr

from lib_latent_upscale.controls import make_control
from lib_latent_upscale.options import Chosen, Settings, rows
from lib_latent_upscale.settings import UpscaleSettings
from lib_latent_upscale.webui.host import learned_files
from lib_latent_upscale.webui.host.ui import accordion, add_refresh_button

__all__ = ["PassPanel", "folded_tips", "is_ours", "make_controls", "make_pass_panel", "pasted_methods", "rest", "tips"]

Pasted = Callable[[Mapping[str, Any]], Any]
Layout = Sequence[Sequence[str]]


@dataclass(frozen=True)
class PassPanel:
    """The controls of an accordion, one for each of its names in the API."""

    controls: Mapping[str, Any]
    """By their names in the API; their values are arguments of the script's `run`."""
    infotext_fields: Sequence[tuple[Any, Pasted]]
    """How a pasted infotext sets them: on with all settings where the pass has run, off where it has not."""


def make_controls(
    shown: Settings, elem_id: Callable[[str], str], layout: Layout, **choices: Sequence[str]
) -> dict[str, Any]:
    """The controls of the fields that `layout` names, row by row; they show the values in `shown`.

    Args:
        shown: the settings.
        elem_id: makes a control's id.
        layout: rows of fields' names.
        choices: choices of fields for which this host allows fewer than others.
    """
    made = {}
    for names in layout:
        with gr.Row():
            for name in names:
                more = {"choices": list(choices[name])} if name in choices else {}
                made[name] = _made(shown, name, elem_id, **more)
    return made


def _made(shown: Settings, name: str, elem_id: Callable[[str], str], **more: Any) -> Any:
    row, value = rows(type(shown))[name], getattr(shown, name)
    if learned_files.takes_files(row.allowed):
        more = {"choices": _with(learned_files.choices(row.allowed), value), **more}
    control = make_control(gr, row, value, elem_id=elem_id(shown.ELEMENTS + name), **more)
    if learned_files.takes_files(row.allowed):
        look_again = partial(_look_again, row.allowed)
        add_refresh_button(control, look_again, elem_id(f"{shown.ELEMENTS}{name}_refresh"))
    if row.setting:
        control.do_not_save_to_config = True  # ui-config.json would win over the settings page
    return control


def _look_again(methods: Chosen) -> dict[str, Any]:
    return {"choices": learned_files.choices(methods)}


def _with(names: Sequence[str], shown: str | Sequence[str]) -> list[str]:
    """Names for a menu, including those that it shows: a file may be missing, and some versions of Gradio need it."""
    each = [shown] if isinstance(shown, str) else shown
    return [*names, *(name for name in each if name not in names)]


def pasted_methods(kind: type[Settings], name: str, value: str | Sequence[str]) -> Any:
    """An update of a menu of methods with a pasted value; a missing file stays chosen, and is an error later."""
    allowed = rows(kind)[name].allowed
    names = learned_files.choices(allowed) if learned_files.takes_files(allowed) else []
    return gr.update(value=value, choices=_with(names, value))


def rest(kind: type[Settings], layout: Layout) -> Layout:
    """Rows for the options that are not in a layout: one for each kind of control."""
    known = {name for names in layout for name in names}
    by_kind: dict[type, list[str]] = {}
    for name, row in rows(kind).items():
        if row.control and name not in known:
            by_kind.setdefault(type(row.allowed), []).append(name)
    return list(by_kind.values())


def tips(kind: type[Settings], names: Collection[str]) -> str:
    """What options do, as HTML."""
    told = [row for name, row in rows(kind).items() if name in names]
    return "<br>".join(f"<small><b>{escape(row.label)}</b>: {escape(row.tip)}</small>" for row in told)


def folded_tips(kind: type[Settings], without: Collection[str] = ()) -> str:
    """What the options that have a control do, but for some, as HTML that can be unfolded."""
    names = [name for name, row in rows(kind).items() if row.control and name not in without]
    return f"<details><summary><small>What these do</small></summary>{tips(kind, names)}</details>"


def is_ours(infotext: Mapping[str, Any]) -> bool:
    """Whether a pasted infotext is that of a picture that was made with this extension."""
    return any(label in infotext for label in UpscaleSettings.labels().values())


def make_pass_panel(
    kind: type[Settings],
    elem_id: Callable[[str], str],
    introduction: str,
    models: Callable[[bool], Sequence[str]],
    controls: Callable[[], Mapping[str, Any]],
    model_tip: str = "",
) -> PassPanel:
    """Build the accordion of a pass; like the host's "Refiner" it has a checkbox in its head.

    Args:
        kind: class of the settings.
        elem_id: makes a control's id.
        introduction: what stands above all, as HTML.
        models: returns the names of the models, the default first; with True it searches for them again.
        controls: makes the controls of the fields, by the fields' names.
        model_tip: what the choice of a model means, as HTML.
    """
    with accordion(kind.NAME, elem_id(kind.ELEMENTS.rstrip("_"))) as switch:
        gr.HTML(introduction)
        with gr.Row():
            model = _model_menu(kind, elem_id, models)
        made = controls()
        told = f"<small><b>{escape(kind.MODEL)}</b>: {model_tip}</small>" if model_tip else ""
        gr.HTML(told + folded_tips(kind))
    named = {kind.api_name(name): control for name, control in made.items()}
    pasted = _pasted_settings(kind, switch, model, made)
    return PassPanel({kind.SWITCH: switch, kind.api_name("model"): model, **named}, pasted)


def _model_menu(kind: type[Settings], elem_id: Callable[[str], str], models: Callable[[bool], Sequence[str]]) -> Any:
    def look_again() -> dict[str, Any]:
        return {"choices": list(models(True))}

    choices, name = list(models(False)), elem_id(f"{kind.ELEMENTS}model")
    model = gr.Dropdown(label=kind.MODEL, choices=choices, value=next(iter(choices), None), elem_id=name)
    add_refresh_button(model, look_again, elem_id(f"{kind.ELEMENTS}refresh"))
    return model


def _pasted_settings(
    kind: type[Settings], switch: Any, model: Any, controls: Mapping[str, Any]
) -> list[tuple[Any, Pasted]]:
    """`PassPanel.infotext_fields` of a pass.

    Args:
        kind: class of the settings.
        switch: the checkbox of the accordion.
        model: the dropdown of models.
        controls: the control of each field.
    """

    def is_on(infotext: Mapping[str, Any]) -> bool | None:
        # The host leaves alone what None comes back for.
        return kind.MODEL_LABEL in infotext if is_ours(infotext) else None

    def named(infotext: Mapping[str, Any]) -> Any:
        return gr.update(value=infotext[kind.MODEL_LABEL]) if kind.MODEL_LABEL in infotext else None

    def value(field: str, label: str) -> Pasted:
        def pasted(infotext: Mapping[str, Any]) -> Any:
            if kind.MODEL_LABEL not in infotext:
                return None
            given = {label: infotext[label]} if label in infotext else {}
            return gr.update(value=getattr(kind.from_infotext(given), field))

        return pasted

    settings = [(controls[field], value(field, label)) for field, label in kind.labels().items()]
    return [(switch, is_on), (model, named), *settings]
