"""All deliberate exceptions have one root; each message is one sentence for the user.

    LatentUpscaleError
    ├── InputError (ValueError)         the user can correct it: a picture, a path, a name, a number, a model
    │   ├── SettingsError               a value of an option; in options.py, since it knows the rows
    │   ├── SizeError                   a size that is too small or too large
    │   ├── ModelFileError              a file or folder that is damaged, a pickle, or not what is needed
    │   ├── NotFinite                   see below
    │   └── ArgumentError               as the WebUI's API answers; in webui/errors.py
    ├── GenerationError (RuntimeError)  the work itself failed
    │   ├── OutOfMemory                 even for the smallest tiles
    │   └── NotFinite                   another dtype helps, so it is an InputError too
    └── Interrupted                     the work was stopped on request

Functions of tensors, such as `interpolate_latent`, raise a plain ValueError where a program calls them wrongly.
"""

from __future__ import annotations

__all__ = [
    "GenerationError",
    "InputError",
    "Interrupted",
    "LatentUpscaleError",
    "ModelFileError",
    "NotFinite",
    "OutOfMemory",
    "SizeError",
    "first_line",
    "printable",
]


class LatentUpscaleError(Exception):
    """The root."""


class InputError(LatentUpscaleError, ValueError):
    """Says what was given, what is allowed and what to do; the command ends with exit code 2."""


class SizeError(InputError):
    """A size is too small or too large; other pictures of the same folder may still fit."""


class ModelFileError(InputError):
    """A model's file or folder is damaged, a pickle, or not what is needed."""


class GenerationError(LatentUpscaleError, RuntimeError):
    """No picture was made; says what to try. The command ends with exit code 1."""


class OutOfMemory(GenerationError):  # noqa: N818 - Python's own words
    """Memory is insufficient, even for the smallest tiles."""


class NotFinite(InputError, GenerationError):  # noqa: N818 - torch's word
    """The model returned values that are not numbers: its dtype has too small a range, or its file is damaged."""


class Interrupted(LatentUpscaleError):  # noqa: N818 - not an error: it was asked for
    """Stopped on the caller's request; there is no result."""


def printable(text: str) -> str:
    """A message as a terminal may show it: what names and infotexts of others' files could do to it is escaped."""
    return "".join(sign if sign.isprintable() or sign in "\n\t" else ascii(sign)[1:-1] for sign in text)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, without a full stop; libraries add whole paragraphs."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
