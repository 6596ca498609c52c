"""What can go wrong with the x4 upscaler, each with one sentence for the person."""

__all__ = ["X4Error", "X4Interrupted", "X4NotFinite", "X4OutOfMemory"]


class X4Error(ValueError):
    """Something a person can put right: the file, the picture or a setting."""


class X4NotFinite(X4Error):  # noqa: N818 - torch's word
    """The model returned values that are not numbers: its number format is too narrow, or its file is damaged."""


class X4OutOfMemory(RuntimeError):  # noqa: N818 - torch's and Python's own words
    """The memory is not enough even for the smallest tiles."""


class X4Interrupted(Exception):  # noqa: N818 - not an error: it was asked for
    """The caller's `interrupted` callback said to stop; there is no result."""
