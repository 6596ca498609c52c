"""Marks in results that identify picture and settings, so that an interrupted folder can be continued."""

from __future__ import annotations

import hashlib
from pathlib import Path

from lib_latent_upscale.standalone.engine.infotext import read_infotext
from lib_latent_upscale.standalone.files.metadata import read_parameters

__all__ = ["MARK", "is_marked", "mark_of"]

MARK = "Latent upscale job"
"""Infotext label of the mark."""
_LENGTH = 16
"""Length of a mark in hexadecimal digits."""


def mark_of(source: Path, asked: str) -> str:
    """A hash of the content of the file `source` and of `asked`, which describes the settings.

    Raises:
        OSError: the file cannot be read.
    """
    content = hashlib.sha256(source.read_bytes()).digest()
    return hashlib.sha256(content + asked.encode("utf-8", "surrogatepass")).hexdigest()[:_LENGTH]


def is_marked(path: Path, mark: str) -> bool:
    """Whether a picture has this mark in its infotext."""
    return read_infotext(read_parameters(path)).values.get(MARK) == mark
