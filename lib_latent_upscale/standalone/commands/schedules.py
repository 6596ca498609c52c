"""The subcommand `schedules`: which sigmas a schedule has, and which of them run."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lib_latent_upscale.noise_tables import sd1_sigmas
from lib_latent_upscale.schedules import SCHEDULES, StepPlan
from lib_latent_upscale.settings import UpscaleSettings
from lib_latent_upscale.standalone.files.outputs import Outputs
from lib_latent_upscale.writing import write_whole

__all__ = ["Row", "plan_rows", "plot_rows", "run"]

CUTS: Mapping[str, tuple[str, str]] = {
    "default": ("WebUI's default cut", "#d1495b"),
    "exact": ("exact steps", "#00798c"),
    "matched": ("exact steps, matched noise", "#7a4fa3"),
}
"""The ways to cut a schedule by denoising strength: title and colour."""
_SETTINGS: Mapping[str, UpscaleSettings] = {
    "default": UpscaleSettings(exact_steps=False),
    "exact": UpscaleSettings(),
    "matched": UpscaleSettings(matched_noise=True),
}
"""The settings of each cut; their scheduler is replaced."""
_WHOLE = "#b8bec6"


@dataclass(frozen=True)
class Row:
    """One schedule with its plans by cut, a key of `CUTS`."""

    name: str
    plans: Mapping[str, StepPlan]


def plan_rows(names: Sequence[str], steps: int, strength: float, *, matched: bool = False) -> list[Row]:
    """Plan every schedule of `names` with every cut, for SD 1.x's noise table.

    Args:
        names: names in `SCHEDULES`.
        steps, strength: number of steps and denoising strength.
        matched: include the cut "matched".

    Raises:
        InputError: a name or number that is not allowed.
    """
    cuts = {cut: settings for cut, settings in _SETTINGS.items() if cut != "matched" or (matched and strength > 0)}

    def plans(name: str) -> dict[str, StepPlan]:
        return {cut: replace(one, scheduler=name).plan(steps, strength, sd1_sigmas()) for cut, one in cuts.items()}

    return [Row(name, plans(name)) for name in names]


def run(arguments: argparse.Namespace) -> int:
    """Run the subcommand; returns the exit code.

    Raises:
        InputError: arguments that are not allowed.
    """
    if arguments.output is not None:
        Outputs([], arguments.overwrite).named(arguments.output, (".png", ".svg"))
    names = arguments.scheduler or list(SCHEDULES)
    rows = plan_rows(names, arguments.steps, arguments.denoise, matched=arguments.matched_noise)
    title = f"{arguments.steps} steps at denoising strength {arguments.denoise:g}"
    details = ["", *_details(rows)] if arguments.scheduler else []  # for all of them it would fill screens
    sys.stdout.write("\n".join([title, "", *_table(rows), *details]) + "\n")
    if arguments.output is not None:
        kind = arguments.output.suffix.lower().removeprefix(".")
        content = _drawn(plot_rows(rows, title), kind)
        sys.stdout.write(f"{write_whole(arguments.output, content, overwrite=arguments.overwrite)}\n")
    return 0


def _number(sigma: float) -> str:
    return f"{sigma:.2f}" if sigma >= 1 else f"{sigma:.3f}"


def _summary(plan: StepPlan) -> str:
    whole = len(plan.sigmas) - 1
    start = f"from {_number(plan.run[0].item())}" if plan.steps else "none"
    return f"{plan.steps:4d} of {whole:<5d}{start}"


def _table(rows: Sequence[Row]) -> list[str]:
    """A table as lines of text: for each schedule and cut the steps that run, and their first sigma."""
    cuts = list(rows[0].plans)
    width = max(len(row.name) for row in rows)
    head = f"{'':{width}}  " + "  ".join(f"{CUTS[cut][0]:<27}" for cut in cuts)
    units = f"{'schedule':{width}}  " + "  ".join(f"{'steps run, first sigma':<27}" for _ in cuts)
    body = [f"{row.name:{width}}  " + "  ".join(f"{_summary(plan):<27}" for plan in row.plans.values()) for row in rows]
    return [line.rstrip() for line in [head, units, "-" * len(units), *body]]


def _details(rows: Sequence[Row]) -> list[str]:
    """Every sigma; those that run in brackets."""
    lines = []
    for row in rows:
        for cut, plan in row.plans.items():
            values = [_number(sigma) if sigma else "0" for sigma in plan.sigmas.tolist()]
            idle, runs = values[: plan.start], values[plan.start :]
            shown = [*idle, f"[{' '.join(runs)}]"] if plan.steps else values
            lines.append(f"{row.name}, {CUTS[cut][0]}: {' '.join(shown)}")
    return lines


def plot_rows(rows: Sequence[Row], title: str) -> Any:
    """A matplotlib figure: the steps of each schedule as marks at their sigmas, those that run in colour."""
    from matplotlib.figure import Figure

    cuts = list(rows[0].plans)
    band = 0.9 / len(cuts)
    figure = Figure(
        figsize=(11 if len(rows) > 2 else 8, 1.7 + len(rows) * (0.25 + 0.24 * len(cuts))), dpi=130, layout="constrained"
    )
    axes = figure.add_subplot()
    for index, row in enumerate(rows):
        for place, cut in enumerate(cuts):
            _strip(axes, row.plans[cut], index - 0.45 + (place + 0.5) * band, band, CUTS[cut][1])
        if index:
            axes.axhline(index - 0.5, color="#e6e8eb", linewidth=0.8)
    axes.set(
        xscale="log", ylim=(len(rows) - 0.5, -0.5), yticks=range(len(rows)), yticklabels=[row.name for row in rows]
    )
    axes.invert_xaxis()
    axes.set_xlabel("noise level (sigma): the run goes from left to right and ends in 0")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    _legend(axes, cuts)
    figure.suptitle(f"Which steps run: {title}", fontsize=13, fontweight="bold")
    return figure


def _strip(axes: Any, plan: StepPlan, height: float, band: float, colour: str) -> None:
    """One schedule and cut: steps that do not run in grey, those that run in colour, and their number."""
    sigmas = plan.sigmas[:-1].numpy()
    idle, runs = sigmas[: plan.start], sigmas[plan.start :]
    axes.vlines(idle, height - band * 0.22, height + band * 0.22, color=_WHOLE, linewidth=1.1)
    axes.vlines(runs, height - band * 0.4, height + band * 0.4, color=colour, linewidth=1.5)
    if plan.steps:
        axes.plot([runs[0], runs[-1]], [height, height], color=colour, linewidth=0.8, alpha=0.5)
    axes.annotate(
        f"{plan.steps} of {len(sigmas)}",
        (1.0, height),
        xycoords=("axes fraction", "data"),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
        color=colour,
    )


def _legend(axes: Any, cuts: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    def mark(colour: str, label: str) -> Line2D:
        return Line2D([], [], color=colour, marker="|", markersize=11, markeredgewidth=1.8, linestyle="", label=label)

    handles = [
        mark(_WHOLE, "in the schedule, does not run"),
        *(mark(CUTS[cut][1], f"runs: {CUTS[cut][0]}") for cut in cuts),
    ]
    axes.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(handles), frameon=False)


def _drawn(figure: Any, kind: str) -> bytes:
    """The content of a file of this kind, "png" or "svg"; the same figure gives the same bytes."""
    import matplotlib as mpl

    dateless, file = {"svg": {"Date": None}, "png": {"Software": None}}[kind], io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "latent-upscale"}):  # else random names in it
        figure.savefig(file, format=kind, metadata=dateless)
    return file.getvalue()
