"""What is run, and running it: one file per finished cell, so that a stopped run goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

from benchmarks.quality.pictures import Picture
from lib_latent_upscale.comparison.metrics import Metrics, measure, plain_resize
from lib_latent_upscale.comparison.variants import HOST_DEFAULT, HOST_PIXELS
from lib_latent_upscale.learned.upscalers import WEIGHTS
from lib_latent_upscale.schedules import SCHEDULES
from lib_latent_upscale.settings import STARTS, UpscaleSettings
from lib_latent_upscale.standalone.engine.engine import Engine
from lib_latent_upscale.standalone.engine.generation import GenerationSettings
from lib_latent_upscale.standalone.engine.geometry import Fit
from lib_latent_upscale.standalone.engine.models import DEMO_FILE
from lib_latent_upscale.writing import write_whole

__all__ = ["CODED", "FIGURES", "PLAIN", "Cell", "Grid", "Values", "figures_of", "identity", "pictures_of", "run_grid"]

FIGURES = {"psnr": 3, "ssim": 4, "gmsd": 5, "energy": 4, "faithful_psnr": 3, "colour_shift": 3}
"""What is kept of each result, with its digits: the first three against the original, then the gradient energy as a
share of the original's, PSNR of the result shrunk again against what it was made from, and that pair's CIEDE2000."""
PLAIN, CODED = "plain resize", "original through the autoencoder"
"""What the other figures are read beside."""

Values = list[float]
"""The values of `FIGURES`."""


@dataclass(frozen=True)
class Cell:
    """What is run together: the methods share the picture, the noise and the schedule."""

    factor: float
    strength: float
    upscale: UpscaleSettings
    """All but the method."""
    methods: tuple[str, ...]

    @property
    def name(self) -> str:
        upscale = self.upscale
        cut = upscale.starting_noise if upscale.exact_steps else "host"
        return f"{self.factor:g}x {self.strength:g} {upscale.scheduler} {cut}"


@dataclass(frozen=True)
class Grid:
    """A whole experiment, run on every picture."""

    methods: tuple[str, ...] = (
        *("nearest-exact", "bilinear", "bicubic", "bicubic-antialiased", "lanczos", "bislerp"),
        *("pixels", "learned", "learned-latent"),
    )
    factors: tuple[float, ...] = (1.5, 2, 3)
    strengths: tuple[float, ...] = (0.1, 0.2, 0.3, 0.5, 0.7)
    schedules: tuple[str, ...] = tuple(name for name in SCHEDULES if name != "polyexponential")
    """All but one: with its own rho of 1 polyexponential is exponential."""
    scheduled: tuple[str, ...] = ("nearest-exact", "learned")
    """The methods that are run with every schedule and starting noise, at `middle` and the second factor."""
    middle: float = 0.3
    size: int = 288
    """Pixels of a side of the originals: whole latent cells after every factor."""
    count: int = 4
    """Pictures of each kind."""
    steps: int = 10

    def cells(self) -> Iterator[Cell]:
        """All cells of a picture."""
        ours = UpscaleSettings("nearest-exact", "simple", starting_noise="schedule")
        for factor in self.factors:
            for strength in self.strengths:
                yield Cell(factor, strength, HOST_DEFAULT, (HOST_DEFAULT.method, HOST_PIXELS.method))
                yield Cell(factor, strength, ours, self.methods)
        for start in STARTS:
            for schedule in self.schedules:
                if (schedule, start) != ("simple", "schedule"):
                    upscale = replace(ours, scheduler=schedule, starting_noise=start)
                    yield Cell(self.factors[1], self.middle, upscale, self.scheduled)

    def generation(self, cell: Cell) -> GenerationSettings:
        """The settings of a cell. Without prompts guidance changes nothing, so it is left out: half the work."""
        return GenerationSettings(
            self.size,
            self.size,
            steps=self.steps,
            cfg_scale=1,
            seed=1,
            denoising_strength=cell.strength,
            upscale=cell.upscale,
        )


def identity() -> str:
    """The SHA-256 of all weights that take part."""
    digest = hashlib.sha256(DEMO_FILE.read_bytes())
    for path in sorted(WEIGHTS.glob("*-sd1.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def figures_of(picture: Image.Image, source: Image.Image, original: Image.Image) -> Values:
    """The values of `FIGURES`."""
    found, true = measure(picture, source, reference=original), measure(original, source)
    return _rounded(found, found.sharpness / true.sharpness)


def _rounded(found: Metrics, energy: float) -> Values:
    reference = found.reference
    if reference is None or reference.gmsd is None:
        raise SystemExit("piq is needed for GMSD: pip install -e '.[standalone]'")
    values = (reference.psnr, reference.ssim, reference.gmsd, energy, found.faithful_psnr, found.colour_shift)
    return [round(value, digits) for value, digits in zip(values, FIGURES.values(), strict=True)]


def run_grid(
    engine: Engine, grid: Grid, pictures: Sequence[Picture], folder: Path
) -> Iterator[tuple[Picture, str, str, Values]]:
    """Picture, cell's name (or none), method and figures; what lies in `folder` is not run again."""
    place = folder / identity()[:12]
    place.mkdir(parents=True, exist_ok=True)
    cells = list(grid.cells())
    with tqdm(total=sum(len(cell.methods) for cell in cells) * len(pictures), unit="picture") as bar:
        for cell in cells:
            for picture in pictures:
                path = place / f"{picture.name} {cell.name}.json".replace(" ", "_")
                if not path.exists():
                    found = _figures(engine, grid, cell, picture)
                    write_whole(path, json.dumps(found).encode(), overwrite=True)
                bar.update(len(cell.methods))
                for method, values in json.loads(path.read_text(encoding="utf-8")).items():
                    yield picture, cell.name, method, values
    for picture in pictures:
        for factor in grid.factors:
            source = picture.shrunk(factor)
            for name, image in (
                (PLAIN, plain_resize(source, picture.image.size)),
                (CODED, _coded(engine, picture.image)),
            ):
                yield picture, f"{factor:g}x", name, figures_of(image, source, picture.image)


def _figures(engine: Engine, grid: Grid, cell: Cell, picture: Picture) -> dict[str, Values]:
    source = picture.shrunk(cell.factor)
    made = pictures_of(engine, source, grid.generation(cell), cell.methods)
    return {name: figures_of(image, source, picture.image) for name, image in made.items()}


def pictures_of(
    engine: Engine, source: Image.Image, generation: GenerationSettings, methods: Sequence[str]
) -> Mapping[str, Image.Image]:
    """One picture a method, as `Engine.upscale` makes them one by one; sampled and decoded as one batch.

    The batch's latents have the target's size already, which the engine's own interpolation leaves as they are.
    """
    prepared, enlarged = engine.prepare([source], generation), []
    for method in methods:
        asked = replace(generation, upscale=replace(generation.upscale, method=method))
        enlarged.append(engine.enlarged_latent(prepared, asked))
    batch = replace(prepared, latent=torch.cat(enlarged), fit=Fit(prepared.fit.target, prepared.fit.target))
    return dict(zip(methods, engine.run(batch, generation).pictures, strict=True))


def _coded(engine: Engine, picture: Image.Image) -> Image.Image:
    """Through the autoencoder and back: no step runs at denoising strength 0."""
    return engine.upscale([picture], GenerationSettings(*picture.size, denoising_strength=0)).pictures[0]
