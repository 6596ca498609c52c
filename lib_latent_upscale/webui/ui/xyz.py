"""Axes of the X/Y/Z plot script.

Only one script of the dropdown runs, and X/Y/Z plot is one. So an axis leaves its value on the processing object,
and the always visible companion of the script applies it in `before_process`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from lib_latent_upscale.catalogue import CATALOGUE
from lib_latent_upscale.options import Allowed, Integer, Number, OneOf, Switch, rows, shortened
from lib_latent_upscale.settings import TITLE
from lib_latent_upscale.webui.dispatch import prepare
from lib_latent_upscale.webui.errors import ArgumentError, refusing
from lib_latent_upscale.webui.host import learned_files
from lib_latent_upscale.webui.host import processing as host
from lib_latent_upscale.webui.request import Request, named_arguments

__all__ = ["AXES", "add_axes", "install_axes", "with_axes"]

_ATTRIBUTE = "latent_upscale_axes"
_SWITCH = ("True", "False")


@dataclass(frozen=True)
class Axis:
    """One axis: an argument of the script that X/Y/Z plot may vary."""

    label: str
    """After "[Latent Upscale]"."""
    allowed: Allowed
    switch: str = ""
    """The switch of its pass, which the axis turns on."""

    @property
    def choices(self) -> tuple[str, ...] | None:
        """Values that the host offers; None if the user writes them."""
        if isinstance(self.allowed, Switch):
            return _SWITCH
        return tuple(learned_files.choices(self.allowed)) if isinstance(self.allowed, OneOf) else None

    @property
    def type(self) -> Callable[[str], Any]:
        """How the host reads a value; numbers may then be ranges."""
        return {Integer: int, Number: float}.get(type(self.allowed), str)

    def value(self, given: Any) -> Any:
        """The argument's value from what the user has written.

        Raises:
            ArgumentError: it is not allowed.
        """
        known = {choice.lower(): choice for choice in self.choices or ()}
        text = known.get(given.strip().lower(), given) if isinstance(given, str) else given
        value = self.allowed.read(text) if isinstance(text, str) else self.allowed.normal(text)
        problem = self.allowed.problem(value)
        if problem:
            said = f"{shortened(given)}; choose from: {', '.join(self.choices)}" if self.choices else problem
            raise ArgumentError(f"[Latent Upscale] {self.label}: {said}")
        return value


def _axes() -> Iterator[tuple[str, Axis]]:
    for kind in CATALOGUE:
        if kind.SWITCH:
            yield kind.SWITCH, Axis(kind.NAME, Switch())
        for name, row in rows(kind).items():
            if row.axis is not None:
                yield kind.api_name(name), Axis(row.axis, row.allowed, kind.SWITCH)


AXES: Mapping[str, Axis] = dict(_axes())
"""The axes by the arguments that they vary."""


def install_axes(p: Any) -> None:
    """Install a latent upscale if an axis has left values on the processing object.

    The host ignores exceptions of a hook and would continue without us; an exception of `init` stops the generation.
    """
    values: Mapping[str, Any] = getattr(p, _ATTRIBUTE, {})
    if not values:
        return
    script = _own_script(p)
    try:
        arguments = [with_axes(named_arguments(_panel_arguments(p, script)), values)]
        prepare(p, Request.parse(arguments), {} if script is None else script.kept)
    except ArgumentError as error:
        p.init = partial(_refuse, error if p.is_api else error.for_page())


def _refuse(error: ArgumentError, *_args: Any) -> None:
    raise error


def _own_script(p: Any) -> Any:
    return next((script for script in p.scripts.selectable_scripts if script.title() == TITLE), None)


def _panel_arguments(p: Any, script: Any) -> Sequence[Any]:
    """The values of the script's own panel, which is hidden while X/Y/Z plot is chosen, but still counts.

    A call of the API with a list of another length shifts the values; then the defaults are used.
    """
    complete = script is not None and len(p.script_args) == max(other.args_to for other in p.scripts.scripts)
    return list(p.script_args[script.args_from : script.args_to]) if complete else []


def with_axes(named: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The named arguments with the values of axes; a pass with an option among them is switched on.

    Raises:
        ArgumentError: a value that is not allowed.
    """
    parsed = {name: AXES[name].value(given) for name, given in values.items()}
    switches = {AXES[name].switch: True for name in values if AXES[name].switch}
    return {**named, **switches, **parsed}


def _apply(name: str, p: Any, value: Any, _values: Sequence[Any]) -> None:
    setattr(p, _ATTRIBUTE, {**getattr(p, _ATTRIBUTE, {}), name: value})  # copies of `p` share dictionaries


def _confirm(axis: Axis, _p: Any, values: Sequence[Any]) -> None:
    for value in values:
        chosen = axis.value(value)
        if learned_files.takes_files(axis.allowed):
            with refusing():
                learned_files.file_for(chosen)


def _choices(axis: Axis) -> list[str]:
    return list(axis.choices or ())


def add_axes() -> None:
    """Add the axes to img2img's X/Y/Z plot; the host calls this again on every "Reload UI"."""
    grid = host.xyz_grid()
    if grid is None:
        return
    offered = {option.label for option in grid.axis_options}
    for name, axis in AXES.items():
        label = f"[Latent Upscale] {axis.label}"
        if label not in offered:
            choices: Any = None if axis.choices is None else partial(_choices, axis)
            option = host.xyz_axis(grid)(
                label, axis.type, partial(_apply, name), confirm=partial(_confirm, axis), choices=choices
            )
            grid.axis_options.append(option)
