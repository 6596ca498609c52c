"""What a caller hands to the script, as settings: controls in order, a shorter list, or one dictionary with names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from lib_latent_upscale.settings import UpscaleSettings
from lib_latent_upscale.webui.variants import COMPARE_CONTROLS, COMPARE_FIELDS, CompareSettings

__all__ = ["FIELDS", "ArgumentError", "comparison_from_arguments", "given_arguments", "settings_from_arguments"]

FIELDS: tuple[str, ...] = tuple(field.name for field in fields(UpscaleSettings))
"""Names of the arguments of an upscale, in the order of the controls."""

_POSITIONS = (*FIELDS, *COMPARE_CONTROLS)
_NAMES = (*FIELDS, *COMPARE_FIELDS)


class ArgumentError(ValueError):
    """Something in the call is not allowed; the host's API answers with `status_code` and `detail`."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.status_code = 422
        self.detail = message


def settings_from_arguments(arguments: Sequence[Any], defaults: UpscaleSettings) -> UpscaleSettings:
    """Settings from the script's arguments: values in the order of the controls, or one dictionary.

    Absent ones are defaults; those of a comparison are left to `comparison_from_arguments`.

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
