"""Two pictures: distance from the original beside crispness, and a drawing and a photograph to look at."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.quality.document import HOSTS, cell
from benchmarks.quality.evidence import Evidence
from benchmarks.quality.grid import CODED, PLAIN, Grid, pictures_of
from benchmarks.quality.pictures import KINDS, Picture
from lib_latent_upscale.comparison.metrics import plain_resize
from lib_latent_upscale.standalone.engine.engine import Engine
from lib_latent_upscale.writing import write_whole

__all__ = ["save", "sheet", "tradeoff"]

COLOURS = {
    "nearest-exact": "#0072B2",
    "bilinear": "#F0E442",
    "bicubic-antialiased": "#56B4E9",
    "lanczos": "#CC79A7",
    "bislerp": "#E69F00",
    "learned": "#D55E00",
    "learned-latent": "#009E73",
}
"""Okabe and Ito's, which colour-blind readers can tell apart, too; the others are left out, they lie beside these."""


def save(figure: Figure, path: Path) -> None:
    """Write a PNG whole and without a date; the same figure gives the same bytes."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100, metadata={"Software": None})
    write_whole(path, file.getvalue(), overwrite=True)


def tradeoff(evidence: Evidence) -> Figure:
    """PSNR and gradient energy along the denoising strengths; a panel a kind and factor."""
    mpl.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    grid = evidence.grid
    figure = Figure(figsize=(3.6 * len(grid.factors), 6.4), layout="constrained")
    axes = figure.subplots(len(KINDS), len(grid.factors), squeeze=False, sharex="row")
    for kind, row in zip(KINDS, axes, strict=True):
        for factor, panel in zip(grid.factors, row, strict=True):
            for method, colour in COLOURS.items():
                points = [_point(evidence, kind, cell(factor, s), method) for s in grid.strengths]
                panel.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=4, label=method)
            for (name, method), colour in zip(HOSTS.items(), ("black", "grey"), strict=True):
                points = [_point(evidence, kind, cell(factor, s, host=True), method) for s in grid.strengths]
                panel.plot(*zip(*points, strict=True), color=colour, marker="x", linestyle="--", label=name)
            for name, mark in ((PLAIN, "s"), (CODED, "*")):
                point = _point(evidence, kind, f"{factor:g}x", name)
                panel.plot(*point, color="black", marker=mark, linestyle="", label=name)
            panel.set_title(f"{kind}, {factor:g} times", fontsize=10)
            panel.grid(alpha=0.25)
    figure.supxlabel("gradient energy, a share of the original's (1 is as crisp)")
    figure.supylabel("PSNR against the original, dB")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False)
    return figure


def _point(evidence: Evidence, kind: str, name: str, method: str) -> tuple[float, float]:
    return evidence.mean(kind, name, method, "energy"), evidence.mean(kind, name, method, "psnr")


def sheet(grid: Grid, engine: Engine, pictures: Sequence[Picture], strength: float) -> Figure:
    """One drawing and one photograph: what they are made from, and what each way makes of them at the second factor."""
    rows = [_columns(grid, engine, next(one for one in pictures if one.kind == kind), strength) for kind in KINDS]
    figure = Figure(figsize=(1.9 * len(rows[0]), 2.15 * len(rows)), layout="constrained")
    for row, panels in zip(rows, figure.subplots(len(rows), len(rows[0]), squeeze=False), strict=True):
        for (name, picture), panel in zip(row.items(), panels, strict=True):
            panel.imshow(picture, interpolation="nearest")
            panel.set_title(name, fontsize=8)
            panel.set(xticks=[], yticks=[])
    return figure


def _columns(grid: Grid, engine: Engine, picture: Picture, strength: float) -> Mapping[str, Image.Image]:
    source = picture.shrunk(grid.factors[1])
    found = {"original": picture.image, PLAIN: plain_resize(source, picture.image.size)}
    for one in grid.cells():
        if (one.factor, one.strength) != (grid.factors[1], strength):
            continue
        if one.name == cell(one.factor, strength, host=True):
            made = pictures_of(engine, source, grid.generation(one), one.methods)
            found |= {name: made[method] for name, method in HOSTS.items()}
        elif one.name == cell(one.factor, strength):
            shown = ("nearest-exact", "bicubic-antialiased", "learned-latent", "learned")
            found |= pictures_of(engine, source, grid.generation(one), shown)
    return found
