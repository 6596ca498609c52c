"""Checks of settings, one for each kind of value, and the way of such settings out of dictionaries and infotext.

A check is called with the field's name and its value, and raises ValueError that says what was given and what is
allowed. A table `{field: check}` describes a whole dataclass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

__all__ = ["Check", "Name", "Number", "Whole", "check_all", "check_bool", "check_known", "check_text", "read_infotext"]

Check: TypeAlias = Callable[[str, object], None]


def check_text(field: str, value: object) -> None:
    """Any text."""
    if not isinstance(value, str):
        raise ValueError(f"{field} is {value!r}; a text is needed")


def check_bool(field: str, value: object) -> None:
    """True or False; 1 and 0 are numbers."""
    if not isinstance(value, bool):
        raise ValueError(f"{field} is {value!r}; choose True or False")


@dataclass(frozen=True)
class Name:
    """One of the allowed names."""

    allowed: tuple[str, ...]

    def __call__(self, field: str, value: object) -> None:
        if not isinstance(value, str) or value not in self.allowed:
            raise ValueError(f"{field} is {value!r}; choose one of: {', '.join(self.allowed)}")


@dataclass(frozen=True)
class Whole:
    """An integer from the lowest to the highest in steps, or one of the extra ones."""

    lowest: int
    highest: int
    step: int = 1
    extra: tuple[int, ...] = ()

    def __call__(self, field: str, value: object) -> None:
        if isinstance(value, int) and not isinstance(value, bool) and self._allows(value):
            return
        unit = f" in steps of {self.step}" if self.step > 1 else ""
        extra = "".join(f", or {number}" for number in self.extra)
        allowed = f"{self.lowest} to {self.highest}{unit}{extra}"
        raise ValueError(f"{field} is {value!r}; an integer from {allowed} is needed")

    def _allows(self, value: int) -> bool:
        return value in self.extra or (self.lowest <= value <= self.highest and value % self.step == 0)


@dataclass(frozen=True)
class Number:
    """A finite number from the lowest, which may mean something of its own, to the highest."""

    lowest: float
    highest: float
    lowest_means: str = ""

    def __call__(self, field: str, value: object) -> None:
        if isinstance(value, int | float) and not isinstance(value, bool) and self._allows(value):
            return
        lowest = f"{self.lowest:g} ({self.lowest_means})" if self.lowest_means else f"{self.lowest:g}"
        raise ValueError(f"{field} is {value!r}; a number from {lowest} to {self.highest:g} is needed")

    def _allows(self, value: float) -> bool:
        return math.isfinite(value) and self.lowest <= value <= self.highest


def check_all(settings: Any, checks: Mapping[str, Check]) -> None:
    """Check every field of a dataclass's instance."""
    for field in fields(settings):
        checks[field.name](field.name, getattr(settings, field.name))


def check_known(names: Iterable[str], settings: type, what: str) -> None:
    """Raise ValueError for names that are no fields of the dataclass `settings`; it lists those that are."""
    known = [field.name for field in fields(settings)]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"unknown {what} {unknown}; known are: {', '.join(known)}")


def read_infotext(
    settings: type, labels: Iterable[tuple[str, str]], checks: Mapping[str, Check], infotext: Mapping[str, Any]
) -> dict[str, Any]:
    """Fields and values of the dataclass `settings` from parsed infotext; labels that are absent are left out.

    Raises ValueError for a value that is not allowed; the message names the label.
    """
    given = [(field, label) for field, label in labels if label in infotext]
    return {field: _read(settings, field, label, checks[field], infotext[label]) for field, label in given}


def _read(settings: type, field: str, label: str, check: Check, value: object) -> Any:
    """A value of infotext as its field's type, checked here so that an error can name its label."""
    if isinstance(value, str):
        value = _READ[type(getattr(settings, field))](value.strip())
    try:
        check(field, value)
    except ValueError as error:
        raise ValueError(f"{label}: {error}") from None
    return value


def _read_number(text: str) -> object:
    """An int or a float where `text` is one, else `text`, which the field's check refuses by name."""
    try:
        number = float(text)
    except ValueError:
        return text
    return int(text) if text.lstrip("+-").isdigit() else number


def _read_bool(text: str) -> object:
    return {"true": True, "false": False}.get(text.lower(), text)


_READ: Mapping[type, Callable[[str], object]] = {str: str, int: _read_number, float: _read_number, bool: _read_bool}
