"""Flags of the command for the options of a class of settings, and the settings that they give.

Nothing heavy is imported: `--help` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, TypeVar

from lib_latent_upscale.errors import InputError
from lib_latent_upscale.options import Integer, Number, OneOf, Option, Settings, SettingsError, Switch, Text, rows

__all__ = [
    "OUT_OF_MEMORY",
    "add_flags",
    "attribute_of",
    "attributes",
    "check_given",
    "flags",
    "given_settings",
    "given_values",
    "read_number",
    "settings_from_flags",
]

OUT_OF_MEMORY = "out of memory; try a smaller --size or --scale, --batch-size 1, --dtype float16, or --device cpu"
"""Which flags help where memory runs out."""

S = TypeVar("S", bound=Settings)


def flags(kind: type[Settings], prefix: str | None = None) -> dict[str, str]:
    """The flags of the options that have one, by the names of their fields.

    Args:
        kind: class of the settings.
        prefix: prefix of flags without dashes at their start; None for `kind.FLAGS`.
    """
    before = kind.FLAGS if prefix is None else prefix
    named = {name: row.flag for name, row in rows(kind).items() if row.flag is not None}
    return {name: flag if flag.startswith("--") else f"{before}{flag}" for name, flag in named.items()}


def add_flags(
    group: argparse._ActionsContainer,
    kind: type[Settings],
    prefix: str | None = None,
    *,
    silent: bool = False,
    **defaults: Any,
) -> None:
    """Add the flags of a class of settings.

    Args:
        group: the parser or group that they are added to.
        kind: class of the settings.
        prefix: as for `flags`.
        silent: None is the default of all flags, to tell which ones are given.
        defaults: other defaults than those of the settings, by fields.
    """
    for name, flag in flags(kind, prefix).items():
        row = rows(kind)[name]
        shown = defaults.get(name, row.default)
        group.add_argument(flag, default=None if silent else shown, **_details(row, shown))


def _details(row: Option, default: Any) -> dict[str, Any]:
    allowed = row.allowed
    told = f"{row.tip} ({allowed.text}; default {_plain(default)})".replace("%", "%%")
    if isinstance(allowed, Switch):
        return {"action": argparse.BooleanOptionalAction, "help": row.tip.replace("%", "%%")}
    if isinstance(allowed, (Integer, Number)):
        return {"type": read_number, "metavar": "N" if isinstance(allowed, Integer) else "X", "help": told}
    if isinstance(allowed, OneOf):
        return {"metavar": "NAME", "help": told}
    if isinstance(allowed, Text):
        return {"metavar": "TEXT", "help": f"{row.tip} (default: {default or 'empty'})".replace("%", "%%")}
    raise TypeError(f"{row.name}: there is no flag for {type(allowed).__name__}")


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def read_number(text: str) -> float | str:
    """A number, or the text itself if it is none: the settings report what is allowed."""
    for read in (int, float):
        with contextlib.suppress(ValueError):
            return read(text)
    return text


def given_values(arguments: argparse.Namespace, kind: type[Settings], prefix: str | None = None) -> dict[str, Any]:
    """The values of the flags by the names of their fields, without those that are None or missing."""
    found = {name: getattr(arguments, attribute, None) for name, attribute in attributes(kind, prefix).items()}
    return {name: value for name, value in found.items() if value is not None}


def attributes(kind: type[Settings], prefix: str | None = None) -> dict[str, str]:
    """Argparse's names of the values of `flags`, by the names of their fields."""
    return {name: attribute_of(flag) for name, flag in flags(kind, prefix).items()}


def attribute_of(flag: str) -> str:
    """Argparse's name of the value of a flag."""
    return flag.lstrip("-").replace("-", "_")


def settings_from_flags(values: Mapping[str, Any], kind: type[S], prefix: str | None = None) -> S:
    """Settings from `given_values`.

    Raises:
        InputError: a value that is not allowed; fields are called by their flags.
    """
    try:
        return kind.from_dict(values)
    except SettingsError as error:
        raise InputError(error.said(partial(_flag, flags(kind, prefix)))) from error


def given_settings(arguments: argparse.Namespace, kind: type[S], prefix: str | None = None) -> S:
    """Settings from the flags in `arguments`; `prefix` as for `flags`.

    Raises:
        InputError: a value that is not allowed; fields are called by their flags.
    """
    return settings_from_flags(given_values(arguments, kind, prefix), kind, prefix)


def _flag(known: Mapping[str, str], name: str) -> str:
    return known.get(name, name)


def check_given(kind: type[Settings], given: Iterable[str], needed: str = "") -> None:
    """Check that no fields of a pass are given that would have no effect.

    Args:
        kind: settings of the pass.
        given: names of such fields.
        needed: the flag that they need, if it is not that of the model.

    Raises:
        InputError: `given` is not empty.
    """
    options = ", ".join(flags(kind)[name] for name in given)
    if options:
        raise InputError(f"{options}: only with {needed or f'{kind.MODEL_FLAG} MODEL, which names the {kind.NAME}'}.")
