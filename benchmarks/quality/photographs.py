"""The photographs: those that come with scikit-image and that its documentation calls free."""

from __future__ import annotations

from dataclasses import dataclass

import skimage.data
from PIL import Image

__all__ = ["PHOTOGRAPHS", "Photograph", "original", "shrunk"]


@dataclass(frozen=True)
class Photograph:
    """A photograph of `skimage.data`."""

    name: str
    """The function in `skimage.data`."""
    licence: str
    """What the function's documentation says."""
    author: str
    in_development: bool = False
    """Whether it was looked at while the demo model was made; none was trained on."""


PUBLIC, CC0, NO_KNOWN = "public domain", "CC0", "no known copyright restrictions"

PHOTOGRAPHS = (
    Photograph("astronaut", PUBLIC, "NASA", in_development=True),
    Photograph("brick", CC0, "CC0Textures, Bricks25"),
    Photograph("camera", CC0, "Lav Varshney"),
    Photograph("chelsea", CC0, "Stéfan van der Walt", in_development=True),
    Photograph("clock", PUBLIC, "Stéfan van der Walt; blurred by motion"),
    Photograph("coffee", CC0, "Rachel Michetti", in_development=True),
    Photograph("coins", NO_KNOWN, "Brooklyn Museum"),
    Photograph("grass", CC0, "linolafett"),
    Photograph("gravel", CC0, "CC0Textures, Gravel04"),
    Photograph("hubble_deep_field", PUBLIC, "NASA"),
    Photograph("retina", CC0, "Mikael Häggström"),
    Photograph("rocket", PUBLIC, "SpaceX"),
)
"""All that are part of the package, so that nothing is fetched. Left out: moon and stereo_motorcycle (their
documentation names no licence), eagle (is fetched), microscope slides, scans, drawings, and those below 192 pixels."""


def original(name: str, size: int) -> Image.Image:
    """The middle square of a photograph at size x size pixels, RGB."""
    image = Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = (left, top, left + side, top + side)
    return image.crop(square).resize((size, size), Image.Resampling.LANCZOS)


def shrunk(image: Image.Image) -> Image.Image:
    """Half the size, each pixel the mean of four: as `comparison.measure` shrinks when it looks at faithfulness."""
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
