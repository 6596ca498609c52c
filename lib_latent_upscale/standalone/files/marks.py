"""How a result says what it was made of, so that a folder can be continued."""

from __future__ import annotations

import hashlib
from pathlib import Path

from lib_latent_upscale.standalone.engine.infotext import read_infotext
from lib_latent_upscale.standalone.files.metadata import read_parameters

__all__ = ["MARK", "is_marked", "mark_of"]

MARK = "Latent upscale job"
"""Label of the infotext."""
_LENGTH = 16
"""Hexadecimal digits, of 4 bits each."""


def mark_of(source: Path, asked: str) -> str:
    """The same for the same content of `source` and the same settings, and for nothing else."""
    content = hashlib.sha256(source.read_bytes()).digest()
    return hashlib.sha256(content + asked.encode("utf-8", "surrogatepass")).hexdigest()[:_LENGTH]


def is_marked(path: Path, mark: str) -> bool:
    """Whether a file is a result with this mark."""
    return read_infotext(read_parameters(path)).values.get(MARK) == mark
