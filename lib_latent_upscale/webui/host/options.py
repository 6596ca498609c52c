"""The settings page: defaults of the script's controls and of API calls."""

from __future__ import annotations

from typing import Any, TypeVar

from lib_latent_upscale.catalogue import CATALOGUE
from lib_latent_upscale.controls import component
from lib_latent_upscale.options import Option, Settings, Switch, rows
from lib_latent_upscale.webui.host import learned_files
from lib_latent_upscale.webui.host import processing as host

__all__ = ["X4_FOLDER", "X4_KEEP", "add_options", "default_settings", "option_name"]

X4_FOLDER, X4_KEEP = "x4_folder", "x4_keep"
"""Further options: where more x4 upscalers are, and whether the last one stays in the computer's memory."""

_SECTION = ("latent_upscale", "Latent Upscale")

S = TypeVar("S", bound=Settings)


def option_name(field: str) -> str:
    """Name of the host's option for the default of a setting."""
    return f"latent_upscale_{field}"


def default_settings(kind: type[S]) -> S:
    """The user's defaults, or ours for options that are no longer valid, such as a renamed method."""
    chosen = {}
    for name, row in rows(kind).items():
        value = row.allowed.normal(host.option(option_name(kind.ELEMENTS + name), row.default))
        chosen[name] = row.default if row.problem(value) else value
    try:
        return kind(**chosen)
    except ValueError:  # each is allowed, but not all of them together
        return kind()


def add_options() -> None:
    """Register the settings page. The host calls this again on every "Reload UI"; options are kept by name."""
    from modules import shared

    for kind in CATALOGUE:
        for name, row in rows(kind).items():
            if row.setting:
                shared.opts.add_option(option_name(kind.ELEMENTS + name), _info(row))
    folder = shared.OptionInfo("", "Further x4 upscaler, or folder with x4 upscalers", section=_SECTION)
    shared.opts.add_option(option_name(X4_FOLDER), folder.info("besides those in models/x4-upscaler"))
    learned = shared.OptionInfo("", "Further folder with latent upscalers", section=_SECTION)
    shared.opts.add_option(learned_files.FOLDER, learned.info("besides models/latent-upscaler; safetensors files"))
    keep = shared.OptionInfo(True, "Keep the x4 upscaler in the computer's memory", section=_SECTION)
    shared.opts.add_option(option_name(X4_KEEP), keep.info("about 1.8 GB; loading it again takes a few seconds"))


def _info(row: Option) -> Any:
    import gradio as gr
    from modules import shared, ui_components

    kind, details = component(gr, row)
    if details.pop("multiselect", False):  # the host updates a shown control with all that it is made with
        kind = ui_components.DropdownMulti
    default = list(row.default) if isinstance(row.default, tuple) else row.default
    shown = () if isinstance(default, (bool, str)) and kind is not gr.Dropdown else (kind, _looked_up(row, details))
    return shared.OptionInfo(default, _label(row), *shown, section=_SECTION).needs_reload_ui()


def _looked_up(row: Option, details: dict[str, Any]) -> Any:
    """Arguments of a control; a function if files are among the choices, which are then searched when it is shown."""
    allowed = row.allowed
    if not learned_files.takes_files(allowed):
        return details
    return lambda: {**details, "choices": learned_files.choices(allowed)}


def _label(row: Option) -> str:
    if isinstance(row.allowed, Switch):
        return f"{row.label} by default"
    return f"Default {row.label[0].lower()}{row.label[1:]}"
