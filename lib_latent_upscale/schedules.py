"""Sigma schedules: one function and one row of `SCHEDULES` per schedule, and the cut by denoising strength.

A schedule function returns `steps` decreasing sigmas in float64, without the closing zero. It either places
steps on the model's own table ("positions": 0 is its smallest sigma, entries - 1 its largest) or computes them from
the smallest and the largest sigma alone.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lib_latent_upscale.errors import InputError
from lib_latent_upscale.options import MAX_STEPS

__all__ = [
    "SCHEDULES",
    "Limits",
    "Schedule",
    "StepPlan",
    "continuous_start",
    "default_steps",
    "described",
    "get_sigmas",
    "plan_steps",
    "scheduled_steps",
    "sigmas_from",
]

Floats = NDArray[np.float64]

_MAX_SCHEDULED = 1_000_000  # a thousand steps at denoising strength 0.001


@dataclass(frozen=True, eq=False)
class SigmaTable:
    """The noise levels that a schedule may use."""

    values: Floats
    """The model's sigmas, ascending."""
    low: float | None = None
    """Smallest sigma of the schedule; None for that of the table."""
    high: float | None = None
    """Largest sigma of the schedule; None for that of the table."""
    rho: float | None = None
    """Curvature, for schedules that have one; None for their default."""

    @property
    def sigma_min(self) -> float:
        return float(self.values[0]) if self.low is None else self.low

    @property
    def sigma_max(self) -> float:
        return float(self.values[-1]) if self.high is None else self.high

    @property
    def t_max(self) -> int:
        """Position of the largest sigma."""
        return len(self.values) - 1

    @property
    def restricted(self) -> bool:
        """Whether the schedule has limits of its own."""
        return self.low is not None or self.high is not None

    def sigma_at(self, positions: NDArray[Any]) -> Floats:
        """Sigmas at fractional positions of the table, log-linear between entries.

        With `low` or `high`, the positions are spread over that part of the table instead (values outside the
        table are moved to its ends), so that a schedule keeps its spacing on the smaller range.
        """
        index, logs = np.arange(len(self.values)), np.log(self.values)
        if self.restricted:
            low, high = np.interp(np.log([self.sigma_min, self.sigma_max]), logs, index)
            positions = low + positions * ((high - low) / max(self.t_max, 1))
        return np.exp(np.interp(positions, index, logs))


@dataclass(frozen=True)
class Schedule:
    """A row of `SCHEDULES`."""

    sigmas: Callable[[int, SigmaTable], Floats]
    """Makes the decreasing sigmas, without the closing zero."""
    label: str
    """Name that users see; the WebUI's own if it has this schedule."""
    summary: str
    """One line for users who choose."""
    rho: float | None = None
    """Default curvature; None where the schedule has none."""


def _simple(steps: int, table: SigmaTable) -> Floats:
    entries = len(table.values)
    return table.sigma_at(table.t_max - np.arange(steps) * entries // steps)


def _normal(steps: int, table: SigmaTable) -> Floats:
    return table.sigma_at(np.linspace(table.t_max, 0, steps))


def _sgm_uniform(steps: int, table: SigmaTable) -> Floats:
    return table.sigma_at(np.linspace(table.t_max, 0, steps + 1)[:-1])


def _ddim_uniform(steps: int, table: SigmaTable) -> Floats:
    """Whole strides from entry 1 upwards; the lowest `steps` of them, as in DDIM's "leading" spacing.

    On a restricted range, or with more steps than entries, the strides are made to fit from end to end.
    """
    stride = max(len(table.values) // steps, 1)
    highest = 1 + (steps - 1) * stride
    if table.restricted or highest > table.t_max:
        return table.sigma_at(np.linspace(table.t_max, min(1, table.t_max / steps), steps))
    return table.sigma_at(np.linspace(highest, 1, steps))


def _beta(steps: int, table: SigmaTable) -> Floats:
    """Quantiles of the beta distribution (0.6, 0.6) over the timesteps, arXiv:2407.12173."""
    from scipy.stats import beta

    return table.sigma_at(np.rint(beta.ppf(1 - np.arange(steps) / steps, 0.6, 0.6) * table.t_max))


def _karras(steps: int, table: SigmaTable) -> Floats:
    """Equation 5 of Karras et al. 2022, in float32 as k-diffusion computes it, so that the bits are the same."""
    rho = table.rho or 1.0
    low, high = table.sigma_min ** (1 / rho), table.sigma_max ** (1 / rho)
    return _doubled((high + torch.linspace(0, 1, steps) * (low - high)) ** rho)


def _exponential(steps: int, table: SigmaTable) -> Floats:
    return _doubled(torch.linspace(math.log(table.sigma_max), math.log(table.sigma_min), steps).exp())


def _polyexponential(steps: int, table: SigmaTable) -> Floats:
    low, high = math.log(table.sigma_min), math.log(table.sigma_max)
    return _doubled((torch.linspace(1, 0, steps) ** (table.rho or 1.0) * (high - low) + low).exp())


def _doubled(sigmas: Tensor) -> Floats:
    return np.asarray(sigmas.numpy(), dtype=np.float64)


def _kl_optimal(steps: int, table: SigmaTable) -> Floats:
    """Equal angles, from "Align Your Steps", arXiv:2404.14507."""
    sigmas: Floats = np.tan(np.linspace(math.atan(table.sigma_max), math.atan(table.sigma_min), steps))
    return sigmas


def _linear_quadratic(steps: int, table: SigmaTable) -> Floats:
    """Linear over the first half of the steps down to 0.975 of sigma_max, then quadratic to zero.

    From Movie Gen, arXiv:2410.13720, as in Mochi 1 and ComfyUI.
    """
    threshold, linear = 0.025, steps // 2
    if linear == 0:
        return np.full(1, table.sigma_max)
    quadratic, index = steps - linear, np.arange(steps, dtype=np.float64)
    excess = linear - threshold * steps
    curve = excess / (linear * quadratic**2)
    slope = threshold / linear - 2 * excess / quadratic**2
    done = np.where(index < linear, index * threshold / linear, curve * (index**2 + linear**2) + slope * index)
    return (1 - done) * table.sigma_max


# Published for ten steps at https://research.nvidia.com/labs/toronto-ai/AlignYourSteps/howto.html
_ALIGNED_SD1 = (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029)
_ALIGNED_SDXL = (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029)


def _aligned(published: Sequence[float]) -> Callable[[int, SigmaTable], Floats]:
    """Log-linear interpolation of a published table of noise levels.

    For a model whose own range is not the published one (within a percent: the table is rounded), the table is
    stretched in log sigma to the model's range.
    """
    ascending = np.array(published[::-1], dtype=np.float64)

    def schedule(steps: int, table: SigmaTable) -> Floats:
        ends = table.values[[0, -1]]
        fits = np.allclose(ends, ascending[[0, -1]], rtol=0.01, atol=0.0)
        logs = np.log(ascending)
        values = ascending if fits else np.exp(np.interp(logs, logs[[0, -1]], np.log(ends)))
        return _normal(steps, replace(table, values=values))

    return schedule


SCHEDULES: Mapping[str, Schedule] = MappingProxyType(
    {
        "simple": Schedule(_simple, "Simple", "equal strides over the model's timesteps"),
        "normal": Schedule(_normal, "Normal", "equal strides over the model's timesteps, down to its smallest sigma"),
        "karras": Schedule(_karras, "Karras", "many steps at low noise (Karras et al. 2022)", rho=7.0),
        "exponential": Schedule(_exponential, "Exponential", "equal ratios; most steps at very low noise"),
        "polyexponential": Schedule(_polyexponential, "Polyexponential", "exponential with a curvature (rho)", rho=1.0),
        "sgm_uniform": Schedule(_sgm_uniform, "SGM Uniform", "equal strides that end one above the smallest sigma"),
        "ddim_uniform": Schedule(_ddim_uniform, "DDIM Uniform", "DDIM's whole strides from the low end"),
        "beta": Schedule(_beta, "Beta", "more steps at both ends (Lee et al. 2024)"),
        "kl_optimal": Schedule(_kl_optimal, "KL Optimal", "equal angles (Sabour et al. 2024)"),
        "linear_quadratic": Schedule(
            _linear_quadratic, "Linear Quadratic", "slow at high noise, then fast (flow models)"
        ),
        "align_your_steps": Schedule(_aligned(_ALIGNED_SD1), "Align Your Steps", "NVIDIA's levels for SD 1.x"),
        "align_your_steps_sdxl": Schedule(_aligned(_ALIGNED_SDXL), "Align Your Steps SDXL", "NVIDIA's levels for SDXL"),
    }
)
"""Schedules by name, in the order of the user interface."""


def described(name: str) -> str:
    """A line about a schedule, or "automatic", for users who choose: label, name and what it does."""
    if name not in SCHEDULES:
        return f"{name.capitalize()} ({name}): the host's own schedule type"
    schedule = SCHEDULES[name]
    return f"{schedule.label} ({name}): {schedule.summary}"


def get_sigmas(
    name: str,
    steps: int,
    model_sigmas: Tensor | Sequence[float],
    *,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    rho: float | None = None,
) -> Tensor:
    """Build a noise schedule of a model.

    Args:
        name: a name in `SCHEDULES`.
        steps: how many sampling steps, 1 to 1,000,001 (a schedule that will be cut may be longer than a run).
        model_sigmas: the model's own table, ascending, such as `model_wrap.sigmas` of k_diffusion; any dtype, device.
        sigma_min, sigma_max: other ends than the table's.
        rho: another curvature than the schedule's own.

    Which schedule uses what:

    | schedule | sigma_min | sigma_max | rho |
    |---|---|---|---|
    | karras, polyexponential | last sigma above zero | first sigma | 7, 1 |
    | exponential, kl_optimal | last sigma above zero | first sigma | |
    | linear_quadratic | | first sigma | |
    | the others | smallest sigma of the table | largest sigma of the table | |

    "The others" place their steps on the model's table (align_your_steps: on the published one). They keep their
    spacing and use only the part of the table between sigma_min and sigma_max; values outside it count as its ends.

    Where a formula gives equal neighbours (more steps than table entries), or fewer than `steps` values, the repeated
    values are spread log-linearly between their neighbours; other values stay what the formula gives.

    Returns:
        `steps + 1` float32 values on the CPU, strictly decreasing, the last exactly 0.

    Raises:
        ValueError: an unknown name; steps, ends or rho out of range; a table that is not ascending and positive.
    """
    schedule = _schedule(name)
    table = _table(model_sigmas, sigma_min, sigma_max, schedule.rho if rho is None else rho)
    return _finish(schedule.sigmas(_whole_steps(steps, _MAX_SCHEDULED + 1), table))


@dataclass(frozen=True)
class Limits:
    """Other ends and another curvature than a schedule's own, as for `get_sigmas`; None where it keeps its own."""

    sigma_min: float | None = None
    sigma_max: float | None = None
    rho: float | None = None

    def sigmas(self, name: str, steps: int, model_sigmas: Tensor | Sequence[float]) -> Tensor:
        """`get_sigmas` within these limits."""
        return get_sigmas(name, steps, model_sigmas, sigma_min=self.sigma_min, sigma_max=self.sigma_max, rho=self.rho)


_OWN_LIMITS = Limits()


@dataclass(frozen=True, eq=False)
class StepPlan:
    """A schedule and the part that actually runs."""

    sigmas: Tensor
    """The whole schedule, as from `get_sigmas`."""
    start: int
    """Index of the first sigma that runs."""

    @property
    def run(self) -> Tensor:
        """The sigmas that run, one more than steps, ending in 0."""
        return self.sigmas[self.start :]

    @property
    def steps(self) -> int:
        """Number of steps that run."""
        return len(self.run) - 1


def scheduled_steps(steps: int, denoising_strength: float) -> int:
    """Length of the schedule whose last `steps` steps start at the denoising strength; 0 at denoising strength 0.

    The same as the WebUI's `setup_img2img_steps` with "do exactly the amount of steps the slider specifies".

    Raises:
        ValueError: steps is not an integer of 1 to 1000, or the denoising strength is not in 0 to 1, or so close to 0
            that the schedule would have more than a million steps.
    """
    steps, strength = _whole_steps(steps, MAX_STEPS), _checked_strength(denoising_strength)
    if strength == 0:
        return 0
    scheduled = steps / min(strength, 0.999)
    if scheduled >= _MAX_SCHEDULED + 1:
        raise InputError(
            f"denoising strength {strength} with {steps} steps needs a schedule of {scheduled:.3g} steps; "
            f"at most {_MAX_SCHEDULED} are possible: use 0, or at least {steps / _MAX_SCHEDULED:g}"
        )
    return int(scheduled)


def default_steps(steps: int, denoising_strength: float) -> int:
    """How many of `steps` steps the WebUI runs by default, above denoising strength 0."""
    return int(min(denoising_strength, 0.999) * steps) + 1


def plan_steps(
    name: str,
    steps: int,
    denoising_strength: float,
    model_sigmas: Tensor | Sequence[float],
    *,
    exact: bool = True,
    limits: Limits = _OWN_LIMITS,
    start_sigma: float | None = None,
    discard_penultimate: bool = False,
) -> StepPlan:
    """Build a schedule and cut it by the denoising strength.

    Args:
        name, model_sigmas: as for `get_sigmas`.
        steps: the steps that were asked for, 1 to 1000.
        denoising_strength: 0 (nothing runs) to 1 (from pure noise).
        exact: run exactly `steps` steps, the last ones of a schedule of `scheduled_steps`. Otherwise cut as the WebUI
            does by default: of a schedule of `steps` steps, only the last int(strength * steps) + 1 run.
        limits: other ends of the schedule than the table's.
        start_sigma: matched noise: instead of cutting, build a schedule that runs exactly `steps` steps from this
            sigma to zero. The schedule's own spacing is kept: it is `get_sigmas` with `sigma_max=start_sigma`. So
            schedules can be compared that start from the same amount of noise. Below the schedule's smallest sigma
            the steps to zero are even. `exact` has no say then, and `limits.sigma_max` only allows higher starts.
        discard_penultimate: build one step more and leave out the smallest sigma above zero, as the WebUI does for
            samplers such as DPM2 that evaluate the model between two sigmas. The number of steps that run is the same.

    Raises:
        ValueError: as for `get_sigmas` and `scheduled_steps`; start_sigma above the model's largest noise level.
    """
    total, matched = scheduled_steps(steps, denoising_strength), start_sigma is not None
    length = (total if exact and total and not matched else steps) + int(discard_penultimate)
    if start_sigma is None:
        whole = limits.sigmas(name, length, model_sigmas)
    else:
        whole = sigmas_from(name, length, model_sigmas, start_sigma, limits)
    if discard_penultimate:
        whole = torch.cat([whole[:-2], whole[-1:]])
    runs = 0 if not total else steps if exact or matched else default_steps(steps, denoising_strength)
    return StepPlan(whole, len(whole) - 1 - runs)


_ROUNDED = 1e-4
"""By how much published levels may lie above the model's own table: they are rounded to five digits."""

_FINE = 1000
"""Steps of a schedule that stands for an infinitely fine one; between them sigmas are interpolated."""


def continuous_start(
    name: str, denoising_strength: float, model_sigmas: Tensor | Sequence[float], limits: Limits = _OWN_LIMITS
) -> float:
    """The sigma at which a schedule, infinitely fine, stands at a denoising strength.

    It grows with the strength without jumps, from 0 at 0 to the schedule's first sigma at 1: what `plan_steps` starts
    from, without the rounding to whole steps that few steps show.

    Args:
        name, model_sigmas: as for `get_sigmas`.
        denoising_strength: 0 to 1.
        limits: other ends of the schedule than the table's.

    Raises:
        ValueError: as for `get_sigmas`; a denoising strength that is not in 0 to 1.
    """
    strength = _checked_strength(denoising_strength)
    fine = limits.sigmas(name, _FINE, model_sigmas).double().numpy()
    position = (1 - strength) * _FINE
    if position >= _FINE - 1:  # between the smallest sigma and zero
        return float(fine[-2] * (_FINE - position))
    return float(np.exp(np.interp(position, np.arange(_FINE), np.log(fine[:-1]))))


def sigmas_from(
    name: str,
    steps: int,
    model_sigmas: Tensor | Sequence[float],
    start_sigma: float,
    limits: Limits = _OWN_LIMITS,
) -> Tensor:
    """A schedule of `steps` steps from a sigma to zero, with the spacing that it has on that range.

    Args:
        name, model_sigmas: as for `get_sigmas`.
        steps: 1 to 1001, one more than a run may have, for samplers that leave one sigma out.
        start_sigma: the first one, up to the model's largest or, where that is larger, `limits.sigma_max`.
        limits: other ends of the schedule than the table's.

    Raises:
        ValueError: as for `get_sigmas`; a start that is too large.
    """
    schedule, steps = _schedule(name), _whole_steps(steps, MAX_STEPS + 1)
    table = _table(model_sigmas, limits.sigma_min, None, schedule.rho if limits.rho is None else limits.rho)
    start = _positive("start_sigma", start_sigma)
    largest = max(table.sigma_max, limits.sigma_max or 0.0)
    if start > largest * (1 + _ROUNDED):
        raise InputError(f"start_sigma is {start:g}; the largest noise level is {largest:g}")
    values = schedule.sigmas(steps, replace(table, high=start))
    values[0] = start
    return _finish(values)


def _finish(values: Floats) -> Tensor:
    """Make strictly decreasing float32 values of non-increasing ones, and append the zero."""
    sigmas = np.append(_descend(_spread(values).astype(np.float32)), np.float32(0))
    return torch.from_numpy(sigmas)


def _spread(values: Floats) -> Floats:
    """Spread repeated values log-linearly between their neighbours; values without a twin stay."""
    values = np.minimum.accumulate(values)
    positions = np.flatnonzero(np.diff(values, prepend=np.inf) < 0)
    if len(positions) == len(values):
        return values
    if len(positions) == 1:
        even: Floats = values[0] * (1 - np.arange(len(values)) / len(values))
        return even
    knots = np.log(values[positions])
    positions[-1] = len(values) - 1  # the schedule still ends at its smallest sigma
    spread = np.exp(np.interp(np.arange(len(values)), positions, knots))
    return np.where(np.isin(np.arange(len(values)), positions), values, spread)


def _descend(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Move float32 values that rounding has made equal to the next smaller floats; others stay.

    Positive floats are ordered as their bits read as integers are.
    """
    index = np.arange(len(values), dtype=np.int64)
    bits = values.view(np.int32) + index
    return (np.minimum.accumulate(bits) - index).astype(np.int32).view(np.float32)


def _schedule(name: str) -> Schedule:
    if name not in SCHEDULES:
        raise InputError(f"unknown schedule {name!r}; choose one of: {', '.join(SCHEDULES)}")
    return SCHEDULES[name]


def _table(
    model_sigmas: Tensor | Sequence[float], lower: float | None, upper: float | None, rho: float | None
) -> SigmaTable:
    table = SigmaTable(
        _checked_table(model_sigmas),
        None if lower is None else _positive("sigma_min", lower),
        None if upper is None else _positive("sigma_max", upper),
        None if rho is None else _positive("rho", rho),
    )
    if table.sigma_min > table.sigma_max:
        raise InputError(f"sigma_min {table.sigma_min:g} must not exceed sigma_max {table.sigma_max:g}")
    return table


def _checked_table(model_sigmas: Tensor | Sequence[float]) -> Floats:
    table: Floats = torch.as_tensor(model_sigmas).detach().cpu().double().numpy()
    if table.ndim != 1 or len(table) == 0:
        raise InputError(f"model_sigmas has shape {table.shape}; the model's 1-D table of sigmas is needed")
    if not (np.isfinite(table).all() and table[0] > 0 and (np.diff(table) >= 0).all()):
        raise InputError("model_sigmas must be finite, above 0 and ascending, like model_wrap.sigmas of k_diffusion")
    return table


def _positive(name: str, value: float) -> float:
    if isinstance(value, bool) or not (math.isfinite(value) and value > 0):
        raise InputError(f"{name} is {value!r}; a finite number above 0 is needed")
    return float(value)


def _whole_steps(steps: int, largest: int) -> int:
    try:
        whole = 0 if isinstance(steps, bool) else operator.index(steps)
    except TypeError:
        whole = 0
    if not 1 <= whole <= largest:
        raise InputError(f"steps is {steps!r}; an integer from 1 to {largest} is needed")
    return whole


def _checked_strength(strength: float) -> float:
    if isinstance(strength, bool) or not (isinstance(strength, (int, float)) and 0 <= strength <= 1):
        raise InputError(f"denoising strength is {strength!r}; a number from 0 to 1 is needed")
    return float(strength)
