"""A drawing of sigma schedules as a small SVG, for the panels of both hosts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lib_latent_upscale.schedules import StepPlan
    from lib_latent_upscale.settings import UpscaleSettings

__all__ = ["Curve", "host_curve", "own_curve", "schedule_svg"]

_WIDTH, _HEIGHT = 560, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 548, 12, 158
_TICKS = (0.03, 0.1, 0.3, 1, 3, 10, 30, 100)


@dataclass(frozen=True)
class Curve:
    """One schedule in the drawing."""

    label: str
    """What the legend says."""
    sigmas: Sequence[float]
    """The whole schedule, decreasing; the closing 0 is drawn on the baseline."""
    start: int = 0
    """Index of the first sigma that runs; what lies before is drawn faintly."""
    span: float = 1.0
    """Share of the horizontal axis, counted from the right, that the schedule fills."""
    color: str = "currentColor"
    dashed: bool = False


_OURS, _HOSTS = "#0d7fb8", "#d9632a"


def host_curve(schedule: str, plan: StepPlan) -> Curve:
    """What the WebUI would run."""
    return _plan_curve("WebUI's default", schedule, plan, ours=False)


def own_curve(schedule: str, plan: StepPlan, settings: UpscaleSettings, denoising_strength: float) -> Curve:
    """What runs with our settings; where they start anywhere, the schedule fills the denoising strength's share."""
    span = max(denoising_strength, 0.05) if settings.starts_anywhere else 1.0
    return _plan_curve("Latent Upscale", schedule, plan, ours=True, span=span)


def _plan_curve(name: str, schedule: str, plan: StepPlan, *, ours: bool, span: float = 1.0) -> Curve:
    """A plan, told in its label: whose it is, which schedule, how many steps run, and from where."""
    run = f"from σ {plan.run[0].item():.2f}" if plan.steps else "nothing runs"
    label = f"{name}: {schedule}, {plan.steps} of {len(plan.sigmas) - 1} steps run, {run}"
    return Curve(label, plan.sigmas.tolist(), plan.start, span, _OURS if ours else _HOSTS, dashed=not ours)


def schedule_svg(curves: Sequence[Curve], *, title: str = "") -> str:
    """Draw schedules over the way from pure noise (left) to the finished picture (right).

    The vertical axis is sigma on a logarithmic scale. Of each curve the steps that run are a bold line with a dot per
    step, the rest is faint. Text and axes take the colour of the page, so that light and dark themes both work.

    Returns:
        An `<svg>` element without scripts or references to anything outside itself, in a box that scrolls where the
        page is too narrow for its text to be read.
    """
    values = [sigma for curve in curves for sigma in curve.sigmas if sigma > 0]
    low, high = (min(values), max(values)) if values else (0.03, 15.0)
    scale = _Scale(math.log(low) - 0.35, math.log(max(high, low * 1.01)))
    parts = [*_axes(scale), *(part for curve in curves for part in _curve(curve, scale)), *_legend(curves)]
    return (
        '<div style="overflow-x:auto">'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="100%" style="min-width:520px;max-width:720px" role="img" '
        f'aria-label="{escape(title)}" font-family="sans-serif" font-size="11" fill="currentColor">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg></div>"
    )


@dataclass(frozen=True)
class _Scale:
    """Heights of log sigmas; the bottom stands for zero, too."""

    bottom: float
    top: float

    def height(self, sigma: float) -> float:
        log = math.log(sigma) if sigma > 0 else self.bottom
        return _BOTTOM - (_BOTTOM - _TOP) * (log - self.bottom) / (self.top - self.bottom)


def _axes(scale: _Scale) -> Iterable[str]:
    line = '<line x1="{}" y1="{:.1f}" x2="{}" y2="{:.1f}" stroke="currentColor" stroke-opacity="{}"/>'
    text = '<text x="{}" y="{:.1f}" text-anchor="{}" opacity="0.8">{}</text>'
    marks = [tick for tick in _TICKS if scale.bottom + 0.6 < math.log(tick) <= scale.top]
    for tick, mark in [(0.0, "0"), *((tick, f"{tick:g}") for tick in marks)]:
        height = scale.height(tick)
        yield line.format(_LEFT, height, _RIGHT, height, 0.12 if tick else 0.5)
        yield text.format(_LEFT - 6, height + 4, "end", mark)
    yield text.format(_LEFT, _BOTTOM + 15, "start", "noise")
    yield text.format(_RIGHT, _BOTTOM + 15, "end", "picture")
    yield f'<text x="10" y="{_TOP + 4}" opacity="0.8">σ</text>'


def _curve(curve: Curve, scale: _Scale) -> Iterable[str]:
    steps = max(len(curve.sigmas) - 1, 1)
    width = (_RIGHT - _LEFT) * curve.span
    points = [(_RIGHT - width * (1 - i / steps), scale.height(sigma)) for i, sigma in enumerate(curve.sigmas)]
    dash = ' stroke-dasharray="5 4"' if curve.dashed else ""
    line = '<polyline fill="none" stroke="{}" stroke-width="{}" stroke-opacity="{}"{} points="{}"/>'
    yield line.format(curve.color, 1.5, 0.3, dash, _path(points[: curve.start + 1]))
    yield line.format(curve.color, 2, 1, dash, _path(points[curve.start :]))
    for x, y in points[curve.start : -1]:
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{3 if steps < 60 else 1.5}" fill="{curve.color}"/>'


def _path(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _legend(curves: Sequence[Curve]) -> Iterable[str]:
    for row, curve in enumerate(curves):
        y = _BOTTOM + 31 + 15 * row
        dash = ' stroke-dasharray="5 4"' if curve.dashed else ""
        ends = f'x1="{_LEFT}" y1="{y - 4}" x2="{_LEFT + 24}" y2="{y - 4}"'
        yield f'<line {ends} stroke="{curve.color}" stroke-width="2"{dash}/>'
        yield f'<text x="{_LEFT + 32}" y="{y}">{escape(curve.label)}</text>'
