"""Samplers of the x4 upscaler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["SAMPLERS", "Sampler"]


@dataclass(frozen=True)
class Sampler:
    """A row of `SAMPLERS`."""

    function: str
    """Name in k_diffusion.sampling."""
    evaluations: int = 1
    """Calls of the model a step, except for a step to zero, which takes one."""
    brownian: bool = False
    """Takes its noise from a Brownian tree."""
    ends_at_zero: bool = True
    """False: the last sigma is the smallest of the model's table, as in the published pipeline's DDIM."""


SAMPLERS: Mapping[str, Sampler] = MappingProxyType(
    {
        "DPM++ 2M": Sampler("sample_dpmpp_2m"),
        "Euler": Sampler("sample_euler"),
        "Euler a": Sampler("sample_euler_ancestral"),
        "Heun": Sampler("sample_heun", evaluations=2),
        "LMS": Sampler("sample_lms"),
        "DPM2": Sampler("sample_dpm_2", evaluations=2),
        "DPM2 a": Sampler("sample_dpm_2_ancestral", evaluations=2),
        "DPM++ 2S a": Sampler("sample_dpmpp_2s_ancestral", evaluations=2),
        "DPM++ SDE": Sampler("sample_dpmpp_sde", evaluations=2, brownian=True),
        "DPM++ 2M SDE": Sampler("sample_dpmpp_2m_sde", brownian=True),
        "DPM++ 3M SDE": Sampler("sample_dpmpp_3m_sde", brownian=True),
        "DDIM": Sampler("sample_euler", ends_at_zero=False),
    }
)
"""Samplers by the names people know. DDIM (eta 0) is Euler's method in the space of k-diffusion, section 4.3 of
arXiv:2010.02502; with the schedule "ddim_uniform" it takes the steps of diffusers' StableDiffusionUpscalePipeline."""
