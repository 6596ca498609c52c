"""Everything a person can choose about a latent upscale, and how it is written into the picture's infotext."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lib_latent_upscale.options import AUTOMATIC, Settings, Table, option

__all__ = ["AUTOMATIC", "METHODS", "SCHEDULERS", "UpscaleSettings"]

METHODS = (Table("lib_latent_upscale.interpolation", "INTERPOLATIONS"),)
"""Where the names of the interpolations are."""

SCHEDULERS = (Table("lib_latent_upscale.schedules", "SCHEDULES"), AUTOMATIC)
"""Where the names of the schedules are, and what leaves the choice to the host."""


@dataclass(frozen=True)
class UpscaleSettings(Settings):
    """Settings of one latent upscale; invalid ones cannot exist.

    Raises:
        SettingsError: a value that is not allowed; the message names the field, the value and what is allowed.
    """

    FLAGS: ClassVar[str] = "--"

    method: str = option(
        "nearest-exact",
        choices=METHODS,
        label="Upscale method",
        infotext="Latent upscale method",
        axis="Method",
        tip="how latents are enlarged; nearest-exact is the sharpest, bicubic the smoothest without blur",
    )
    scheduler: str = option(
        "simple",
        choices=SCHEDULERS,
        label="Scheduler",
        infotext="Latent upscale scheduler",
        tip="the sigmas of the steps, in place of the WebUI's schedule type; automatic leaves them to the host",
    )
    exact_steps: bool = option(
        True,
        label="Exact steps",
        infotext="Latent upscale exact steps",
        tip="run all of the sampling steps, whatever the denoising strength",
    )
    keep_statistics: bool = option(
        False,
        label="Keep statistics",
        infotext="Latent upscale keep statistics",
        tip="give enlarged latents back the contrast that interpolation takes",
    )
    matched_noise: bool = option(
        False,
        label="Matched noise",
        infotext="Latent upscale matched noise",
        tip="start every scheduler at the sigma where normal would start, to compare them",
    )
