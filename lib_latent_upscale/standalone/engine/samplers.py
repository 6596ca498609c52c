"""The WebUI's samplers by name, on k-diffusion's functions, with the WebUI's conventions about noise and sigmas.

torch and k-diffusion are imported when something is sampled, so that the names cost nothing.
"""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any

from lib_latent_upscale.standalone.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from lib_latent_upscale.schedules import StepPlan
    from lib_latent_upscale.standalone.engine.generation import GenerationSettings

__all__ = [
    "SAMPLERS",
    "Sampler",
    "SeededNoise",
    "import_k_diffusion",
    "plan_generation",
    "run_sampler",
    "sampler_named",
]


@dataclass(frozen=True)
class Sampler:
    """How the WebUI v1.10.1 runs one of k-diffusion's samplers (`samplers_k_diffusion` there)."""

    function: str
    """Name in k_diffusion.sampling."""
    automatic: str = "normal"
    """The schedule behind the WebUI's schedule type "Automatic"."""
    brownian: bool = False
    """Takes its noise from a Brownian tree, so that it does not depend on the number of steps."""
    discards_penultimate: bool = False
    """Works on a schedule of one step more whose last sigma above 0 is left out."""
    evaluations: int = 1
    """Calls of the model a step, the last step excepted."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the function."""


SAMPLERS: Mapping[str, Sampler] = MappingProxyType(
    {
        "Euler": Sampler("sample_euler"),
        "Euler a": Sampler("sample_euler_ancestral"),
        "Heun": Sampler("sample_heun", evaluations=2),
        "LMS": Sampler("sample_lms"),
        "DPM2": Sampler("sample_dpm_2", "karras", discards_penultimate=True, evaluations=2),
        "DPM2 a": Sampler("sample_dpm_2_ancestral", "karras", discards_penultimate=True, evaluations=2),
        "DPM++ 2S a": Sampler("sample_dpmpp_2s_ancestral", "karras", evaluations=2),
        "DPM++ 2M": Sampler("sample_dpmpp_2m", "karras"),
        "DPM++ SDE": Sampler("sample_dpmpp_sde", "karras", brownian=True, evaluations=2),
        "DPM++ 2M SDE": Sampler("sample_dpmpp_2m_sde", "exponential", brownian=True),
        "DPM++ 2M SDE Heun": Sampler(
            "sample_dpmpp_2m_sde", "exponential", brownian=True, options={"solver_type": "heun"}
        ),
        "DPM++ 3M SDE": Sampler("sample_dpmpp_3m_sde", "exponential", brownian=True, discards_penultimate=True),
    }
)


def sampler_named(name: str) -> Sampler:
    """The sampler of this name; InputError with the known names where there is none."""
    try:
        return SAMPLERS[name]
    except KeyError:
        raise InputError(f"Unknown sampler {name!r}; known are: {', '.join(SAMPLERS)}.") from None


class SeededNoise:
    """Gaussian noise of a batch of pictures, each from its own seed, made on the CPU whatever the device.

    The first draw is the starting noise, later ones are what ancestral samplers add: the order of the WebUI's
    `rng.ImageRNG` with its setting "Random number generator source: CPU".
    """

    def __init__(self, seeds: Sequence[int], shape: tuple[int, ...]) -> None:
        import torch

        self.seeds = list(seeds)
        self.shape = shape
        self._generators = [torch.Generator("cpu").manual_seed(seed) for seed in self.seeds]

    def draw(self) -> Tensor:
        """The next noise: float32 (pictures, channels, height, width) on the CPU."""
        import torch

        return torch.stack([torch.randn(self.shape, generator=generator) for generator in self._generators])


def plan_generation(generation: GenerationSettings, model_sigmas: Tensor) -> StepPlan:
    """The sigmas of a generation: schedule by name, or the sampler's own where it is left to the host, and the cut."""
    from lib_latent_upscale.schedules import plan_steps
    from lib_latent_upscale.settings import AUTOMATIC

    sampler, upscale = sampler_named(generation.sampler), generation.upscale
    name = sampler.automatic if upscale.scheduler == AUTOMATIC else upscale.scheduler
    strength, steps = generation.denoising_strength, generation.steps
    start = None
    if upscale.matched_noise and strength > 0:
        start = plan_steps("normal", steps, strength, model_sigmas).run[0].item()
    return plan_steps(
        name,
        steps,
        strength,
        model_sigmas,
        exact=upscale.exact_steps,
        start_sigma=start,
        discard_penultimate=sampler.discards_penultimate,
    )


def import_k_diffusion(part: str) -> ModuleType:
    """One of k-diffusion's modules; the import takes seconds and warns about things that are not used here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(f"k_diffusion.{part}")


def _brownian_noise(latent: Tensor, sigmas: Tensor, seeds: list[int]) -> Callable[[Tensor, Tensor], Tensor]:
    """Noise from one Brownian tree a picture over the whole schedule, on the CPU: the same on every device."""
    positive = sigmas[sigmas > 0]
    lowest, highest = positive.min(), positive.max()
    tree = import_k_diffusion("sampling").BrownianTreeNoiseSampler(latent.cpu(), lowest, highest, seed=seeds)
    return lambda sigma, sigma_next: tree(sigma.cpu(), sigma_next.cpu()).to(latent.device)


def run_sampler(
    sampler: Sampler,
    model: Callable[..., Tensor],
    latent: Tensor,
    plan: StepPlan,
    noise: SeededNoise,
    *,
    callback: Callable[[dict[str, Any]], None] | None = None,
) -> Tensor:
    """Denoise `latent` (batch, channels, h, w), already noised to the plan's first sigma, along the plan.

    `model(x, sigma)` returns the denoised latent. A plan without steps returns the latent as it is.
    """
    if plan.steps == 0:
        return latent
    if plan.steps == 1:  # to zero in one step is the same for all; k-diffusion's DPM++ 2M SDE and 3M SDE fail on it
        sampler = SAMPLERS["Euler"]
    function = getattr(import_k_diffusion("sampling"), sampler.function)
    arguments = dict(sampler.options)
    if sampler.brownian:
        arguments["noise_sampler"] = _brownian_noise(latent, plan.sigmas, noise.seeds)
    elif "noise_sampler" in inspect.signature(function).parameters:
        arguments["noise_sampler"] = lambda *_: noise.draw().to(latent)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Should have t[ab]")  # torchsde, of a sigma's last digit
        result: Tensor = function(
            model, latent, plan.run.to(latent.device), callback=callback, disable=True, **arguments
        )
    return result
