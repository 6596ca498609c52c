"""Temporary values for attributes of the host's objects."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

__all__ = ["overridden"]

_MISSING = object()


def overridden(thing: Any, values: Mapping[str, Any]) -> ExitStack:
    """Set attributes until the result is closed or its `with` block ends; then they are restored or removed.

    Args:
        thing: a processing object, a module.
        values: by the attributes' names.
    """
    with ExitStack() as stack:  # what is set already is put back where one cannot be set
        for name, value in values.items():
            stack.callback(_put_back, thing, name, _held(thing, name))
            setattr(thing, name, value)
        return stack.pop_all()


def _held(thing: Any, name: str) -> Any:
    """The value of the object itself, without that of its class."""
    if isinstance(getattr(type(thing), name, None), property):  # such as `script_args` of v1.10.1
        return getattr(thing, name)
    return vars(thing).get(name, _MISSING)


def _put_back(thing: Any, name: str, value: Any) -> None:
    if value is _MISSING:
        vars(thing).pop(name, None)
    else:
        setattr(thing, name, value)
