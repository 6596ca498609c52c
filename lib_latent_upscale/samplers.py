"""Samplers by the names that users know, on k-diffusion's functions; what those require is handled only here.

torch and k-diffusion are imported when something is sampled, so that the names cost nothing.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "GENERATION_SAMPLERS",
    "SAMPLERS",
    "X4_SAMPLERS",
    "Noise",
    "Sampler",
    "available",
    "import_k_diffusion",
    "run_sampler",
]


@dataclass(frozen=True)
class Sampler:
    """A row of `SAMPLERS`: how the WebUI v1.10.1 runs one of k-diffusion's samplers (`samplers_k_diffusion` there)."""

    function: str
    """Name in k_diffusion.sampling."""
    automatic: str = "normal"
    """The schedule behind the WebUI's schedule type "Automatic"."""
    brownian: bool = False
    """Whether its noise is from a Brownian tree, which does not depend on the number of steps."""
    discards_penultimate: bool = False
    """Whether the WebUI makes its schedule with one step more and leaves out the last sigma above 0."""
    evaluations: int = 1
    """Calls of the model per step; a step to zero needs only one."""
    ends_at_zero: bool = True
    """False: the last sigma is the smallest of the model's table, as in diffusers' DDIM."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Additional arguments of the function."""


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
        "DDIM": Sampler("sample_euler", ends_at_zero=False),
    }
)
"""Samplers by name. DDIM (eta 0) is Euler's method in the space of k-diffusion, section 4.3 of arXiv:2010.02502."""


GENERATION_SAMPLERS = tuple(name for name, sampler in SAMPLERS.items() if sampler.ends_at_zero)
"""Names of the samplers of a generation."""

X4_SAMPLERS = (
    "DPM++ 2M",
    "Euler",
    "Euler a",
    "Heun",
    "LMS",
    "DPM2",
    "DPM2 a",
    "DPM++ 2S a",
    "DPM++ SDE",
    "DPM++ 2M SDE",
    "DPM++ 3M SDE",
    "DDIM",
)
"""Names in `SAMPLERS`, the default first. DDIM with the schedule "ddim_uniform" takes the steps of diffusers'
StableDiffusionUpscalePipeline."""


@dataclass(frozen=True)
class Noise:
    """The noise for a sampler; k-diffusion's own would come from torch's global generator."""

    draw: Callable[[], Tensor]
    """Returns the next noise for an ancestral sampler, of the latent's shape."""
    seed: int | list[int]
    """Seed of the Brownian tree, or a list with one for each picture of the batch."""
    lowest: Any
    highest: Any
    """Range of sigmas of the Brownian tree."""


@contextmanager
def _without_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def import_k_diffusion(part: str) -> ModuleType:
    """`k_diffusion.sampling` or `.external`, without the rest of the package.

    Its own `__init__` imports clip, kornia and wandb, which takes seconds and is only needed for training. If the
    package is not imported yet, an empty one replaces it meanwhile; a later import by other code gets the real one.

    Raises:
        ModuleNotFoundError: k_diffusion is missing.
    """
    name = f"k_diffusion.{part}"
    if "k_diffusion" in sys.modules or name in sys.modules:
        with _without_warnings():
            return importlib.import_module(name)
    spec = importlib.util.find_spec("k_diffusion")
    if spec is None:
        raise ModuleNotFoundError(
            "k_diffusion is missing; install it with: pip install k-diffusion", name="k_diffusion"
        )
    bare = ModuleType("k_diffusion")
    bare.__path__ = list(spec.submodule_search_locations or [])
    sys.modules["k_diffusion"] = bare
    try:
        with _without_warnings():
            return importlib.import_module(name)
    finally:
        del sys.modules["k_diffusion"]


def available(names: Iterable[str]) -> list[str]:
    """Samplers whose function the installed k_diffusion has: Forge Neo's own has no `sample_dpm_2_ancestral`."""
    sampling = import_k_diffusion("sampling")
    return [name for name in names if hasattr(sampling, SAMPLERS[name].function)]


def run_sampler(
    sampler: Sampler,
    model: Callable[..., Tensor],
    latent: Tensor,
    sigmas: Tensor,
    noise: Noise,
    *,
    callback: Callable[[dict[str, Any]], None] | None = None,
) -> Tensor:
    """Denoise a latent along a schedule.

    Args:
        sampler: a row of `SAMPLERS`.
        model: `model(x, sigma)` returns the denoised latent.
        latent: (batch, channels, height, width), already noised to the first sigma.
        sigmas: decreasing, one more than steps; with a single one the latent comes back as it is.
        noise: of the same batch.
        callback: called after every step with k-diffusion's state, whose "i" counts from 0.
    """
    if len(sigmas) == 1:
        return latent
    if len(sigmas) == 2 and sigmas[-1] == 0:  # the same for all; k-diffusion's DPM++ 2M SDE and 3M SDE fail on it
        sampler = SAMPLERS["Euler"]
    function = getattr(import_k_diffusion("sampling"), sampler.function)
    arguments = dict(sampler.options)
    if sampler.brownian:
        arguments["noise_sampler"] = _brownian_noise(latent, noise)
    elif "noise_sampler" in inspect.signature(function).parameters:
        arguments["noise_sampler"] = lambda *_: noise.draw().to(latent)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Should have t[ab]")  # torchsde, of a sigma's last digit
        result: Tensor = function(model, latent, sigmas.to(latent.device), callback=callback, disable=True, **arguments)
    return result


def _brownian_noise(latent: Tensor, noise: Noise) -> Callable[[Tensor, Tensor], Tensor]:
    """Noise from one Brownian tree a picture over the whole schedule, on the CPU: the same on every device."""
    make = import_k_diffusion("sampling").BrownianTreeNoiseSampler
    tree = make(latent.cpu(), noise.lowest, noise.highest, seed=noise.seed)
    return lambda sigma, sigma_next: tree(sigma.cpu(), sigma_next.cpu()).to(latent.device)
