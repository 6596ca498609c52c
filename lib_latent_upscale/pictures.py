"""Pictures of any mode as RGB with 8 bits per channel, and their transparency."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

__all__ = ["eight_bits", "filled", "has_transparency", "rgb_and_alpha"]


def rgb_and_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """A picture as RGB, with fully transparent pixels filled, and its transparency (mode L) if it has any."""
    image, _ = eight_bits(image)
    if not has_transparency(image):
        return image.convert("RGB"), None
    rgba = image.convert("RGBA")
    return filled(rgba), rgba.getchannel("A")


def has_transparency(image: Image.Image) -> bool:
    """Whether a picture has transparency, as a channel or as a colour."""
    return "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa")


def eight_bits(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """A grey picture of 16 bits, 32 bits or floats in 8 bits (mode L or LA); others as they are.

    Pillow's own convert would cut values off at 255.

    Returns:
        The picture, and what a user should know about it: the range of values that was found.
    """
    if not image.mode.startswith(("I", "F")):
        return image, ()
    values = np.asarray(image, dtype=np.float64)
    finite = np.isfinite(values)
    deep = image.mode.startswith("I;") or image.format == "PNG"  # older Pillow opens a PNG of 16 bits as 32
    full = 65535.0 if deep else _full(values[finite], whole=image.mode == "I")
    shown = np.nan_to_num(values, nan=0.0, posinf=full, neginf=0.0).clip(0, full) / full * 255
    grey = Image.fromarray(np.rint(shown).astype(np.uint8))
    notes = () if deep else (_range_told(values[finite], full, int((~finite).sum())),)
    key = image.info.get("transparency")
    if isinstance(key, int):
        grey = Image.merge("LA", (grey, Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8))))
    return grey, notes


_OVERSHOOT = 1.05
"""The largest overshoot above white by sharpening and resizing."""


def _full(values: np.ndarray[Any, np.dtype[np.float64]], *, whole: bool) -> float:
    """The value of white: 1, 255, 65535 or the largest one, from what there is.

    Args:
        values: finite ones.
        whole: whether they are integers by their type. Floats that are mostly in 0 to 1 are so with highlights above,
            as renderers and raw converters write them, unless all are whole numbers.
    """
    highest = float(values.max(initial=0.0))
    positive = values[values > 0]
    whole = whole or (highest > 1 and bool((values == np.rint(values)).all()))
    if not whole and (highest <= _OVERSHOOT or float(np.median(positive)) <= 1):
        return 1.0
    return next((full for full in (255.0, 65535.0) if highest <= (full if whole else full * _OVERSHOOT)), highest)


def _range_told(values: np.ndarray[Any, np.dtype[np.float64]], full: float, broken: int) -> str:
    lowest, highest = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    no_numbers = f", {broken} that are no finite numbers" if broken else ""
    return f"values from {lowest:g} to {highest:g}{no_numbers}; 0 is taken as black and {full:g} as white."


def filled(rgba: Image.Image) -> Image.Image:
    """RGB of a transparent picture: colours of invisible places come from their surroundings, coarse to fine.

    What editors leave there (mostly black) would bleed into the visible edges through the latents.
    """
    premultiplied = rgba.convert("RGBa")
    sizes = [rgba.size]
    while max(sizes[-1]) > 1:
        sizes.append((max(sizes[-1][0] // 2, 1), max(sizes[-1][1] // 2, 1)))
    filled = Image.new("RGB", (1, 1))
    for size in reversed(sizes):
        level = premultiplied.resize(size, Image.Resampling.BOX).convert("RGBA")
        visible = level.getchannel("A").point(lambda alpha: 255 if alpha else 0)
        filled = filled.resize(size, Image.Resampling.BILINEAR)
        filled.paste(level.convert("RGB"), mask=visible)
    return filled
