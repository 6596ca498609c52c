"""Measure every method and write docs/evidence-learned.md.

python -m benchmarks.learned --taesd DIR --drawings DIR --kodak DIR
python -m benchmarks.learned ... --families sd1 --factors 2 --count 8 --output /somewhere/else.md --montage look.png
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from benchmarks.learned.methods import CEILING, CELL, FIGURES, METHODS, Case, figures
from lib_latent_upscale.learned import FAMILIES
from lib_latent_upscale.learned.upscalers import knows
from lib_latent_upscale.methods import method_named
from tools.learned import taesd
from tools.learned.pictures import held_out_scenes

ROOT = Path(__file__).resolve().parents[2]
Rows = dict[str, list[dict[str, float]]]
DIGITS = {"PSNR": 2, "SSIM": 3, "GMSD": 3, "gradient energy": 2, "colour": 1, "latent distance": 3}
TITLES = {"drawings": "Drawings", "kodak": "Photographs (Kodak)"}


def photographed(folder: Path, count: int) -> list[Image.Image]:
    """The middle of each photograph."""
    pictures = []
    for path in sorted(folder.glob("*.png"))[:count]:
        with Image.open(path) as file:
            picture = file.convert("RGB")
        left, top = (picture.width - 512) // 2, (picture.height - 512) // 2
        pictures.append(picture.crop((left, top, left + 512, top + 512)))
    return pictures


def case(original: Image.Image, factor: float, family: str, networks: Sequence[torch.nn.Module]) -> Case:
    """Sides are cut so that large and small ones are whole cells."""
    cells = 512 // CELL
    small = next(
        n for n in range(round(cells / factor), 0, -1) if float(n * factor).is_integer() and n * factor <= cells
    )
    large = int(small * factor) * CELL
    cut = original.crop((0, 0, large, large))
    reduced = cut.resize((small * CELL, small * CELL), Image.Resampling.LANCZOS)
    return Case(cut, reduced, factor, family, networks[0], networks[1])


def measured(one: Case) -> Iterator[tuple[str, dict[str, float], Image.Image]]:
    """Name, figures and picture of every method that knows these latents."""
    true = METHODS[CEILING](one)
    ceiling = one.decode(true)
    for name, method in METHODS.items():
        network = "" if name == CEILING else method_named(name).network
        if network and not knows(network, one.family):
            continue
        latent = true if name == CEILING else method(one)
        picture = ceiling if name == CEILING else one.decode(latent)
        distance = (latent - true).abs().mean().item()
        yield name, {**figures(one, picture, ceiling), "latent distance": distance}, picture


def table(rows: Rows) -> str:
    """Means and half the width of their 95 % intervals."""
    lines = [f"| | {' | '.join(FIGURES)} |", f"|---{'|---' * len(FIGURES)}|"]
    for name, found in rows.items():
        cells = []
        for figure in FIGURES:
            values = np.array([one[figure] for one in found])
            half = 1.96 * values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
            cells.append(f"{values.mean():.{DIGITS[figure]}f} ± {half:.{DIGITS[figure]}f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def montage(columns: Mapping[str, list[Image.Image]], path: Path) -> None:
    """Crops of the results side by side, a line a picture."""
    side = 200
    names = list(columns)
    sheet = Image.new("RGB", (side * len(names), 16 + side * len(columns[names[0]])), "white")
    draw = ImageDraw.Draw(sheet)
    for column, name in enumerate(names):
        draw.text((column * side + 2, 2), name, fill="black")
        for row, picture in enumerate(columns[name]):
            sheet.paste(picture.crop((150, 150, 150 + side, 150 + side)), (column * side, 16 + row * side))
    sheet.save(path)


def document(record: Mapping[str, Rows]) -> str:
    """All tables, in the order of families, factors and kinds."""
    template = Path(__file__).with_name("template.md").read_text(encoding="utf-8")
    parts = []
    for key in sorted(record, key=_place):
        family, factor, kind = key.split()
        count = len(record[key][CEILING])
        title = f"### {FAMILIES[family].title}, {factor} times: {TITLES[kind]} ({count})"
        parts.append(f"{title}\n\n{table(record[key])}\n")
    return template.replace("{tables}", "\n".join(parts))


def _place(key: str) -> tuple[int, float, str]:
    family, factor, kind = key.split()
    return list(FAMILIES).index(family), float(factor), kind


def main() -> None:
    """Measure and write; what was measured before and is not asked for now stays."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("taesd", "drawings", "kodak"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=list(FAMILIES))
    parser.add_argument("--factors", nargs="+", type=float, default=[1.25, 1.5, 2.0, 3.0])
    parser.add_argument("--count", type=int, default=8, help="pictures of each kind")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "evidence-learned.md")
    parser.add_argument("--montage", type=Path, help="a PNG with crops of the last family and factor")
    options = parser.parse_args()
    torch.set_num_threads(1)
    kinds = {
        "drawings": held_out_scenes(options.drawings, options.count),
        "kodak": photographed(options.kodak, options.count),
    }
    figures_file = options.output.with_suffix(".json")
    record: dict[str, Rows] = json.loads(figures_file.read_text()) if figures_file.exists() else {}
    shown: dict[str, list[Image.Image]] = {}
    for family in options.families:
        networks = taesd.load(options.taesd, family)
        for factor in options.factors:
            shown = {}
            for kind, pictures in kinds.items():
                rows: Rows = {}
                for original in pictures:
                    one = case(original, factor, family, networks)
                    shown.setdefault("original", []).append(one.original)
                    for name, found, picture in measured(one):
                        rows.setdefault(name, []).append(found)
                        shown.setdefault(name, []).append(picture)
                record[f"{family} {factor:g} {kind}"] = rows
    figures_file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    options.output.write_text(document(record), encoding="utf-8")
    if options.montage:
        montage(shown, options.montage)


if __name__ == "__main__":
    main()
