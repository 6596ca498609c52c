"""What the host's samplers and schedule types will run, found out before they run."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lib_latent_upscale.samplers import import_k_diffusion
from lib_latent_upscale.schedules import SigmaTable, StepPlan, default_steps, scheduled_steps
from lib_latent_upscale.webui.host.models import LoadedModel, is_flow_table
from lib_latent_upscale.webui.host.processing import option, schedule_options

__all__ = ["HostSampler", "beyond_table", "host_plan", "model_calls", "sampler_named"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HostSampler:
    """How a sampler of the host uses sigmas."""

    takes_sigmas: bool
    """False if it uses timesteps and ignores schedules (DDIM, PLMS, and UniPC in most hosts)."""
    discards_penultimate: bool
    """Whether the host leaves the smallest sigma above zero out."""
    stride: int
    """It uses every n-th entry of the model's table, including the last; 20 for v1.10.1's LCM."""
    schedule: str | None
    """The schedule type behind "Automatic"."""

    def table(self, model_sigmas: Tensor) -> Tensor:
        """The entries of the model's table that this sampler uses."""
        return model_sigmas[self.stride - 1 :: self.stride]


def sampler_named(name: str | None) -> HostSampler:
    """The host's sampler of this name, or one with default values if it has none."""
    from modules import sd_samplers

    config = sd_samplers.find_sampler_config(name)
    options = getattr(config, "options", {})
    return HostSampler(
        takes_sigmas=not _in("sd_samplers_timesteps", "samplers_data_timesteps", name),
        discards_penultimate=bool(
            options.get("discard_next_to_last_sigma") or option("always_discard_next_to_last_sigma", False)
        ),
        stride=_LCM_STRIDE if _in("sd_samplers_lcm", "samplers_data_lcm", name) else 1,
        schedule=options.get("scheduler"),
    )


_LCM_STRIDE = 20
"""`LCMCompVisDenoiser`: 50 of 1000 timesteps."""


def _in(module: str, table: str, name: str | None) -> bool:
    rows = getattr(sys.modules.get(f"modules.{module}"), table, ())
    return any(row.name == name for row in rows)


def host_plan(
    schedule_type: str | None,
    sampler: str,
    steps: int,
    strength: float,
    loaded: LoadedModel,
    model_sigmas: Tensor,
    *,
    exact: bool,
) -> StepPlan | None:
    """The steps that the host itself runs, from its own function for the schedule type; None if that is not possible.

    Args:
        schedule_type: as in the host's menu.
        sampler: as in the host's menu.
        steps, strength: as asked for, denoising strength in 0 to 1.
        loaded: the model that it will run.
        model_sigmas: its table, ascending.
        exact: whether all of the steps run (`setup_img2img_steps` in the host).
    """
    demands = sampler_named(sampler)
    runs = min(steps, scheduled_steps(steps, strength)) if exact else default_steps(steps, strength)
    length = max(scheduled_steps(steps, strength), 1) if exact else steps
    try:
        sigmas = _sigmas(schedule_type, demands, length + demands.discards_penultimate, loaded, model_sigmas)
    except Exception:  # noqa: BLE001  # a schedule of another extension may ask for anything
        _log.debug("no plot of %s", schedule_type, exc_info=True)
        return None
    if demands.discards_penultimate:
        sigmas = torch.cat([sigmas[:-2], sigmas[-1:]])
    return StepPlan(sigmas, length - runs if strength > 0 else len(sigmas) - 1)


def _sigmas(
    schedule_type: str | None, demands: HostSampler, steps: int, loaded: LoadedModel, model_sigmas: Tensor
) -> Tensor:
    """As `KDiffusionSampler.get_sigmas` of v1.10.1 asks for them."""
    from modules import sd_schedulers

    table = demands.table(model_sigmas)
    name = demands.schedule if schedule_type in (None, "", "Automatic") else schedule_type
    scheduler = sd_schedulers.schedulers_map.get(name)
    inner = _schedule_of(loaded, table)
    if scheduler is None or scheduler.function is None:
        sigmas: Tensor = inner.get_sigmas(steps)
        return sigmas.float().cpu()
    chosen, _ = schedule_options()
    ends = {"sigma_min": table[0].item(), "sigma_max": table[-1].item(), **chosen}
    if getattr(scheduler, "default_rho", -1) == -1:
        ends.pop("rho", None)
    if getattr(scheduler, "need_inner_model", False):
        ends["inner_model"] = inner
    made: Tensor = scheduler.function(n=steps, **ends, device=torch.device("cpu"))
    return made.float().cpu()


def beyond_table(plan: StepPlan | None, model_sigmas: Tensor) -> str:
    """What to tell users of steps that start above a flow-matching model's largest sigma; empty if they do not.

    With "Automatic", Forge and ersatzForge take positions in Flux.1's table, up to 9999, for sigmas; Neo's get to 1.58.
    """
    if plan is None or not plan.steps or not is_flow_table(model_sigmas) or plan.run[0] <= _PURE_NOISE:
        return ""
    return _BEYOND.format(plan.run[0].item())


_PURE_NOISE = 1.01
"""A flow-matching model's largest sigma, with room for rounding."""

_BEYOND = (
    "the WebUI's own schedule starts from σ {0:.4g} with this model, whose pure noise is 1, which spoils the picture; "
    "choose another Schedule type, such as Simple, or a scheduler of this script."
)


def _schedule_of(loaded: LoadedModel, table: Tensor) -> Any:
    """What schedule types ask about a model: the host's own view of it, k-diffusion's, or ours if it has neither."""
    external = import_k_diffusion("external")
    own_view = getattr(external, "ForgeScheduleLinker", None)
    if own_view and loaded.predictor is not None and torch.equal(loaded.predictor.sigmas.cpu().float(), table):
        view = own_view(loaded.predictor)
        view.inner_model = loaded.model  # as Forge and its forks set it, for schedule types that ask the model itself
        return view
    if hasattr(external, "DiscreteSchedule"):
        return external.DiscreteSchedule(table, quantize=option("enable_quantization", False))
    return _Schedule(table)


class _Schedule:
    """As Forge Neo's `ForgeScheduleLinker`, which needs a loaded model: log-linear between the table's entries."""

    def __init__(self, table: Tensor) -> None:
        self.sigmas = table
        self._table = SigmaTable(table.double().numpy())

    def sigma_to_t(self, sigma: Tensor) -> Tensor:
        return (self.sigmas - sigma).abs().argmin()

    def t_to_sigma(self, positions: Tensor) -> Tensor:
        return torch.as_tensor(self._table.sigma_at(positions.double().numpy()))

    def get_sigmas(self, n: int) -> Tensor:
        return torch.cat([self.t_to_sigma(torch.linspace(self._table.t_max, 0, n)), torch.zeros(1)])


@contextmanager
def model_calls(sampler: Any) -> Iterator[Callable[[], int | None]]:
    """Count how often a sampler of the host calls its model; the result is None if it is called in an unknown way."""
    model, counted = getattr(sampler, "model_wrap_cfg", None), [0]

    def count(*_: Any) -> None:
        counted[0] += 1

    if not isinstance(model, torch.nn.Module):
        yield lambda: None
        return
    hook = model.register_forward_pre_hook(count)
    try:
        yield lambda: counted[0]
    finally:
        hook.remove()
