"""How a picture of any size is placed on a grid of latent cells, so that the result has exactly the given size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

__all__ = ["Fit", "fit_picture", "padded_picture"]

_TOLERANCE = 0.5
"""Pixels by which a side of the result may be stretched; half a pixel over the whole side is not visible."""
_FURTHER_CELLS = 8
"""Cells of padding to try for a better fit."""


@dataclass(frozen=True)
class Side:
    """One side of a picture: source cells and target cells whose ratio is the enlargement."""

    source: int
    """Latent cells of the padded input."""
    target: int
    """Latent cells of the result before it is cropped."""


@dataclass(frozen=True)
class Fit:
    """The latent sizes of an enlargement, (height, width) in cells, including padding at the right and bottom."""

    source: tuple[int, int]
    target: tuple[int, int]


def _fit_side(length: int, wanted: int, cell: int) -> Side:
    """The fewest cells of padding with which the enlarged `length` comes out as `wanted` pixels.

    Stretching the latents by a few pixels would be simpler, but a stretched picture no longer lies on its original.
    """
    least = -(-length // cell)
    best, best_error = Side(least, -(-wanted // cell)), float("inf")
    for source in range(least, least + _FURTHER_CELLS + 1):
        target = max(round(source * wanted / length), -(-wanted // cell))
        error = abs(length * target / source - wanted)
        if error < best_error:
            best, best_error = Side(source, target), error
        if best_error <= _TOLERANCE:
            break
    return best


def fit_picture(size: tuple[int, int], wanted: tuple[int, int], cell: int = 8) -> Fit:
    """Latent sizes for a picture of `size` (width, height) that is to become `wanted` (width, height), in pixels.

    `cell` is how many pixels one latent cell covers. Without remainders nothing is padded: 512x512 to 1024x1024 is 64
    to 128 cells a side, as in the WebUI.
    """
    across, down = (_fit_side(length, aim, cell) for length, aim in zip(size, wanted, strict=True))
    return Fit((down.source, across.source), (down.target, across.target))


def padded_picture(image: Image.Image, cells: tuple[int, int], cell: int = 8) -> Image.Image:
    """`image` padded by reflection at the right and bottom to `cells` (height, width), each of `cell` pixels."""
    height, width = cells[0] * cell, cells[1] * cell
    if image.size == (width, height):
        return image
    margin = ((0, height - image.height), (0, width - image.width), (0, 0))
    return Image.fromarray(np.pad(np.asarray(image), margin, mode="reflect"))
