"""The figures of a grid: kept in one file, averaged over photographs, compared in pairs, ranked."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata, t

from benchmarks.quality.grid import FIGURES, Cell, Grid, Reference, Values
from lib_latent_upscale.comparison.variants import HOST_DEFAULT
from lib_latent_upscale.settings import UpscaleSettings
from lib_latent_upscale.standalone.engine.models import DEMO_FILE
from lib_latent_upscale.standalone.files.images import written_whole

__all__ = ["MEASURES", "Evidence", "Mean", "Measure", "Variant", "ranks"]

Numbers = NDArray[np.float64]
PACKAGES = ("torch", "diffusers", "scikit-image", "piq", "pillow", "numpy")


@dataclass(frozen=True)
class Variant:
    """One way to enlarge, at one denoising strength."""

    strength: float
    schedule: str = UpscaleSettings().scheduler
    method: str = UpscaleSettings().method
    kind: str = "exact"
    """`exact` steps, `matched` noise (with exact steps), or the WebUI's `default` cut."""

    @property
    def name(self) -> str:
        return f"{self.method} + {self.schedule}"

    @classmethod
    def host(cls, strength: float) -> Variant:
        """The WebUI's default."""
        return cls(strength, HOST_DEFAULT.scheduler, HOST_DEFAULT.method, "default")


@dataclass(frozen=True)
class Measure:
    """A figure as it is shown."""

    figure: str
    """A name in `FIGURES`, or `detail`."""
    title: str
    digits: int
    best: int
    """1: higher is better, -1: lower is better."""


MEASURES = (
    Measure("psnr", "PSNR, dB", 2, 1),
    Measure("ssim", "SSIM", 3, 1),
    Measure("gmsd", "GMSD", 4, -1),
    Measure("detail", "sharpness", 2, 1),
    Measure("faithful_psnr", "faithful, dB", 2, 1),
    Measure("faithful_ssim", "faithful SSIM", 3, 1),
    Measure("colour_shift", "colour shift", 2, -1),
)
"""The columns of the tables. `detail` is the gradient energy as a share of the original's; nothing in this experiment
comes near 1, so more is nearer."""


@dataclass(frozen=True)
class Mean:
    """A mean over photographs."""

    value: float
    margin: float
    """Half the width of its 95 % interval (Student's t over the photographs)."""
    above: int
    """Photographs with a value above zero."""
    count: int

    @classmethod
    def of(cls, values: Numbers) -> Mean:
        """Of one value a photograph; a single photograph has an infinite margin."""
        count = len(values)
        margin = float("inf")
        if count > 1:
            margin = float(t.ppf(0.975, count - 1) * values.std(ddof=1) / count**0.5)
        return cls(float(values.mean()), margin, int((values > 0).sum()), count)

    @property
    def clear(self) -> bool:
        """Whether zero lies outside of the interval."""
        return abs(self.value) > self.margin


def ranks(table: Numbers, best: int) -> Numbers:
    """Ranks of the variants (rows) on each photograph (columns); 1 is the best, equal ones share theirs."""
    result: Numbers = rankdata(-best * table, axis=0)
    return result


@dataclass(frozen=True)
class Run:
    """A finished cell."""

    photograph: str
    seed: int
    strength: float
    kind: str
    schedule: str
    sigma: float
    """Where the sampling started."""
    steps: int
    """How many steps ran."""
    figures: Mapping[str, Values]
    """By method."""

    @classmethod
    def of(cls, cell: Cell, sigmas: Sequence[float], figures: Mapping[str, Values]) -> Run:
        return cls(
            cell.photograph,
            cell.seed,
            cell.strength,
            cell.kind,
            cell.upscale.scheduler,
            round(sigmas[0], 4),
            len(sigmas) - 1,
            figures,
        )


@dataclass(frozen=True)
class Evidence:
    """All figures of a grid, and what is needed to read them."""

    grid: Grid
    twins: Mapping[str, Sequence[str]]
    """Methods that were not run, by the method that gives the same."""
    references: Mapping[str, Reference]
    runs: Sequence[Run]
    model: str
    """SHA-256 of the demo model's file."""
    versions: Mapping[str, str]

    @classmethod
    def collect(cls, grid: Grid, references: Mapping[str, Reference], runs: Iterable[Run]) -> Evidence:
        """Add what identifies this machine's packages and model."""
        model = hashlib.sha256(DEMO_FILE.read_bytes()).hexdigest()
        versions = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
        return cls(grid, grid.twins, references, tuple(runs), model, versions)

    @cached_property
    def _values(self) -> Mapping[Variant, Mapping[str, Numbers]]:
        """By variant and photograph the mean over the seeds: the values of `FIGURES`, then `detail`."""
        found: dict[Variant, dict[str, list[Values]]] = {}
        sharpness = FIGURES.index("sharpness")
        for run in self.runs:
            original = self.references[run.photograph].sharpness
            for method, values in run.figures.items():
                variant = Variant(run.strength, run.schedule, method, run.kind)
                of_photograph = found.setdefault(variant, {}).setdefault(run.photograph, [])
                of_photograph.append([*values, values[sharpness] / original])
        return {
            variant: {photograph: np.mean(values, axis=0) for photograph, values in by_photograph.items()}
            for variant, by_photograph in found.items()
        }

    def each(self, variant: Variant, figure: str) -> Numbers:
        """A figure of a variant on each photograph."""
        column = [*FIGURES, "detail"].index(figure)
        return np.array([self._values[variant][photograph][column] for photograph in self.grid.photographs])

    def mean(self, variant: Variant, figure: str) -> Mean:
        return Mean.of(self.each(variant, figure))

    def reference(self, kind: str, figure: str) -> Mean:
        """A figure of `plain` or `coded`, what the photographs' figures are read beside."""
        column = FIGURES.index("sharpness" if figure == "detail" else figure)
        references = [self.references[photograph] for photograph in self.grid.photographs]
        values = np.array([getattr(reference, kind)[column] for reference in references])
        originals = np.array([reference.sharpness for reference in references])
        return Mean.of(values / originals if figure == "detail" else values)

    def gain(self, variant: Variant, beside: Variant, figure: str) -> Mean:
        """How much higher a figure is than another variant's, photograph by photograph."""
        return Mean.of(self.each(variant, figure) - self.each(beside, figure))

    def variants(self, strength: float) -> list[Variant]:
        """All methods with all schedules, exact steps."""
        return [Variant(strength, schedule, method) for schedule in self.grid.schedules for method in self.grid.methods]

    def rank(self, variant: Variant, measure: Measure) -> tuple[float, float]:
        """Mean and standard deviation, over photographs, of a variant's rank among all of its strength."""
        variants = self.variants(variant.strength)
        placed = ranks(np.array([self.each(other, measure.figure) for other in variants]), measure.best)
        mine = placed[variants.index(variant)]
        return float(mine.mean()), float(mine.std(ddof=1))

    def best(self, strength: float, measure: Measure) -> Variant:
        """The variant with the best mean."""
        return max(self.variants(strength), key=lambda variant: self._score(variant, measure))

    def place(self, variant: Variant, measure: Measure) -> int:
        """A variant's place by its mean among all of its strength; 1 is the best."""
        others = self.variants(variant.strength)
        return 1 + sum(self._score(other, measure) > self._score(variant, measure) for other in others)

    def _score(self, variant: Variant, measure: Measure) -> float:
        return measure.best * self.mean(variant, measure.figure).value

    def sigma(self, variant: Variant) -> float:
        """Where the sampling of a variant starts."""
        return next(run.sigma for run in self.runs if _is_of(run, variant))

    def steps(self, variant: Variant) -> int:
        """How many steps of a variant run."""
        return next(run.steps for run in self.runs if _is_of(run, variant))

    def seed_spread(self, figure: str) -> tuple[float, float]:
        """Standard deviations of a figure between seeds and between photographs, of what ran with every seed."""
        column = FIGURES.index(figure)
        found: dict[tuple[object, ...], list[float]] = {}
        for run in self.runs:
            for method, values in run.figures.items():
                key = (run.photograph, run.strength, run.kind, run.schedule, method)
                found.setdefault(key, []).append(values[column])
        pairs = np.array([values for values in found.values() if len(values) == len(self.grid.seeds)])
        return float(np.sqrt(pairs.var(axis=1, ddof=1).mean())), float(pairs.mean(axis=1).std(ddof=1))

    def save(self, path: Path) -> None:
        """Write the file whole; a cell a line."""
        head = {
            "grid": asdict(self.grid),
            "twins": self.twins,
            "model": self.model,
            "versions": self.versions,
            "figures": FIGURES,
            "references": {name: asdict(reference) for name, reference in self.references.items()},
        }
        lines = ",\n".join(json.dumps(list(asdict(run).values()), separators=(",", ":")) for run in self.runs)
        with written_whole(path) as part:
            part.write_text(f'{json.dumps(head, indent=1)[:-2]},\n "runs": [\n{lines}\n]\n}}\n', encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Evidence:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        options: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content["grid"].items()}
        references = {name: Reference(**values) for name, values in content["references"].items()}
        runs = tuple(Run(*values) for values in content["runs"])
        return cls(Grid(**options), content["twins"], references, runs, content["model"], content["versions"])


def _is_of(run: Run, variant: Variant) -> bool:
    same = (run.strength, run.kind, run.schedule) == (variant.strength, variant.kind, variant.schedule)
    return same and variant.method in run.figures
