"""What a caller hands to the script, as settings: controls in order, a shorter list, or one dictionary with names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from lib_latent_upscale.checks import check_bool
from lib_latent_upscale.settings import UpscaleSettings
from lib_latent_upscale.webui.compare.variants import COMPARE_CONTROLS, COMPARE_FIELDS, CompareSettings
from lib_latent_upscale.webui.errors import ArgumentError
from lib_latent_upscale.webui.passes.base import Kept, Pass, Passes
from lib_latent_upscale.webui.passes.tile import TilePass
from lib_latent_upscale.webui.passes.x4 import X4Pass

__all__ = [
    "FIELDS",
    "PASSES",
    "ArgumentError",
    "comparison_from_arguments",
    "given_arguments",
    "passes_from_arguments",
    "settings_from_arguments",
]

FIELDS: tuple[str, ...] = tuple(field.name for field in fields(UpscaleSettings))
"""Names of the arguments of an upscale, in the order of the controls."""

PASSES: tuple[type[Pass], ...] = (TilePass, X4Pass)
"""The passes in the order in which they run; their arguments follow those of a comparison, in the same order."""

_PASS_FIELDS = tuple(name for kind in PASSES for name in kind.FIELDS)
_POSITIONS = (*FIELDS, *COMPARE_CONTROLS, *_PASS_FIELDS)
_NAMES = (*FIELDS, *COMPARE_FIELDS, *_PASS_FIELDS)


def settings_from_arguments(arguments: Sequence[Any], defaults: UpscaleSettings) -> UpscaleSettings:
    """Settings from the script's arguments: values in the order of the controls, or one dictionary.

    Absent ones are defaults; those of a comparison and of passes are left to the functions below.

    Raises:
        ArgumentError: too many, unknown names, or values that are not allowed.
    """
    try:
        named = _named(arguments)
        own = {name: value for name, value in named.items() if name in FIELDS}
        return UpscaleSettings.from_dict({**asdict(defaults), **own})
    except ValueError as error:
        raise ArgumentError(f"Latent Upscale: {error}") from None


def comparison_from_arguments(arguments: Sequence[Any]) -> CompareSettings:
    """What to compare, from the same arguments.

    Raises:
        ArgumentError: as above.
    """
    try:
        return CompareSettings(**{name: value for name, value in _named(arguments).items() if name in COMPARE_FIELDS})
    except ValueError as error:
        raise ArgumentError(f"Latent Upscale: {error}") from None


def passes_from_arguments(p: Any, arguments: Sequence[Any], kept: Kept) -> Passes:
    """The passes that are asked for, checked, from the same arguments.

    Raises:
        ArgumentError: as above, and where a pass cannot be run.
    """
    try:
        named = _named(arguments)
        return Passes(p, [kind(p, _own(kind, named), kept) for kind in PASSES if _asked(kind, named)])
    except ValueError as error:
        raise ArgumentError(f"Latent Upscale: {error}") from None


def _own(kind: type[Pass], named: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in named.items() if name in kind.FIELDS}


def _asked(kind: type[Pass], named: Mapping[str, Any]) -> bool:
    switch, *others = kind.FIELDS
    given = [name for name in others if name in named]
    if switch not in named and given:
        raise ValueError(f"{', '.join(given)}: only with {switch}, which is True or False")
    check_bool(switch, named.get(switch, False))
    return bool(named.get(switch, False))


def _named(arguments: Sequence[Any]) -> Mapping[str, Any]:
    if len(arguments) == 1 and isinstance(arguments[0], Mapping):
        unknown = [name for name in arguments[0] if name not in _NAMES]
        if unknown:
            raise ValueError(f"unknown settings {unknown}; known are: {', '.join(_NAMES)}")
        return arguments[0]
    if len(arguments) > len(_POSITIONS):
        raise ValueError(
            f"script_args has {len(arguments)} values; at most {len(_POSITIONS)} are allowed, in this order: "
            f"{', '.join(_POSITIONS)}; or one dictionary with these names"
        )
    return dict(zip(_POSITIONS, arguments, strict=False))


def given_arguments(script: Any, runner: Any, script_args: Sequence[Any]) -> list[Any]:
    """The arguments of `script` that the caller really gave.

    The API puts the caller's list in the place of the script's own arguments (`Api.init_script_args`). With a list of
    another length whatever follows moves, and values of other scripts would be taken for ours.
    """
    expected = max(other.args_to for other in runner.scripts)
    moved = len(script_args) - max(expected, 1)
    return list(script_args[script.args_from : max(script.args_to + moved, script.args_from)])
