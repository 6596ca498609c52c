"""Axes of the X/Y/Z plot script.

Only one script of the dropdown runs, and X/Y/Z plot is one. So an axis leaves its value on the processing object,
and the always visible companion of the script applies it in `before_process`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from lib_latent_upscale.interpolation import INTERPOLATIONS
from lib_latent_upscale.settings import UpscaleSettings
from lib_latent_upscale.webui.errors import ArgumentError
from lib_latent_upscale.webui.host import processing as host
from lib_latent_upscale.webui.host.options import SCHEDULERS, default_settings
from lib_latent_upscale.webui.passes.base import Passes
from lib_latent_upscale.webui.request import passes_from_arguments, settings_from_arguments
from lib_latent_upscale.webui.run.latent_upscale import TITLE, LatentUpscale

__all__ = ["AXES", "add_axes", "install_axes", "with_axes"]

_ATTRIBUTE = "latent_upscale_axes"
_SWITCH = ("True", "False")

AXES: Mapping[str, tuple[str, Callable[[], Sequence[str]]]] = {
    "method": ("Method", lambda: list(INTERPOLATIONS)),
    "scheduler": ("Scheduler", lambda: list(SCHEDULERS)),
    "exact_steps": ("Exact steps", lambda: list(_SWITCH)),
    "keep_statistics": ("Keep statistics", lambda: list(_SWITCH)),
    "matched_noise": ("Matched noise", lambda: list(_SWITCH)),
}
"""Setting: its axis label (after "[Latent Upscale]") and its choices."""


def install_axes(p: Any) -> None:
    """Install a latent upscale if an axis has left something on the processing object.

    The host swallows what a hook raises and would go on without us; what `init` raises stops the generation.
    """
    values: Mapping[str, str] = getattr(p, _ATTRIBUTE, {})
    if not values:
        return
    script = _own_script(p)
    arguments = _panel_arguments(p, script)
    try:
        settings = settings_from_arguments(arguments, default_settings())
        upscale = LatentUpscale(p, with_axes(settings, values))
        passes = passes_from_arguments(p, arguments, {} if script is None else script.kept)
        _check_runs(passes)
    except ArgumentError as error:
        p.init = partial(_refuse, error)
        return
    upscale.install()
    passes.install()


def _check_runs(passes: Passes) -> None:
    if passes.own_run is not None:
        raise ArgumentError("Latent Upscale: X/Y/Z plot runs no second pass; switch it off in the script's panel")


def _refuse(error: ArgumentError, *_args: Any) -> None:
    raise error


def _own_script(p: Any) -> Any:
    return next((script for script in p.scripts.selectable_scripts if script.title() == TITLE), None)


def _panel_arguments(p: Any, script: Any) -> Sequence[Any]:
    """What stands in the script's own panel, which is hidden while X/Y/Z plot is chosen, but still set.

    Over the API a list of another length than X/Y/Z plot's own moves the values; then the defaults count.
    """
    complete = script is not None and len(p.script_args) == max(other.args_to for other in p.scripts.scripts)
    return list(p.script_args[script.args_from : script.args_to]) if complete else []


def with_axes(settings: UpscaleSettings, values: Mapping[str, str]) -> UpscaleSettings:
    """The settings with the values of axes in them.

    Raises:
        ArgumentError: a value that is not one of the axis's choices.
    """
    parsed: dict[str, Any] = {field: _parsed(field, text) for field, text in values.items()}
    return replace(settings, **parsed)


def _parsed(field: str, text: str) -> str | bool:
    choices = list(AXES[field][1]())
    found = {choice.lower(): choice for choice in choices}.get(str(text).strip().lower())
    if found is None:
        raise ArgumentError(f"[Latent Upscale] {AXES[field][0]}: {text!r}; choose from: {', '.join(choices)}")
    return found == _SWITCH[0] if found in _SWITCH else found


def _apply(field: str, p: Any, value: str, _values: Sequence[str]) -> None:
    setattr(p, _ATTRIBUTE, {**getattr(p, _ATTRIBUTE, {}), field: value})  # copies of `p` share dictionaries


def _confirm(field: str, _p: Any, values: Sequence[str]) -> None:
    for value in values:
        _parsed(field, value)


def add_axes() -> None:
    """Offer the axes in img2img; the host calls this again on every "Reload UI"."""
    grid = host.xyz_grid()
    if grid is None:
        return
    offered = {option.label for option in grid.axis_options}
    for field, (name, choices) in AXES.items():
        label = f"[Latent Upscale] {name}"
        if label not in offered:
            option = grid.AxisOptionImg2Img(
                label, str, partial(_apply, field), confirm=partial(_confirm, field), choices=choices
            )
            grid.axis_options.append(option)
