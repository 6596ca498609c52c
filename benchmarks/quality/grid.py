"""What is run, and running it: one file per finished cell, so that a stopped run goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from benchmarks.quality.photographs import PHOTOGRAPHS, original, shrunk
from lib_latent_upscale.comparison.metrics import Metrics, measure, plain_resize
from lib_latent_upscale.comparison.variants import HOST_DEFAULT
from lib_latent_upscale.interpolation import INTERPOLATIONS, interpolate_latent
from lib_latent_upscale.schedules import SCHEDULES
from lib_latent_upscale.settings import UpscaleSettings
from lib_latent_upscale.standalone.engine.engine import Engine
from lib_latent_upscale.standalone.engine.generation import GenerationSettings
from lib_latent_upscale.standalone.engine.geometry import Fit
from lib_latent_upscale.standalone.engine.models import DEMO_FILE
from lib_latent_upscale.standalone.files.images import written_whole

__all__ = [
    "DEFAULT",
    "FIGURES",
    "QUICK",
    "WHOLE",
    "Cell",
    "Grid",
    "Reference",
    "Values",
    "coded",
    "flat",
    "pictures_of",
    "references",
    "run_grid",
]

DEFAULT = UpscaleSettings()
FIGURES = ("psnr", "ssim", "gmsd", "sharpness", "faithful_psnr", "faithful_ssim", "colour_shift")
"""What is kept of `Metrics`, in this order; the first three are against the original."""
_DIGITS = (3, 4, 5, 4, 3, 4, 3)

Values = list[float]
"""The values of `FIGURES`."""


@dataclass(frozen=True)
class Reference:
    """What the figures of a photograph are read beside."""

    sharpness: float
    """Of the original, as a multiple of the plain resize's."""
    plain: Values
    """Of the plain resize."""
    coded: Values
    """Of the original itself, encoded and decoded: the most that this autoencoder can give."""


@dataclass(frozen=True)
class Cell:
    """What is run together: the methods share picture, noise and schedule."""

    photograph: str
    seed: int
    strength: float
    upscale: UpscaleSettings
    """All but the method."""
    methods: tuple[str, ...]

    @property
    def kind(self) -> str:
        """How the noise was chosen: matched, exact steps, or the WebUI's default cut."""
        return "matched" if self.upscale.matched_noise else "exact" if self.upscale.exact_steps else "default"

    @property
    def file(self) -> str:
        return f"{self.photograph}-{self.seed}-{self.strength}-{self.kind}-{self.upscale.scheduler}.json"


@dataclass(frozen=True)
class Grid:
    """A whole experiment."""

    photographs: tuple[str, ...] = tuple(photograph.name for photograph in PHOTOGRAPHS)
    strengths: tuple[float, ...] = (0.2, 0.3, 0.5, 0.7)
    middle: float = 0.5
    """The denoising strength at which matched noise and the further seeds are run, too."""
    schedules: tuple[str, ...] = tuple(name for name in SCHEDULES if name != "polyexponential")
    """All but one: with its own rho of 1 polyexponential is exponential."""
    size: int = 192
    """Pixels of a side of the originals; they are shrunk to half of it and enlarged again."""
    steps: int = 10
    seeds: tuple[int, ...] = (1, 2)
    """The first runs everything; the others, at `middle`, what differs from the default in one thing only."""

    def cells(self) -> Iterator[Cell]:
        """All cells, those first that matter most. At denoising strength 0 no step runs: the interpolation alone."""
        first, *others = self.seeds
        for photograph in self.photographs:
            yield Cell(photograph, first, 0.0, DEFAULT, self.methods)
        for strength in self.strengths:
            yield from self._across(first, strength, matched=False, crossed=False)
        yield from self._across(first, self.middle, matched=True, crossed=False)
        for seed in others:
            yield from self._across(seed, self.middle, matched=False, crossed=True)

    def _across(self, seed: int, strength: float, *, matched: bool, crossed: bool) -> Iterator[Cell]:
        for photograph in self.photographs:
            if not matched:
                yield Cell(photograph, seed, strength, HOST_DEFAULT, (HOST_DEFAULT.method,))
            for schedule in self.schedules:
                few = crossed and schedule != DEFAULT.scheduler
                upscale = replace(DEFAULT, scheduler=schedule, matched_noise=matched)
                yield Cell(photograph, seed, strength, upscale, (DEFAULT.method,) if few else self.methods)

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that differ at twice the size; of several that are the same, the default or the first."""
        return tuple(sorted(self.twins, key=list(INTERPOLATIONS).index))

    @cached_property
    def twins(self) -> Mapping[str, Sequence[str]]:
        """Each method that is run, and those that give the same latents but for rounding, so are not."""
        latent = torch.randn(1, 4, self.size // 16, self.size // 16, generator=torch.Generator().manual_seed(0))
        made: dict[str, Tensor] = {}
        twins: dict[str, list[str]] = {}
        for name in sorted(INTERPOLATIONS, key=lambda name: name != DEFAULT.method):
            result = interpolate_latent(latent, (self.size // 8, self.size // 8), name)
            twin = next((other for other, values in made.items() if torch.allclose(values, result, atol=1e-5)), None)
            if twin is None:
                made[name], twins[name] = result, []
            else:
                twins[twin].append(name)
        return twins

    def generation(self, cell: Cell) -> GenerationSettings:
        """The settings of a cell. Without prompts guidance changes nothing, so it is left out: half the work."""
        return GenerationSettings(
            self.size,
            self.size,
            steps=self.steps,
            cfg_scale=1,
            seed=cell.seed,
            denoising_strength=cell.strength,
            upscale=cell.upscale,
        )

    def identity(self) -> str:
        """A name for what decides a cell's figures besides the cell itself: the model, the size and the steps."""
        model = hashlib.sha256(DEMO_FILE.read_bytes()).hexdigest()
        return f"{self.size}-{self.steps}-{model[:12]}"


WHOLE = Grid()
QUICK = Grid(("coffee", "camera"), schedules=("simple", "karras", "exponential", "linear_quadratic"), seeds=(1,))


def flat(figures: Metrics) -> Values:
    """The values of `FIGURES`, rounded to what the eye and the file want."""
    plain: Mapping[str, Any] = {**figures.to_dict(), **asdict(figures)["reference"]}
    return [round(plain[name], digits) for name, digits in zip(FIGURES, _DIGITS, strict=True)]


def run_grid(engine: Engine, grid: Grid, folder: Path) -> Iterator[tuple[Cell, dict[str, Values]]]:
    """Each cell with the figures of each of its methods; what lies in `folder` is not run again."""
    place = folder / grid.identity()
    place.mkdir(parents=True, exist_ok=True)
    cells = list(grid.cells())
    missing = [cell for cell in cells if not _finished(place / cell.file, cell)]
    with tqdm(total=sum(len(cell.methods) for cell in missing), unit="picture", disable=not missing) as bar:
        for cell in missing:
            bar.set_postfix_str(cell.file.removesuffix(".json"))
            found = _figures(engine, grid, cell)
            with written_whole(place / cell.file) as part:
                part.write_text(json.dumps(found), encoding="utf-8")
            bar.update(len(cell.methods))
    for cell in cells:
        yield cell, json.loads((place / cell.file).read_text(encoding="utf-8"))


def _finished(path: Path, cell: Cell) -> bool:
    """Whether the file is there and was written when the cell had the same methods."""
    return path.exists() and tuple(json.loads(path.read_text(encoding="utf-8"))) == cell.methods


def _figures(engine: Engine, grid: Grid, cell: Cell) -> dict[str, Values]:
    truth = original(cell.photograph, grid.size)
    pictures = pictures_of(engine, shrunk(truth), grid.generation(cell), cell.methods)
    return {name: flat(measure(picture, shrunk(truth), reference=truth)) for name, picture in pictures.items()}


def pictures_of(
    engine: Engine, source: Image.Image, generation: GenerationSettings, methods: Sequence[str]
) -> dict[str, Image.Image]:
    """One picture a method, as `Engine.upscale` makes them one by one; sampled and decoded as one batch.

    The batch's latents have the target's size already, which the engine's own interpolation leaves as they are.
    """
    prepared = engine.prepare([source], generation)
    upscales = [replace(generation, upscale=replace(generation.upscale, method=method)) for method in methods]
    enlarged = torch.cat([engine.enlarged_latent(prepared, upscale) for upscale in upscales])
    batch = replace(prepared, latent=enlarged, fit=Fit(prepared.fit.target, prepared.fit.target))
    return dict(zip(methods, engine.run(batch, generation).pictures, strict=True))


def coded(engine: Engine, picture: Image.Image) -> Image.Image:
    """A picture through the autoencoder and back: no step runs at denoising strength 0."""
    return engine.upscale([picture], GenerationSettings(*picture.size, denoising_strength=0)).pictures[0]


def references(engine: Engine, grid: Grid) -> dict[str, Reference]:
    """By photograph: what its figures are read beside."""
    return {name: _reference(engine, original(name, grid.size)) for name in grid.photographs}


def _reference(engine: Engine, truth: Image.Image) -> Reference:
    source = shrunk(truth)
    plain = plain_resize(source, truth.size)
    return Reference(
        measure(truth, source).sharpness,
        flat(measure(plain, source, reference=truth)),
        flat(measure(coded(engine, truth), source, reference=truth)),
    )
