"""How evenly the picture follows the denoising strength at few and at many steps; writes benchmarks/strengths.md.

python -m benchmarks.strengths --drawings DIR

With Starting noise *schedule* the first sigma is one of the schedule's own: at few steps it stays for a part of the
slider and then jumps. With *continuous* it follows the slider.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from benchmarks.quality.pictures import pictures
from lib_latent_upscale.settings import UpscaleSettings
from lib_latent_upscale.standalone.engine.engine import Engine
from lib_latent_upscale.standalone.engine.generation import GenerationSettings
from lib_latent_upscale.standalone.engine.models import load_model

STEPS = (4, 8, 20)
STARTS = ("schedule", "continuous")
STRENGTHS = tuple(round(0.05 * number, 2) for number in range(1, 20))
SIZE = 192
"""Pixels of a side of the results, twice enlarged."""
OUTPUT = Path(__file__).with_suffix(".md")
HEAD = """# The picture and the denoising strength

Written by `python -m benchmarks.strengths`. {count} held-out drawings and as many photographs, enlarged twice to
{size}x{size} pixels by the demo model with *learned* and *simple*, one seed, at denoising strengths {first} to {last}
in steps of 0.05. The change between two neighbouring strengths is the root mean square of the difference of their
pictures, in steps of 255, in the mean of all pictures. An even slider changes the picture a little everywhere.

| steps | Starting noise | first sigmas | no change at all | largest change | largest / mean |
|---|---|---|---|---|---|
"""


def made(engine: Engine, source: Image.Image, steps: int, start: str) -> Iterator[NDArray[np.float64]]:
    """One picture a strength."""
    upscale = UpscaleSettings("learned", "simple", starting_noise=start)
    asked = GenerationSettings(SIZE, SIZE, steps=steps, sampler="Euler a", cfg_scale=1, seed=1, upscale=upscale)
    for strength in STRENGTHS:
        result = engine.upscale([source], replace(asked, denoising_strength=strength))
        yield np.asarray(result.pictures[0], dtype=np.float64)


def line(engine: Engine, sources: list[Image.Image], steps: int, start: str) -> str:
    """One row of the table."""
    changes = np.mean(
        [
            [np.sqrt(np.mean((a - b) ** 2)) for a, b in pairwise(made(engine, source, steps, start))]
            for source in tqdm(sources, desc=f"{steps} steps, {start}")
        ],
        axis=0,
    )
    upscale = UpscaleSettings("learned", "simple", starting_noise=start)
    sigmas = {float(upscale.plan(steps, strength, engine.model.sigmas).run[0]) for strength in STRENGTHS}
    place = int(changes.argmax())
    between = f"{STRENGTHS[place]:g} to {STRENGTHS[place + 1]:g}"
    still = np.count_nonzero(changes == 0)
    return (
        f"| {steps} | {start} | {len(sigmas)} | {still} of {len(changes)} | {changes.max():.1f}, {between} "
        f"| {changes.max() / changes.mean():.1f} |"
    )


def main() -> None:
    """Measure every combination."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--drawings", type=Path, required=True)
    parser.add_argument("--count", type=int, default=2, help="drawings, and as many photographs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    engine = Engine(load_model("demo", device="cpu"))
    sources = [one.shrunk(2) for one in pictures(options.drawings, options.count, SIZE)]
    rows = [line(engine, sources, steps, start) for steps in STEPS for start in STARTS]
    head = HEAD.format(count=options.count, size=SIZE, first=STRENGTHS[0], last=STRENGTHS[-1])
    OUTPUT.write_text(head + "\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
