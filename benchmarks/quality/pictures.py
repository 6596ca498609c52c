"""The pictures whose originals are known: drawings that no network of ours has seen, and free photographs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import skimage.data
from PIL import Image

from tools.learned.pictures import held_out_scenes

__all__ = ["KINDS", "PHOTOGRAPHS", "Picture", "pictures"]

KINDS = ("drawings", "photographs")
PHOTOGRAPHS = {
    "astronaut": "NASA, public domain",
    "camera": "Lav Varshney, CC0",
    "chelsea": "Stéfan van der Walt, CC0",
    "coffee": "Rachel Michetti, CC0",
}
"""Of `skimage.data`: those of a scene in front of a camera that its documentation calls free and that are sharp."""


@dataclass(frozen=True)
class Picture:
    """An original."""

    kind: str
    name: str
    image: Image.Image

    def shrunk(self, factor: float) -> Image.Image:
        """So many times smaller; what is enlarged again."""
        size = round(self.image.width / factor)
        return self.image.resize(
            (size, size), Image.Resampling.BOX if factor == int(factor) else Image.Resampling.LANCZOS
        )


def pictures(drawings: Path, count: int, size: int) -> Iterator[Picture]:
    """So many of each kind, size x size pixels, RGB."""
    for number, scene in enumerate(held_out_scenes(drawings, count)):
        yield Picture(KINDS[0], f"scene {number}", scene.resize((size, size), Image.Resampling.LANCZOS))
    for name in list(PHOTOGRAPHS)[:count]:
        image = Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = (left, top, left + side, top + side)
        yield Picture(KINDS[1], name, image.resize((size, size), Image.Resampling.LANCZOS, box=square))
