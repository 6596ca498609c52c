"""The README's picture: a drawing and a photograph, enlarged twice without denoising, in several ways.

python -m benchmarks.learned.picture --taesd DIR --drawing FILE.png --output assets/learned.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import skimage.data
import torch
from PIL import Image

from benchmarks.learned.__main__ import case
from benchmarks.learned.methods import METHODS, Case
from lib_latent_upscale.comparison.sheet import Panel, make_sheet
from tools.learned import taesd

SIDE = 512
SHOWN = {
    "bilinear": "WebUI, latent upscale",
    "nearest-exact": "nearest-exact",
    "pixels": "WebUI, Just resize",
    "learned": "Latent Upscale, learned",
}
CROPS = [(150, 190, 270, 310)]


def drawing(path: Path) -> Image.Image:
    """A drawing with transparency, on paper, in the middle of a square."""
    with Image.open(path) as file:
        picture = file.convert("RGBA")
    picture.thumbnail((SIDE - 32, SIDE - 32), Image.Resampling.LANCZOS)
    paper = Image.new("RGBA", (SIDE, SIDE), "white")
    paper.alpha_composite(picture, ((SIDE - picture.width) // 2, (SIDE - picture.height) // 2))
    return paper.convert("RGB")


def photograph() -> Image.Image:
    """Eileen Collins, NASA, public domain."""
    return Image.fromarray(skimage.data.astronaut())


def row(one: Case, title: str, crops: list[tuple[int, int, int, int]]) -> Image.Image:
    """One picture in all ways."""
    panels = [Panel(said, one.decode(METHODS[name](one)), highlight=name == "learned") for name, said in SHOWN.items()]
    panels.append(Panel("Original", one.original))
    return make_sheet(panels, crops, title=title, column_width=300)


def main() -> None:
    """Draw both rows below each other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--taesd", type=Path, required=True)
    parser.add_argument("--drawing", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    networks = taesd.load(options.taesd, "sd1")
    rows = [
        row(case(drawing(options.drawing), 2.0, "sd1", networks), "256 to 512 pixels, no denoising at all", CROPS),
        row(case(photograph(), 2.0, "sd1", networks), "", [(160, 60, 290, 190)]),
    ]
    sheet = Image.new("RGB", (rows[0].width, sum(one.height for one in rows)), "white")
    sheet.paste(rows[0], (0, 0))
    sheet.paste(rows[1], (0, rows[0].height))
    sheet.save(options.output)


if __name__ == "__main__":
    main()
