"""Errors that a person can put right: a bad picture, path, name or number; a model in the wrong number format."""

__all__ = ["GenerationError", "InputError"]


class InputError(ValueError):
    """One sentence that says what was given, what is allowed and what to do; the command ends with exit code 2."""


class GenerationError(RuntimeError):
    """The model made something that is no picture; says what to try. The command ends with exit code 1."""


class SizeError(InputError):
    """A size is too small or too large; of a folder's pictures it may be one that is."""
