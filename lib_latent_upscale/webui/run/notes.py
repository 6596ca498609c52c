"""Notes in a picture's infotext: what could not be done as requested."""

from __future__ import annotations

__all__ = ["NOTE_LABEL", "joined_notes"]

NOTE_LABEL = "Latent upscale note"
"""Infotext label of the notes."""


def joined_notes(*notes: str | None) -> str:
    """Notes, a sentence each, as the value of `NOTE_LABEL`; empty if there are none."""
    return " ".join(filter(None, notes))
