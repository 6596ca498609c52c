"""Everything a person can choose about a latent upscale, and how it is written into the picture's infotext."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lib_latent_upscale.options import AUTOMATIC, Settings, Table, option

__all__ = ["AUTOMATIC", "METHODS", "SCHEDULERS", "SCHEDULES", "UpscaleSettings"]

METHODS = (Table("lib_latent_upscale.interpolation", "INTERPOLATIONS"),)
"""Where the names of the interpolations are."""

SCHEDULES = Table("lib_latent_upscale.schedules", "SCHEDULES")
"""Where the names of the schedules are."""

SCHEDULERS = (SCHEDULES, AUTOMATIC)
"""What may stand for a schedule: a name of ours, or what leaves the choice to the host."""


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
        tip="how latents are enlarged, in place of the WebUI's bilinear",
    )
    scheduler: str = option(
        "simple",
        choices=SCHEDULERS,
        label="Scheduler",
        infotext="Latent upscale scheduler",
        tip="the sigmas of the steps, in place of the WebUI's schedule type; automatic keeps that",
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
