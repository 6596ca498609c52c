"""Aspect ratios: cropping and filling pictures to that of their results, as the WebUI's resize modes do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from lib_latent_upscale.standalone.engine.generation import check_size
from lib_latent_upscale.standalone.files.images import Picture

__all__ = ["VISIBLE_CHANGE", "change_of_shape", "kept_shape", "shaped"]

VISIBLE_CHANGE = 0.01
"""Change of the aspect ratio from which the user is told."""


def kept_shape(size: tuple[int, int], width: int, height: int) -> tuple[int, int]:
    """(width, height) of the result for a picture of `size`; one of them may be 0 and follows from the aspect ratio.

    Raises:
        SizeError: the result would be too small or too large.
    """
    wanted = width or max(round(height * size[0] / size[1]), 1), height or max(round(width * size[1] / size[0]), 1)
    check_size(*wanted, what="The result's size")
    return wanted


def change_of_shape(size: tuple[int, int], wanted: tuple[int, int]) -> float:
    """How much wider or narrower a picture of `size` becomes at the size `wanted`, (width, height): 0.1 is 10 %."""
    ratio = (wanted[0] * size[1]) / (wanted[1] * size[0])
    return max(ratio, 1 / ratio) - 1


def shaped(picture: Picture, wanted: tuple[int, int], resize_mode: str) -> Picture:
    """A picture with the aspect ratio of `wanted` (width, height), but not resized.

    "stretch" leaves it unchanged, "crop" keeps the middle, and "fill" repeats the border, like the WebUI's Just resize,
    Crop and resize, and Resize and fill (`modules.images.resize_image`).
    """
    if resize_mode == "stretch":
        return picture
    size = _shape(picture.size, wanted, smaller=resize_mode == "crop")
    rgb = _middle(picture.rgb, size)
    return replace(picture, rgb=rgb, alpha=None if picture.alpha is None else _middle(picture.alpha, size))


def _shape(size: tuple[int, int], wanted: tuple[int, int], *, smaller: bool) -> tuple[int, int]:
    """`size` with one side made smaller or larger, so that it has the aspect ratio of `wanted`."""
    width, height = size
    wider = wanted[0] * height > wanted[1] * width
    if wider == smaller:
        return width, max(round(width * wanted[1] / wanted[0]), 1)
    return max(round(height * wanted[0] / wanted[1]), 1), height


def _middle(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The middle of an image, or the image with its border repeated, at `size` (width, height)."""
    for axis, length in enumerate(size):
        less = image.size[axis] - length
        if less >= 0:
            left, top = (less // 2, 0) if axis == 0 else (0, less // 2)
            right, bottom = (left + length, image.height) if axis == 0 else (image.width, top + length)
            image = image.crop((left, top, right, bottom))
        else:
            before = -less // 2
            margin = [(0, 0)] * np.asarray(image).ndim
            margin[1 - axis] = (before, -less - before)
            image = Image.fromarray(np.pad(np.asarray(image), margin, mode="edge"))
    return image
