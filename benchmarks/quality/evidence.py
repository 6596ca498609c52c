"""The figures of a grid: kept in one file, averaged over pictures, compared in pairs."""

from __future__ import annotations

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
from scipy.stats import t

from benchmarks.quality.grid import FIGURES, Grid, Values, identity
from benchmarks.quality.pictures import Picture
from lib_latent_upscale.writing import write_whole

__all__ = ["Evidence", "Mean", "Row"]

Numbers = NDArray[np.float64]
PACKAGES = ("torch", "diffusers", "scikit-image", "piq", "pillow", "numpy")


@dataclass(frozen=True)
class Mean:
    """A mean over pictures."""

    value: float
    margin: float
    """Half the width of its 95 % interval (Student's t); infinite for a single picture."""

    @classmethod
    def of(cls, values: Numbers) -> Mean:
        count = len(values)
        margin = float(t.ppf(0.975, count - 1) * values.std(ddof=1) / count**0.5) if count > 1 else float("inf")
        return cls(float(values.mean()), margin)

    @property
    def clear(self) -> bool:
        """Whether zero lies outside of the interval."""
        return abs(self.value) > self.margin


@dataclass(frozen=True)
class Row:
    """The figures of one result."""

    kind: str
    picture: str
    cell: str
    """`Cell.name`, or the factor alone where nothing was denoised."""
    method: str
    values: Values


@dataclass(frozen=True)
class Evidence:
    """All figures, and what is needed to read them."""

    grid: Grid
    rows: Sequence[Row]
    sigmas: Mapping[str, float]
    """Where the sampling of a cell begins."""
    weights: str
    """SHA-256 of all weights that took part."""
    versions: Mapping[str, str]

    @classmethod
    def collect(
        cls, grid: Grid, found: Iterable[tuple[Picture, str, str, Values]], sigmas: Mapping[str, float]
    ) -> Evidence:
        """Add what identifies the weights and this machine's packages."""
        rows = tuple(Row(picture.kind, picture.name, cell, method, values) for picture, cell, method, values in found)
        versions = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
        return cls(grid, rows, sigmas, identity(), versions)

    @cached_property
    def _found(self) -> Mapping[tuple[str, str, str], Numbers]:
        found: dict[tuple[str, str, str], list[Values]] = {}
        for row in self.rows:
            found.setdefault((row.kind, row.cell, row.method), []).append(row.values)
        return {key: np.array(values) for key, values in found.items()}

    def each(self, kind: str, cell: str, method: str, figure: str) -> Numbers:
        """A figure on each picture of a kind, in the same order each time."""
        return self._found[kind, cell, method][:, list(FIGURES).index(figure)]

    def mean(self, kind: str, cell: str, method: str, figure: str) -> float:
        return float(self.each(kind, cell, method, figure).mean())

    def gain(self, kind: str, one: tuple[str, str], beside: tuple[str, str], figure: str) -> Mean:
        """How much higher a figure is with one cell and method than with others, picture by picture."""
        return Mean.of(self.each(kind, *one, figure) - self.each(kind, *beside, figure))

    def save(self, path: Path) -> None:
        """Write the file whole; a result a line."""
        head = {
            "grid": asdict(self.grid),
            "weights": self.weights,
            "versions": self.versions,
            "figures": list(FIGURES),
            "sigmas": self.sigmas,
        }
        lines = ",\n".join(json.dumps(list(asdict(row).values()), separators=(",", ":")) for row in self.rows)
        content = f'{json.dumps(head, indent=1)[:-2]},\n "rows": [\n{lines}\n]\n}}\n'
        write_whole(path, content.encode(), overwrite=True)

    @classmethod
    def load(cls, path: Path) -> Evidence:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        options: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content["grid"].items()}
        rows = tuple(Row(*values) for values in content["rows"])
        return cls(Grid(**options), rows, content["sigmas"], content["weights"], content["versions"])
