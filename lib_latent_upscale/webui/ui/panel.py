"""The script's controls, and the drawing of the schedule that follows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import Any

import gradio as gr
from torch import Tensor

from lib_latent_upscale.comparison.variants import HOST_DEFAULT
from lib_latent_upscale.noise_tables import sd1_sigmas
from lib_latent_upscale.plot import Curve, schedule_svg
from lib_latent_upscale.schedules import SCHEDULES, StepPlan, described
from lib_latent_upscale.settings import AUTOMATIC, UpscaleSettings
from lib_latent_upscale.webui.host import processing as host
from lib_latent_upscale.webui.ui.fields import make_controls, rest, tips

__all__ = ["HOST_INPUTS", "Panel", "draw_schedule", "make_panel", "watch"]

HOST_INPUTS = ("img2img_steps", "img2img_denoising_strength", "img2img_scheduler", "img2img_sampling")
"""Ids of the host's controls that the drawing depends on, in the order of `draw_schedule`'s first arguments."""

_MENUS = (("method", "scheduler"),)
_SWITCHES = (("starting_noise",), ("exact_steps", "keep_statistics", "matched_noise"))

_OURS, _HOSTS = "#0d7fb8", "#d9632a"


_DRAWN = ("scheduler", "exact_steps", "matched_noise", "starting_noise")
"""Settings that the drawing depends on."""

_NEEDS_SCHEDULER = (
    "Starting noise and Matched noise need a scheduler of this script; with automatic the WebUI's own start is kept. "
    "Generate would refuse this."
)


@dataclass(frozen=True)
class Panel:
    """The controls, by the settings' names, and the drawing."""

    controls: Mapping[str, Any]
    """What is handed to the script's `run`."""
    drawing: Any

    @property
    def infotext_fields(self) -> list[tuple[Any, Any]]:
        """Which label of a pasted infotext sets which control, or what reads the control's value out of it."""
        labels = UpscaleSettings.labels()
        written = {label: name for name, label in labels.items() if UpscaleSettings().matters(name)}
        fields: list[tuple[Any, Any]] = [(self.controls[name], label) for label, name in written.items()]
        return fields + [
            (self.controls[name], partial(_pasted, name, label))
            for name, label in labels.items()
            if label not in written
        ]


def _pasted(name: str, label: str, infotext: Mapping[str, Any]) -> Any:
    """A setting that is not written where it changes nothing: absent from a picture of ours it has its default."""
    ours = UpscaleSettings.labels()["method"] in infotext
    return infotext.get(label, getattr(UpscaleSettings(), name) if ours else None)


def make_panel(shown: UpscaleSettings, elem_id: Callable[[str], str]) -> Panel:
    """Build the controls. The host calls this several times, also to read the API's defaults."""
    controls = make_controls(shown, elem_id, _MENUS)
    about = gr.HTML(_about(shown.scheduler), elem_id=elem_id("about"))
    controls |= make_controls(shown, elem_id, (*_SWITCHES, *rest(UpscaleSettings, (*_MENUS, *_SWITCHES))))
    gr.HTML(tips(UpscaleSettings) + _SCHEDULES)
    scheduler = controls["scheduler"]
    scheduler.change(fn=_about, inputs=[scheduler], outputs=[about], show_progress=False, queue=False)
    return Panel(controls, gr.HTML(elem_id=elem_id("drawing")))


def _about(scheduler: str) -> str:
    return f"<small>{escape(described(scheduler))}</small>"


_SCHEDULES = "<details><summary><small>All schedulers</small></summary>{}</details>".format(
    "<br>".join(_about(name) for name in (*SCHEDULES, AUTOMATIC))
)


def watch(panel: Panel, inputs: Mapping[str, Any], opener: Any) -> None:
    """Draw again when something changes that the drawing depends on, and when the script is chosen (`opener`)."""
    settings = [panel.controls[name] for name in _DRAWN]
    watched = [*(inputs.get(name) for name in HOST_INPUTS), *settings]
    if any(control is None for control in watched):
        return
    for control in [*watched, *([opener] if opener is not None else [])]:
        control.change(fn=draw_schedule, inputs=watched, outputs=[panel.drawing], show_progress=False, queue=False)


def draw_schedule(steps: int, strength: float, host_scheduler: str, sampler: str, *drawn: Any) -> str:
    """The drawing as HTML; where there is nothing to draw, the reason. `drawn` are the settings of `_DRAWN`."""
    table = host.loaded_model_sigmas()
    if table is None:
        table = sd1_sigmas()
    usual = host.default_schedule(host_scheduler, sampler)
    try:
        settings = UpscaleSettings(**dict(zip(_DRAWN, drawn, strict=True)))
        own = usual if settings.scheduler == AUTOMATIC else settings.scheduler
        if settings.starts_anywhere and settings.scheduler == AUTOMATIC:
            return f"<p>{_NEEDS_SCHEDULER}</p>"
        return _drawing(_Request(int(steps), float(strength), own, usual), settings, table)
    except ValueError as error:
        return f"<p>{error}</p>"


@dataclass(frozen=True)
class _Request:
    steps: int
    strength: float
    own: str
    usual: str


def _drawing(request: _Request, settings: UpscaleSettings, table: Tensor) -> str:
    own = request.own if request.own in SCHEDULES else "normal"
    usual = request.usual if request.usual in SCHEDULES else "normal"
    default = HOST_DEFAULT.plan(request.steps, request.strength, table, host_schedule=usual)
    plan = settings.plan(request.steps, request.strength, table, host_schedule=own)
    curves = [
        Curve(
            _label("WebUI's default", usual, default), default.sigmas.tolist(), default.start, color=_HOSTS, dashed=True
        ),
        Curve(
            _label("Latent Upscale", own, plan),
            plan.sigmas.tolist(),
            plan.start,
            span=max(request.strength, 0.05) if settings.starts_anywhere else 1.0,
            color=_OURS,
        ),
    ]
    return schedule_svg(curves, title=f"Sigmas of {request.steps} steps at denoising strength {request.strength:g}")


def _label(name: str, schedule: str, plan: StepPlan) -> str:
    run = f"from σ {plan.run[0].item():.2f}" if plan.steps else "nothing runs"
    return f"{name}: {schedule}, {plan.steps} of {len(plan.sigmas) - 1} steps run, {run}"
