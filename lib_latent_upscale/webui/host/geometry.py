"""Where a picture is placed in the enlarged one, and which part of it is encoded."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

__all__ = ["CROP", "FILL", "STRETCH", "Placement", "cut_for_encoding", "picture_mode", "placed", "whole_cells"]

STRETCH, CROP, FILL, _LATENT = range(4)
"""The host's resize modes: "Just resize", "Crop and resize", "Resize and fill", "Just resize (latent upscale)"."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Placement:
    """Target pixels are source pixels times `scale` plus `offset`; all pairs are (across, down)."""

    target: tuple[int, int]
    scale: tuple[float, float]
    offset: tuple[int, int]

    @property
    def visible(self) -> Box:
        """The target's area in source pixels; larger than the source if the host fills."""
        (width, height), (across, down), (left, top) = self.target, self.scale, self.offset
        return -left / across, -top / down, (width - left) / across, (height - top) / down

    def area(self, left: int, top: int, width: int, height: int) -> tuple[int, int, int, int]:
        """A rectangle of the source, (left, top, width, height), in target pixels."""
        (across, down), (right_by, down_by) = self.scale, self.offset
        x, y = round(left * across) + right_by, round(top * down) + down_by
        return x, y, round((left + width) * across) + right_by - x, round((top + height) * down) + down_by - y


def placed(source: tuple[int, int], target: tuple[int, int], resize_mode: int) -> Placement:
    """Place a picture as the host does (`modules.images.resize_image`): stretched, or centred and cropped or filled."""
    (width, height), (wide, high) = source, target
    if resize_mode not in (CROP, FILL):
        return Placement(target, (wide / width, high / height), (0, 0))
    by_width = (wide / high > width / height) == (resize_mode == CROP)
    scaled = (wide, height * wide // width) if by_width else (width * high // height, high)
    scaled = max(scaled[0], 1), max(scaled[1], 1)
    offset = wide // 2 - scaled[0] // 2, high // 2 - scaled[1] // 2
    return Placement(target, (scaled[0] / width, scaled[1] / height), offset)


def picture_mode(mode: int) -> int:
    """The resize mode for pictures: "Just resize" in place of "Just resize (latent upscale)"."""
    return STRETCH if mode == _LATENT else mode


def whole_cells(length: float, cell: int) -> int:
    """The smallest multiple of `cell` that is not below `length`."""
    return cell * max(math.ceil(round(length, 3) / cell), 1)


def cut_for_encoding(picture: Image.Image, box: Box, cell: int) -> Image.Image:
    """The `box` of a picture with sides that are multiples of `cell`, so that encoding loses no columns.

    Beyond the picture's edge its border pixels go on. A box that is whole cells already is cut out untouched.
    """
    picture, (left, top, right, bottom) = _padded(picture, box)
    size = whole_cells(right - left, cell), whole_cells(bottom - top, cell)
    edges = round(left), round(top), round(left) + size[0], round(top) + size[1]
    if max(abs(edge - side) for edge, side in zip(edges, (left, top, right, bottom), strict=True)) < 1e-3:
        return picture if edges == (0, 0, *picture.size) else picture.crop(edges)
    inside = max(left, 0), max(top, 0), min(right, picture.width), min(bottom, picture.height)
    return picture.resize(size, resample=Image.Resampling.LANCZOS, box=inside)


def _padded(picture: Image.Image, box: Box) -> tuple[Image.Image, Box]:
    """The picture with its border repeated as far as the box reaches, and the box in the new pixels."""
    left, top, right, bottom = box
    before = [math.ceil(max(round(-edge, 3), 0)) for edge in (left, top)]
    after = [math.ceil(max(round(e, 3), 0)) for e in (right - picture.width, bottom - picture.height)]
    if not any(before + after):
        return picture, box
    around = [(before[1], after[1]), (before[0], after[0])]
    pixels = np.asarray(picture)
    padded = np.pad(pixels, around + [(0, 0)] * (pixels.ndim - 2), mode="edge")
    return Image.fromarray(padded), (left + before[0], top + before[1], right + before[0], bottom + before[1])
