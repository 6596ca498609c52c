"""Free pictures as crops of one size: drawings on grounds, photographs, dead leaves.

    python -m tools.learned.pictures --drawings DIR --photographs DIR --work DIR

Drawings are PNG files with transparency that are named by the SHA-1 of their source's file name: those that begin with
00 to 05 are for measuring and never read here.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from tools.dead_leaves import dead_leaves

SIDE = 256
HELD_OUT = 6
"""The first byte of a drawing's name is below this: for measuring only."""
PORTRAITS = ("1080x1920", "720x1440", "1622x2880", "360x720")
"""Parts of names of photographs that are there in landscape format, too."""


def is_held_out(path: Path) -> bool:
    """Whether a drawing is kept for measuring."""
    return int(path.name[:2], 16) < HELD_OUT


def ground(rng: np.random.Generator, side: int) -> Image.Image:
    """Paper, a colour, or a gradient of two."""
    kind = rng.random()
    first, second = rng.integers(0, 256, (2, 3))
    if kind < 0.6:
        colour = rng.integers(200, 256, 3) if kind < 0.35 else first
        return Image.new("RGBA", (side, side), (*map(int, colour), 255))
    line, angle = np.linspace(0, 1, side), rng.uniform(0, 2 * np.pi)
    slope = np.cos(angle) * line[:, None] + np.sin(angle) * line[None]
    slope = ((slope - slope.min()) / np.ptp(slope))[..., None]
    return Image.fromarray((first * (1 - slope) + second * slope).astype(np.uint8)).convert("RGBA")


def scene(rng: np.random.Generator, drawings: list[Path], side: int = 512) -> Image.Image:
    """One to four drawings on a ground."""
    picture = ground(rng, side)
    for _ in range(rng.integers(1, 5)):
        with Image.open(drawings[rng.integers(len(drawings))]) as file:
            drawing = file.convert("RGBA")
        scale = rng.uniform(0.35, 1.0) * side / max(drawing.size)
        drawing = drawing.resize([max(8, int(edge * scale)) for edge in drawing.size], Image.Resampling.LANCZOS)
        place = [int(rng.integers(0, max(1, side - edge))) for edge in drawing.size]
        picture.alpha_composite(drawing, (place[0], place[1]))
    return picture.convert("RGB")


def held_out_scenes(folder: Path, count: int) -> list[Image.Image]:
    """Scenes of drawings that no network has seen, the same each time."""
    held_out = [path for path in sorted(folder.glob("*.png")) if is_held_out(path)]
    rng = np.random.default_rng(9)
    return [scene(rng, held_out) for _ in range(count)]


def crop(rng: np.random.Generator, picture: Image.Image, smallest: float, largest: float) -> Image.Image | None:
    """A square of the picture, shrunk to `SIDE`; None where the picture is too small."""
    side = int(SIDE * rng.uniform(smallest, largest))
    if min(picture.size) < side:
        return None
    left, top = rng.integers(0, picture.width - side + 1), rng.integers(0, picture.height - side + 1)
    return picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))


def photographs(folder: Path) -> list[Path]:
    """Large JPEG files below a folder, each motif once."""
    found = [path for path in sorted(folder.rglob("*.jp*g")) if path.is_file() and not path.is_symlink()]
    return [
        path for path in found if path.stat().st_size > 200_000 and not any(part in path.name for part in PORTRAITS)
    ]


def from_drawings(rng: np.random.Generator, drawings: list[Path]) -> Iterator[Image.Image]:
    """Without end: whole scenes and finer crops of them."""
    while True:
        picture = scene(rng, drawings)
        for _ in range(3):
            part = crop(rng, picture, 1.0, 2.0)
            if part is not None:
                yield part


def from_photographs(rng: np.random.Generator, files: list[Path]) -> Iterator[Image.Image]:
    """Without end, every photograph several times in a row."""
    while True:
        for index in rng.permutation(len(files)):
            with Image.open(files[index]) as file:
                file.draft("RGB", (2000, 2000))
                picture = file.convert("RGB")
            for _ in range(6):
                part = crop(rng, picture, 1.0, 3.0)
                if part is not None:
                    yield part


def from_leaves(rng: np.random.Generator) -> Iterator[Image.Image]:
    """Without end."""
    while True:
        yield Image.fromarray(dead_leaves(rng, SIDE))


def main() -> None:
    """Write pictures.npy: uint8 (count, SIDE, SIDE, 3), the kinds mixed, so that any beginning is a fair sample."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--drawings", type=Path, required=True)
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--count", type=int, default=1600)
    parser.add_argument(
        "--shares", type=float, nargs=3, default=[0.58, 0.36, 0.06], help="of drawings, photographs and dead leaves"
    )
    options = parser.parse_args()
    Image.MAX_IMAGE_PIXELS = None
    rng = np.random.default_rng(5)
    drawings = [path for path in sorted(options.drawings.glob("*.png")) if not is_held_out(path)]
    kinds = [
        from_drawings(rng, drawings),
        from_photographs(rng, photographs(options.photographs)),
        from_leaves(rng),
    ]
    shares = rng.choice(len(kinds), options.count, p=options.shares)
    pictures = np.stack([np.asarray(next(kinds[kind])) for kind in shares])
    options.work.mkdir(parents=True, exist_ok=True)
    np.save(options.work / "pictures.npy", pictures)


if __name__ == "__main__":
    main()
