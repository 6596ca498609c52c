"""What a caller hands to the script, as settings: controls in order, a shorter list, or one dictionary with names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from lib_latent_upscale.settings import UpscaleSettings

__all__ = ["FIELDS", "ArgumentError", "given_arguments", "settings_from_arguments"]

FIELDS: tuple[str, ...] = tuple(field.name for field in fields(UpscaleSettings))
"""Names of the arguments, in the order of the controls."""


class ArgumentError(ValueError):
    """Something in the call is not allowed; the host's API answers with `status_code` and `detail`."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.status_code = 422
        self.detail = message


def settings_from_arguments(arguments: Sequence[Any], defaults: UpscaleSettings) -> UpscaleSettings:
    """Settings from the script's arguments: values in the order of `FIELDS`, or one dictionary with these names.

    Absent ones take their value from `defaults`.

    Raises:
        ArgumentError: too many, unknown names, or values that are not allowed.
    """
    try:
        return UpscaleSettings.from_dict({**asdict(defaults), **_named(arguments)})
    except ValueError as error:
        raise ArgumentError(f"Latent Upscale: {error}") from None


def _named(arguments: Sequence[Any]) -> Mapping[str, Any]:
    if len(arguments) == 1 and isinstance(arguments[0], Mapping):
        return arguments[0]
    if len(arguments) > len(FIELDS):
        raise ValueError(
            f"script_args has {len(arguments)} values; at most {len(FIELDS)} are allowed, in this order: "
            f"{', '.join(FIELDS)}; or one dictionary with these names"
        )
    return dict(zip(FIELDS, arguments, strict=False))


def given_arguments(script: Any, runner: Any, script_args: Sequence[Any]) -> list[Any]:
    """The arguments of `script` that the caller really gave.

    The API puts the caller's list in the place of the script's own arguments (`Api.init_script_args`). With a list of
    another length whatever follows moves, and values of other scripts would be taken for ours.
    """
    expected = max(other.args_to for other in runner.scripts)
    moved = len(script_args) - max(expected, 1)
    return list(script_args[script.args_from : max(script.args_to + moved, script.args_from)])
