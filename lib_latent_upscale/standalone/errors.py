"""Errors that a person can put right: a bad picture, path, name or number; a model in the wrong number format."""

import re

__all__ = ["GenerationError", "InputError", "is_out_of_memory"]

_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory|failed to allocate", re.IGNORECASE)


class InputError(ValueError):
    """One sentence that says what was given, what is allowed and what to do; the command ends with exit code 2."""


class GenerationError(RuntimeError):
    """The model made something that is no picture; says what to try. The command ends with exit code 1."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch or Python ran out of memory; torch says it in a RuntimeError, in other words on each device."""
    return isinstance(error, MemoryError) or bool(_MEMORY.search(str(error)))
