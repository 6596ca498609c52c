"""Names of the methods that use a file of the user's own: "learned-latent: " and the file's name."""

from __future__ import annotations

from lib_latent_upscale.options import Further

__all__ = ["FILES", "file_of", "method_of_file"]

FILES = Further("learned-latent: ", "FILE")


def method_of_file(name: str) -> str:
    """The method that uses the file of this name (without its suffix)."""
    return f"{FILES.start}{name}"


def file_of(method: str) -> str:
    """The name of the file that a method uses; empty for all other methods."""
    return method[len(FILES.start) :] if FILES.holds(method) else ""
