"""Three pictures: distance from the original beside sharpness, the schedules, and one photograph to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.quality.evidence import Evidence, Mean, Variant
from benchmarks.quality.grid import DEFAULT, coded, pictures_of
from benchmarks.quality.photographs import original, shrunk
from lib_latent_upscale.comparison.metrics import plain_resize
from lib_latent_upscale.comparison.variants import HOST_DEFAULT
from lib_latent_upscale.standalone.engine.engine import Engine
from lib_latent_upscale.standalone.files.images import written_whole

__all__ = ["METHOD_COLOURS", "save", "schedules_plot", "sheet", "tradeoff_plot"]

METHOD_COLOURS = {
    "nearest-exact": "#0072B2",
    "bilinear": "#D55E00",
    "bicubic": "#009E73",
    "bicubic-antialiased": "#56B4E9",
    "lanczos": "#CC79A7",
    "bislerp": "#E69F00",
}
"""Okabe and Ito's colours, which colour-blind people can tell apart."""
OUTSIDE = "linear_quadratic"
"""It starts from nearly pure noise at any denoising strength, and its points would squeeze all others together."""
METHOD_MARKS = dict(zip(METHOD_COLOURS, "osD^vP", strict=True))
"""A mark of its own for each method, too."""


def save(figure: Figure, path: Path) -> None:
    """Write a PNG whole and without a date; the same figure gives the same bytes."""
    with written_whole(path) as part:
        figure.savefig(part, dpi=110, metadata={"Software": None})


def _figure(width: float, height: float, rows: int, columns: int, **options: Any) -> tuple[Figure, Any]:
    mpl.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def tradeoff_plot(evidence: Evidence) -> Figure:
    """PSNR and sharpness of every method with every schedule, a panel a denoising strength."""
    strengths = evidence.grid.strengths
    figure, axes = _figure(3.1 * len(strengths), 4.4, 1, len(strengths), sharex=True, sharey=True)
    for strength, panel in zip(strengths, axes[0], strict=True):
        for method in evidence.grid.methods:
            _scatter(panel, evidence, [v for v in evidence.variants(strength) if v.method == method])
        _mark(panel, evidence, Variant(strength), "default of this project", marker="o", s=150)
        _mark(panel, evidence, Variant.host(strength), "default of the WebUI", marker="X", s=90)
        panel.set_title(f"denoising strength {strength:g}", fontsize=11)
        panel.set_xlabel("sharpness, share of the original's")
        panel.grid(alpha=0.25)
    _frame(axes[0][0], [_point(evidence, v) for s in strengths for v in evidence.variants(s) if v.schedule != OUTSIDE])
    axes[0][0].set_ylabel("PSNR against the original, dB")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def _point(evidence: Evidence, variant: Variant) -> tuple[float, float]:
    return evidence.mean(variant, "detail").value, evidence.mean(variant, "psnr").value


def _frame(panel: Any, points: Sequence[tuple[float, float]]) -> None:
    """Limits that hold these points, with a margin."""
    (left, right), (bottom, top) = ((min(values), max(values)) for values in zip(*points, strict=True))
    across, up = 0.1 * (right - left), 0.1 * (top - bottom)
    panel.set(xlim=(left - across, right + across), ylim=(bottom - up, top + up))


def _scatter(panel: Any, evidence: Evidence, variants: list[Variant]) -> None:
    method = variants[0].method
    points = [_point(evidence, variant) for variant in variants]
    options = {"color": METHOD_COLOURS[method], "marker": METHOD_MARKS[method], "alpha": 0.75, "linewidths": 0}
    panel.scatter(*zip(*points, strict=True), s=26, label=method, **options)


def _mark(panel: Any, evidence: Evidence, variant: Variant, label: str, **options: Any) -> None:
    face = "none" if options["marker"] == "o" else "black"
    options |= {"label": label, "facecolors": face, "edgecolors": "black", "linewidths": 1.4, "zorder": 3}
    panel.scatter(*_point(evidence, variant), **options)


def schedules_plot(evidence: Evidence, strength: float) -> Figure:
    """PSNR over the first sigma at all strengths; each schedule's gain over the default one at one strength."""
    figure, ((noise, gains),) = _figure(10.5, 4.6, 1, 2)
    _noise_panel(noise, evidence, strength)
    names = [name for name in evidence.grid.schedules if name not in (OUTSIDE, Variant(strength).schedule)]
    for offset, (kind, colour, label) in enumerate(_KINDS):
        means = [_gain(evidence, Variant(strength, name, kind=kind)) for name in names]
        places = np.arange(len(names)) + 0.14 - 0.28 * offset
        margins = [mean.margin for mean in means]
        options = {"fmt": "os"[offset], "color": colour, "capsize": 2, "label": label}
        gains.errorbar([mean.value for mean in means], places, xerr=margins, **options)
    gains.axvline(0, color="black", linewidth=0.8)
    gains.set_yticks(range(len(names)), names)
    gains.invert_yaxis()
    gains.set(xlabel="PSNR: gain over simple, dB", title=f"denoising strength {strength:g}")
    gains.grid(alpha=0.25, axis="x")
    gains.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False)
    return figure


_KINDS = (("exact", "#0072B2", "as it is"), ("matched", "#D55E00", "from matched noise"))


def _noise_panel(panel: Any, evidence: Evidence, named: float) -> None:
    names = [name for name in evidence.grid.schedules if name != OUTSIDE]
    for strength, colour, mark in zip(evidence.grid.strengths, METHOD_COLOURS.values(), "osD^", strict=False):
        variants = [Variant(strength, name) for name in names]
        points = [(evidence.sigma(variant), evidence.mean(variant, "psnr").value) for variant in variants]
        panel.scatter(*zip(*points, strict=True), color=colour, marker=mark, label=f"strength {strength:g}")
        if strength == named:
            for name, point in zip(names, points, strict=True):
                if name in ("simple", "karras", "exponential"):
                    panel.annotate(name, point, xytext=(6, 6), textcoords="offset points", fontsize=9)
    alone = evidence.mean(Variant(0.0), "psnr").value
    panel.axhline(alone, color="black", linewidth=0.9, linestyle="--", label="no step at all")
    panel.set(xscale="log", xlabel="sigma where the sampling starts", ylabel="PSNR against the original, dB")
    panel.set_title("nearest-exact with every schedule")
    panel.set_xticks([0.1, 0.2, 0.5, 1, 2, 5], ["0.1", "0.2", "0.5", "1", "2", "5"])
    panel.minorticks_off()
    panel.grid(alpha=0.25)
    panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False)


def _gain(evidence: Evidence, variant: Variant) -> Mean:
    return evidence.gain(variant, Variant(variant.strength, kind=variant.kind), "psnr")


def sheet(evidence: Evidence, engine: Engine, photograph: str, strengths: tuple[float, ...]) -> Figure:
    """One photograph: what it is made from, and what each method makes of it with the default schedule."""
    rows = [_pictures(evidence, engine, photograph, strength) for strength in strengths]
    figure, axes = _figure(1.62 * len(rows[0]), 1.95 * len(rows), len(rows), len(rows[0]))
    for strength, row, panels in zip(strengths, rows, axes, strict=True):
        for (name, picture), panel in zip(row.items(), panels, strict=True):
            panel.imshow(picture, interpolation="nearest")
            panel.set_title(name, fontsize=8)
            panel.set(xticks=[], yticks=[])
        panels[0].set_ylabel(f"denoising strength {strength:g}", fontsize=8)
    return figure


def _pictures(evidence: Evidence, engine: Engine, photograph: str, strength: float) -> Mapping[str, Image.Image]:
    grid = evidence.grid
    truth = original(photograph, grid.size)
    plain = plain_resize(shrunk(truth), truth.size)
    found = {"original": truth, "plain resize": plain, "autoencoder": coded(engine, truth)}
    for cell in grid.cells():
        if (cell.photograph, cell.seed, cell.strength) == (photograph, grid.seeds[0], strength):
            if cell.kind == "default":
                host = pictures_of(engine, shrunk(truth), grid.generation(cell), cell.methods)
                found["WebUI's default"] = host[HOST_DEFAULT.method]
            elif cell.kind == "exact" and cell.upscale.scheduler == DEFAULT.scheduler:
                found |= pictures_of(engine, shrunk(truth), grid.generation(cell), cell.methods)
    return found
