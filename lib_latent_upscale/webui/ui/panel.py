"""The script's controls, and the plot of the schedule that follows them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from html import escape
from typing import Any

import gradio as gr
from torch import Tensor

from lib_latent_upscale.method_files import file_of
from lib_latent_upscale.noise_tables import sd1_sigmas
from lib_latent_upscale.plot import host_curve, jump_note, own_curve, schedule_svg
from lib_latent_upscale.schedules import SCHEDULES, Limits, StepPlan, described
from lib_latent_upscale.settings import AUTOMATIC, WEIGHTS_LABEL, UpscaleSettings
from lib_latent_upscale.webui.host import learned_files, models, samplers
from lib_latent_upscale.webui.host import processing as host
from lib_latent_upscale.webui.run.latent_upscale import SAMPLER_NOTES
from lib_latent_upscale.webui.ui.fields import folded_tips, make_controls, pasted_methods, rest, tips

__all__ = ["HOST_INPUTS", "SHIFT_INPUT", "Panel", "make_panel", "plot_schedule", "watch"]

_log = logging.getLogger(__name__)

HOST_INPUTS = ("img2img_steps", "img2img_denoising_strength", "img2img_scheduler", "img2img_sampling")
"""Ids of the host's controls that the plot depends on: the first arguments of `plot_schedule`."""

SHIFT_INPUT = "img2img_distilled_cfg_scale"
"""Id of a further one, the last argument: a flow-matching model's shift, in hosts where it belongs to the request."""

_MENUS = (("method", "scheduler"),)
_SWITCHES = (("starting_noise",), ("exact_steps", "keep_statistics", "matched_noise"))

_PLOTTED = ("scheduler", "exact_steps", "matched_noise", "starting_noise")
"""Settings that the plot depends on."""

_NEEDS_SCHEDULER = (
    "Starting noise and Matched noise need a scheduler of this script; with automatic the WebUI's own start is kept. "
    "Generate will refuse this."
)


@dataclass(frozen=True)
class Panel:
    """The controls of the settings, and the plot."""

    controls: Mapping[str, Any]
    """By the names of the fields; their values are the arguments of the script's `run`."""
    plot: Any

    @property
    def infotext_fields(self) -> list[tuple[Any, Any]]:
        """Each control with the infotext label that sets it when pasted, or a function that reads its value."""
        labels = UpscaleSettings.labels()
        written = {label: name for name, label in labels.items() if UpscaleSettings().matters(name)}
        fields = [(self.controls[name], _PASTED.get(name, label)) for label, name in written.items()]
        return fields + [
            (self.controls[name], partial(_pasted, name, label))
            for name, label in labels.items()
            if label not in written
        ]


def _pasted(name: str, label: str, infotext: Mapping[str, Any]) -> Any:
    """The value of a setting that is not always written: a picture of ours without its label has the default."""
    ours = UpscaleSettings.labels()["method"] in infotext
    return infotext.get(label, getattr(UpscaleSettings(), name) if ours else None)


def _pasted_method(infotext: Mapping[str, Any]) -> Any:
    """The method; for a file of the user's own, the one with the same weights, whatever its name is here.

    A warning says if the weights here are others, since the picture will not be the same.
    """
    name, weights = infotext.get(UpscaleSettings.labels()["method"]), str(infotext.get(WEIGHTS_LABEL, ""))
    if name is None:
        return name
    method = learned_files.found_again(name, weights)
    for note in learned_files.others(method, weights):
        _log.warning("Latent upscale, the pasted picture: %s", note)
        if hasattr(gr, "Warning"):  # Gradio 3.39 and later
            gr.Warning(f"Latent upscale, the pasted picture: {note}")
    return pasted_methods(UpscaleSettings, "method", method) if file_of(name) else name


_PASTED: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {"method": _pasted_method}
"""Functions that read a setting from an infotext, if its value is not simply the text after its label."""


def make_panel(shown: UpscaleSettings, elem_id: Callable[[str], str]) -> Panel:
    """Build the controls, which show the values in `shown`; `elem_id` makes their ids.

    The host calls this several times, also to read the API's defaults.
    """
    menus = [name for names in _MENUS for name in names]
    controls = make_controls(shown, elem_id, _MENUS)
    gr.HTML(tips(UpscaleSettings, menus))
    about = gr.HTML(_about(shown.scheduler), elem_id=elem_id("about"))
    controls |= make_controls(shown, elem_id, (*_SWITCHES, *rest(UpscaleSettings, (*_MENUS, *_SWITCHES))))
    gr.HTML(elem_id=elem_id("size"))  # filled by javascript/latent_upscale_size.js
    gr.HTML(folded_tips(UpscaleSettings, menus) + _SCHEDULES)
    scheduler = controls["scheduler"]
    scheduler.change(fn=_about, inputs=[scheduler], outputs=[about], show_progress=False, queue=False)
    return Panel(controls, gr.HTML(elem_id=elem_id("drawing")))


def _about(scheduler: str) -> str:
    return f"<small>{escape(described(scheduler))}</small>"


_SCHEDULES = "<details><summary><small>All schedulers</small></summary>{}</details>".format(
    "<br>".join(_about(name) for name in (*SCHEDULES, AUTOMATIC))
)


def watch(panel: Panel, inputs: Mapping[str, Any], opener: Any) -> None:
    """Update the plot when a control that it depends on changes, and when the script is chosen.

    Args:
        panel: the controls.
        inputs: the host's controls by their ids; if one of `HOST_INPUTS` is missing, there is no plot;
            `SHIFT_INPUT` may be.
        opener: the host's dropdown of scripts, if known.
    """
    settings = [panel.controls[name] for name in _PLOTTED]
    watched = [*(inputs.get(name) for name in HOST_INPUTS), *settings]
    if any(control is None for control in watched):
        return
    watched += [inputs[SHIFT_INPUT]] if SHIFT_INPUT in inputs else []
    for control in [*watched, *([opener] if opener is not None else [])]:
        control.change(fn=plot_schedule, inputs=watched, outputs=[panel.plot], show_progress=False, queue=False)


def plot_schedule(steps: int, strength: float, host_scheduler: str, sampler: str, *plotted: Any) -> str:
    """The plot as HTML; if there is nothing to plot, the reason.

    Args:
        steps, strength, host_scheduler, sampler: values of the host's controls, as in `HOST_INPUTS`.
        plotted: values of the settings in `_PLOTTED`, and of `SHIFT_INPUT` if there is one.
    """
    count = len(_PLOTTED)
    shift = plotted[count] if len(plotted) > count else None
    try:
        settings = UpscaleSettings(**dict(zip(_PLOTTED, plotted[:count], strict=True)))
        if settings.starts_anywhere and settings.scheduler == AUTOMATIC:
            return f"<p>{_NEEDS_SCHEDULER}</p>"
        if not samplers.sampler_named(sampler).takes_sigmas:
            return f"<p>{escape(_TAKES_NO_SIGMAS.format(sampler))}</p>"
        if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in (steps, strength)):
            return f"<p>{_NO_NUMBERS}</p>"
        loaded = models.loaded_model(shift)
        table = loaded.sigmas()
        table = sd1_sigmas() if table is None else table
        return _plot(_Asked(int(steps), float(strength), host_scheduler, sampler, loaded, table), settings)
    except ValueError as error:
        return f"<p>{escape(str(error))}</p>"


_NO_NUMBERS = "Sampling steps and Denoising strength must be numbers; one of them is empty."
_TAKES_NO_SIGMAS = (
    "{0} takes no sigmas: it runs timesteps of its own, whatever the scheduler, and in most hosts one or two fewer "
    "than requested. So there is nothing to draw; the result will say how often the model ran."
)
_NOT_PLOTTED = "WebUI's default, {0}, cannot be drawn here."
_HARDLY_ANY_NOISE = (
    "Starts from hardly any noise (σ {0:.2f}, pure noise is 1): the picture will hardly change. Raise the denoising "
    "strength, choose another scheduler, or set Starting noise to matched."
)
_LITTLE = 0.1
"""Share of noise below which a flow-matching model changes almost nothing."""


@dataclass(frozen=True)
class _Asked:
    """The values of the host's own controls, and the model."""

    steps: int
    strength: float
    schedule_type: str
    sampler: str
    loaded: models.LoadedModel
    table: Tensor
    """The model's, or SD 1.x's where it has none."""

    def usual(self, *, exact: bool) -> StepPlan | None:
        """The steps that the host itself runs; None if they are not known."""
        request = (self.schedule_type, self.sampler, self.steps, self.strength)
        return samplers.host_plan(*request, self.loaded, self.table, exact=exact)

    def own(self, settings: UpscaleSettings) -> StepPlan | None:
        """The steps that these settings run, `exact_steps` on where the host does so anyway; None if not known."""
        if settings.scheduler == AUTOMATIC:
            return self.usual(exact=settings.exact_steps)
        sampler = samplers.sampler_named(self.sampler)
        options, _ = host.schedule_options()
        plan = settings.plan(
            self.steps,
            self.strength,
            sampler.table(self.table),
            discard_penultimate=sampler.discards_penultimate,
            limits=Limits(**options),
        )
        if settings.exact_steps or settings.starts_anywhere or plan.steps:
            return plan
        return StepPlan(plan.sigmas, len(plan.sigmas) - 2)  # the host's cut runs one step at denoising strength 0


def _plot(asked: _Asked, settings: UpscaleSettings) -> str:
    usual = host.default_schedule(asked.schedule_type, asked.sampler)
    own = usual if settings.scheduler == AUTOMATIC else settings.scheduler
    always = host.exact_by_default()
    settings = replace(settings, exact_steps=settings.exact_steps or always)
    default, plan = asked.usual(exact=always), asked.own(settings)
    curves, notes = [], []
    beyond = samplers.beyond_table(default, asked.table)
    if default is None:
        notes.append(_NOT_PLOTTED.format(usual))
    elif beyond:
        notes.append(_NOT_PLOTTED.format(usual) + " " + beyond[0].upper() + beyond[1:])
    else:
        curves.append(host_curve(usual, default))
    if plan is not None and not samplers.beyond_table(plan, asked.table):
        curves.append(own_curve(own, plan, settings, asked.strength))
        notes += _warnings(asked, settings, plan)
    title = f"Sigmas of {asked.steps} steps at denoising strength {asked.strength:g}"
    plot = schedule_svg(curves, title=title) if curves else ""
    return plot + "".join(f"<p>{escape(note)}</p>" for note in notes)


def _warnings(asked: _Asked, settings: UpscaleSettings, plan: StepPlan) -> list[str]:
    """Remarks below the plot about what it does not show."""
    found = []
    if asked.sampler in SAMPLER_NOTES and settings.scheduler != AUTOMATIC:
        found.append(SAMPLER_NOTES[asked.sampler])
    first = plan.run[0].item()
    if plan.steps and first < _LITTLE and models.is_flow_table(asked.table):
        found.append(_HARDLY_ANY_NOISE.format(first))
    jumps = jump_note(settings, asked.steps, asked.strength)
    return [*found, jumps] if jumps else found
