"""The model that the host has loaded: its latents, its noise table, and how hosts differ in them."""

from __future__ import annotations

import sys
from copy import deepcopy
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from modules import processing, sd_models
from torch import Tensor

from lib_latent_upscale.learned import family_of
from lib_latent_upscale.noise_tables import LEAST_ALPHA, sigmas_of
from lib_latent_upscale.webui.host.processing import option

__all__ = [
    "LoadedModel",
    "apply_noise_schedule",
    "follows_sigmas",
    "is_flow_model",
    "is_flow_table",
    "latent_family",
    "loaded_model",
    "makes_video",
    "model_sigmas",
    "side_multiple",
    "sides_without_rounding",
    "vae_scale_factor",
]


def vae_scale_factor() -> int:
    """Side of a latent cell in pixels, for the model that is loaded now."""
    return int(processing.opt_f)


def side_multiple(model: Any) -> int:
    """The sides of a picture must be multiples of this, in pixels.

    A transformer takes several cells at once (`patch_size`). What hosts pad there themselves is a copy of the other
    side, and shows at the edge.
    """
    places = ("forge_objects.unet.model.diffusion_model.patch_size", "model.diffusion_model.patch_size")
    patch = next((found for place in places if (found := _found(model, place)) is not None), 1)
    return vae_scale_factor() * int(patch if isinstance(patch, int) else patch[-1])


def sides_without_rounding(model: Any, given: tuple[int, int], found: tuple[int, int]) -> tuple[int, int]:
    """(width, height) as they were given, if the host has only rounded them down for the model since then.

    v1.10.1 does so with SD 3 (`fix_dimensions`), and a picture of 1080 rows would lose 8 of them.
    """
    fix = getattr(model, "fix_dimensions", None)
    return given if fix is not None and tuple(fix(*given)) == found else found


def makes_video(p: Any) -> bool:
    """Whether the pictures of the batch are the frames of a video, as in Forge Neo with Wan's models."""
    switched = _found(sys.modules.get("backend.args"), "dynamic_args.wan")
    return bool(switched and getattr(p.sd_model, "is_wan", False) and p.batch_size > 1)


def latent_family(model: Any) -> str | None:
    """Family of a model's latents, a name in `learned.LATENTS`; None for others, and if the host does not say.

    The numbers by which the host makes latents of what the autoencoder gives say it best: Chroma, Lumina 2 and Z-Image
    have Flux.1's, and hosts have names for few of them.
    """
    for place in _CONVERSIONS:
        numbers = _scale_and_shift(_found(model, place))
        if numbers is not None:
            return family_of(*numbers, _found(model, "forge_objects.vae.latent_channels"))
    said = [family for attribute, family in _FAMILIES if getattr(model, attribute, False) is True]
    return said[0] if said else None


_CONVERSIONS = (
    "forge_objects.vae.first_stage_model.process_in",
    "forge_objects.unet.model.latent_format.process_in",
    "latent_format.process_in",
)
"""Attributes that hold it in Forge, Neo and ersatzForge; in reForge; in v1.10.1 with SD 3."""


_FAMILIES = (
    ("is_flux2", None),
    ("is_wan", None),
    ("is_chromaDCT", None),
    ("is_sd3", "sd3"),
    ("is_sdxl", "sdxl"),
    ("is_flux", "flux1"),
    ("is_lumina2", "flux1"),
    ("is_sd2", "sd1"),
    ("is_sd1", "sd1"),
)
"""Attributes of hosts' models, and families of their latents. The first attribute that is true counts."""


def _scale_and_shift(process_in: Any) -> tuple[float, float] | None:
    """Scale and shift of a host's latents; (0, 0), which no family has, if each channel has its own."""
    if process_in is None:
        return None
    raw = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)
    try:
        made = process_in(raw)
        if made.shape != raw.shape:
            return 0.0, 0.0
        at_zero, at_one = (float(value) for value in made.flatten())
    except (AttributeError, RuntimeError, TypeError, ValueError):  # such as those that want as many channels
        return 0.0, 0.0
    scale = at_one - at_zero
    return (scale, -at_zero / scale) if scale else (0.0, 0.0)


def follows_sigmas(sampler: Any) -> bool:
    """Whether the sampler uses sigmas; DDIM, PLMS and UniPC use timesteps and ignore schedules."""
    return hasattr(sampler, "get_sigmas") and hasattr(sampler.model_wrap, "sigmas")


def model_sigmas(p: Any) -> Tensor:
    """The model's own table of sigmas, ascending. Forge's model wrapper is another class, with the same attribute."""
    table: Tensor = p.sampler.model_wrap.sigmas
    return table


@dataclass(frozen=True)
class LoadedModel:
    """The model that is loaded now, and what Forge and its forks place steps with; None where there is none."""

    model: Any
    predictor: Any

    def sigmas(self) -> Tensor | None:
        """Its noise table, ascending; None if there is no model or it has no such table."""
        sigmas = _found(self.predictor, "sigmas")
        if not isinstance(sigmas, Tensor):
            tables = (_found(self.model, place) for place in _TABLES)
            kept = next((table for table in tables if isinstance(table, Tensor)), None)
            if kept is None:
                return None
            sigmas = sigmas_of(kept.detach().cpu().double())
        sigmas = sigmas.detach().cpu().double()
        zero_terminal = option("sd_noise_schedule") == "Zero Terminal SNR" and not is_flow_table(sigmas)
        if zero_terminal and not _rescales_around_sampling(self.model):
            sigmas = _zero_terminal(sigmas)
        return sigmas.float()


def loaded_model(shift: float | None = None) -> LoadedModel:
    """The model that is loaded now.

    Args:
        shift: the request's, where the host sets that of the model to it (Forge Neo). The predictor is a copy then,
            since the model may be sampling with another one now.
    """
    model = getattr(sd_models.model_data, "sd_model", None)
    predictor = _found(model, "forge_objects.unet.model.predictor")
    if shift and getattr(model, "use_shift", False):
        predictor = deepcopy(predictor)
        predictor.set_parameters(shift=shift)
    return LoadedModel(model, predictor)


_TABLES = ("alphas_cumprod_original", "alphas_cumprod")
"""Attributes of v1.10.1's model that hold its noise table: as trained, and after changes.
Forge's forks also leave an `alphas_cumprod` on flow models after a timestep sampler, which is not theirs."""


def _zero_terminal(sigmas: Tensor) -> Tensor:
    """The table stretched so that the last step is almost pure noise; the first is unchanged.

    Algorithm 1 of arXiv 2305.08891, with the hosts' value for the last step, where no picture would be left.
    """
    signal = (sigmas**2 + 1).rsqrt()
    stretched = (signal - signal[-1]) * signal[0] / (signal[0] - signal[-1])
    alphas = stretched**2
    alphas[-1] = LEAST_ALPHA
    return sigmas_of(alphas)


def is_flow_model(p: Any) -> bool:
    """Whether the model of the sampler mixes picture and noise, as flow matching does, instead of adding noise."""
    return follows_sigmas(p.sampler) and is_flow_table(model_sigmas(p))


def is_flow_table(sigmas: Tensor) -> bool:
    """Whether a model's table is that of flow matching, where sigma is the share of noise."""
    return bool(sigmas.max() <= 1)


def _found(thing: Any, place: str) -> Any:
    try:
        return attrgetter(place)(thing)
    except AttributeError:
        return None


def apply_noise_schedule(p: Any) -> None:
    """Apply the host's option for the noise schedule to the model before the sampler reads its sigmas.

    v1.10.1 does it after `init`, so that a change takes effect only from the second picture on. Hosts without this
    function rescale the predictor's sigmas during sampling, and ours are read then.
    """
    apply = getattr(sd_models, "apply_alpha_schedule_override", None)
    if apply is not None and not _rescales_around_sampling(p.sd_model):
        apply(p.sd_model, p)


def _rescales_around_sampling(model: Any) -> bool:
    """Whether this is reForge's model.

    reForge changes it for one sampling, after img2img has read the model's sigmas, and keeps what it finds before as
    the original: if it were changed already, the host would stay so.
    """
    return _found(model, "forge_objects.unet.model.model_sampling") is not None
