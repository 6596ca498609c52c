"""Methods that enlarge by a network of the user's own: the names that they have, by the names of their files."""

from __future__ import annotations

from lib_latent_upscale.options import Further

__all__ = ["FILES", "file_of", "method_of_file"]

FILES = Further("learned-latent: ", "FILE")


def method_of_file(name: str) -> str:
    """The method that enlarges by a file of this name."""
    return f"{FILES.start}{name}"


def file_of(method: str) -> str:
    """The name of the file by which a method enlarges; empty for all others."""
    return method[len(FILES.start) :] if FILES.holds(method) else ""
