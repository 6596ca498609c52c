"""Everything that is raised here on purpose has one root; each message is one sentence for the person.

    LatentUpscaleError
    ├── InputError (ValueError)         a person can put it right: a picture, a path, a name, a number, a model
    │   ├── SettingsError               a value of an option; in options.py, since it knows the rows
    │   ├── SizeError                   a size that is too small or too large
    │   ├── ModelFileError              a file or folder that is damaged, a pickle, or something else than is wanted
    │   ├── NotFinite                   see below
    │   └── ArgumentError               as the WebUI's API answers; in webui/errors.py
    ├── GenerationError (RuntimeError)  the work itself failed
    │   ├── OutOfMemory                 even for the smallest tiles
    │   └── NotFinite                   another number format puts it right, so that it is an InputError, too
    └── Interrupted                     the work was stopped, as it was asked for

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
]


class LatentUpscaleError(Exception):
    """The root."""


class InputError(LatentUpscaleError, ValueError):
    """Says what was given, what is allowed and what to do; the command ends with exit code 2."""


class SizeError(InputError):
    """A size is too small or too large; of a folder's pictures it may be one that is."""


class ModelFileError(InputError):
    """A model's file or folder is damaged, a pickle, or something else than is wanted."""


class GenerationError(LatentUpscaleError, RuntimeError):
    """There is no picture; says what to try. The command ends with exit code 1."""


class OutOfMemory(GenerationError):  # noqa: N818 - Python's own words
    """The memory is not enough, even for the smallest tiles."""


class NotFinite(InputError, GenerationError):  # noqa: N818 - torch's word
    """The model returned values that are not numbers: its number format is too narrow, or its file is damaged."""


class Interrupted(LatentUpscaleError):  # noqa: N818 - not an error: it was asked for
    """The caller said to stop; there is no result."""
