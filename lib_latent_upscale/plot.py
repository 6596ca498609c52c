"""A plot of sigma schedules as a small SVG, for the panels of both hosts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from lib_latent_upscale.options import AUTOMATIC

if TYPE_CHECKING:
    from lib_latent_upscale.schedules import StepPlan
    from lib_latent_upscale.settings import UpscaleSettings

__all__ = ["Curve", "host_curve", "jump_note", "own_curve", "schedule_svg"]

_TOP, _BOTTOM, _HEIGHT = 12, 158, 178
"""In pixels; the width is the page's."""
_TICKS = (0.03, 0.1, 0.3, 1, 3, 10, 30, 100)


@dataclass(frozen=True)
class Curve:
    """One schedule in the plot."""

    label: str
    """What the legend says."""
    sigmas: Sequence[float]
    """The whole schedule, decreasing; the final 0 is drawn on the baseline."""
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


_WIDE = 0.1
"""A part of the denoising strength's slider whose standing still is felt."""


def jump_note(settings: UpscaleSettings, steps: int, denoising_strength: float) -> str:
    """What to say where the slider can be moved a good way before the first sigma jumps; else empty."""
    low, high = settings.same_start(steps, denoising_strength)
    if settings.scheduler == AUTOMATIC or round(high - low, 2) <= _WIDE:
        return ""
    count = "one step" if steps == 1 else f"{steps} steps"
    return (
        f"With {count}, all denoising strengths between {low:.2f} and {high:.2f} start at the same noise. "
        "With Starting noise: continuous it follows the slider."
    )


def schedule_svg(curves: Sequence[Curve], *, title: str = "") -> str:
    """Draw schedules over the way from pure noise (left) to the finished picture (right).

    The vertical axis is sigma on a logarithmic scale. Of each curve the steps that run are a bold line with a dot per
    step, the rest is faint. Text and axes take the colour of the page, so that light and dark themes both work.

    Returns:
        A `<figure>` without scripts or references to anything outside itself: an `<svg>` as wide as the page, and a
        legend that wraps. Only lines stretch, so that text can be read at any width.
    """
    values = [sigma for curve in curves for sigma in curve.sigmas if sigma > 0]
    low, high = (min(values), max(values)) if values else (0.03, 15.0)
    scale = _Scale(math.log(low) - 0.35, math.log(max(high, low * 1.01)))
    lines, dots = ("".join(part for curve in curves for part in draw(curve, scale)) for draw in (_lines, _dots))
    return (
        '<figure style="margin:0;max-width:720px;font:11px sans-serif"><div style="padding:0 6px 0 40px">'
        f'<svg width="100%" height="{_HEIGHT}" overflow="visible" role="img" aria-label="{escape(title)}" '
        f'fill="currentColor"><title>{escape(title)}</title>{"".join(_axes(scale))}'
        f'<svg width="100%" height="{_BOTTOM}" viewBox="0 0 100 {_BOTTOM}" preserveAspectRatio="none" '
        f'overflow="visible">{lines}</svg>{dots}</svg></div>'
        f'<figcaption style="text-wrap:balance">{"".join(map(_legend, curves))}</figcaption></figure>'
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
    line = '<line x2="100%" y1="{0:.1f}" y2="{0:.1f}" stroke="currentColor" stroke-opacity="{1}"/>'
    text = '<text x="{}" y="{:.1f}" text-anchor="{}" opacity="0.8">{}</text>'
    marks = [tick for tick in _TICKS if scale.bottom + 0.6 < math.log(tick) <= scale.top]
    for tick, mark in [(0.0, "0"), *((tick, f"{tick:g}") for tick in marks)]:
        height = scale.height(tick)
        yield line.format(height, 0.12 if tick else 0.5)
        yield text.format(-6, height + 4, "end", mark)
    yield text.format(0, _BOTTOM + 15, "start", "noise")
    yield text.format("100%", _BOTTOM + 15, "end", "picture")
    yield text.format(-30, _TOP + 4, "start", "σ")


def _points(curve: Curve, scale: _Scale) -> list[tuple[float, float]]:
    """Percent from the left, and pixels from the top."""
    steps = max(len(curve.sigmas) - 1, 1)
    return [(100 - 100 * curve.span * (1 - i / steps), scale.height(sigma)) for i, sigma in enumerate(curve.sigmas)]


def _lines(curve: Curve, scale: _Scale) -> Iterable[str]:
    points = _points(curve, scale)
    line = '<polyline fill="none" vector-effect="non-scaling-stroke" {} stroke-opacity="{}" points="{}"/>'
    yield line.format(_stroke(curve, 1.5), 0.45, _path(points[: curve.start + 1]))
    yield line.format(_stroke(curve, 2), 1, _path(points[curve.start :]))


def _dots(curve: Curve, scale: _Scale) -> Iterable[str]:
    radius = 3 if len(curve.sigmas) <= 60 else 1.5
    for x, y in _points(curve, scale)[curve.start : -1]:
        yield f'<circle cx="{x:.2f}%" cy="{y:.1f}" r="{radius}" fill="{curve.color}"/>'


def _stroke(curve: Curve, width: float) -> str:
    dash = ' stroke-dasharray="5 4"' if curve.dashed else ""
    return f'stroke="{curve.color}" stroke-width="{width}"{dash}'


def _path(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.2f},{y:.1f}" for x, y in points)


def _legend(curve: Curve) -> str:
    line = f'<svg width="24" height="8" style="flex:none"><line x2="24" y1="4" y2="4" {_stroke(curve, 2)}/></svg>'
    return f'<div style="display:flex;gap:8px;align-items:center;line-height:15px">{line}{escape(curve.label)}</div>'
