"""Everything a user can choose about a latent upscale, and how it is written into the picture's infotext."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from lib_latent_upscale.method_files import FILES
from lib_latent_upscale.options import AUTOMATIC, Settings, Table, option

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from lib_latent_upscale.schedules import Limits, StepPlan

__all__ = ["AUTOMATIC", "METHODS", "SCHEDULERS", "SCHEDULES", "TITLE", "WEIGHTS_LABEL", "UpscaleSettings"]

TITLE = "Latent Upscale"
"""Name of the WebUI's script, also in infotexts: a WebUI selects the script when such a text is pasted."""

METHODS = (
    Table("lib_latent_upscale.methods", "METHODS"),
    Table("lib_latent_upscale.interpolation", "INTERPOLATIONS"),
    FILES,
)
"""Tables of the methods' names: other methods, interpolations, and files."""

WEIGHTS_LABEL = "Latent upscale weights"
"""Infotext label of the hash of a learned method's weights."""

STARTS = ("schedule", "continuous", "matched")
"""Values of `starting_noise`."""

SCHEDULES = Table("lib_latent_upscale.schedules", "SCHEDULES")
"""Table of the schedules' names."""

SCHEDULERS = (SCHEDULES, AUTOMATIC)
"""Allowed schedulers: one of our schedules, or the host's own."""


@dataclass(frozen=True)
class UpscaleSettings(Settings):
    """Settings of one latent upscale; invalid ones cannot exist.

    Raises:
        SettingsError: a value that is not allowed; the message names the field, the value and what is allowed.
    """

    HEADING: ClassVar[str] = "Latent upscale"
    FLAGS: ClassVar[str] = "--"

    method: str = option(
        AUTOMATIC,
        choices=METHODS,
        label="Upscale method",
        infotext="Latent upscale method",
        axis="Method",
        tip="how latents are enlarged, instead of the WebUI's bilinear; automatic: learned if a network knows the "
        "model's latents, else pixels; these are for denoising strengths of 0.1 to 0.35, interpolations for 0.3 to 0.6",
    )
    scheduler: str = option(
        "simple",
        choices=SCHEDULERS,
        label="Scheduler",
        infotext="Latent upscale scheduler",
        tip="the sigmas of the steps, instead of the WebUI's schedule type; automatic keeps the WebUI's",
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
        tip="restore the contrast that interpolation takes from latents",
    )
    matched_noise: bool = option(
        False,
        label="Matched noise",
        infotext="Latent upscale matched noise",
        tip="start every scheduler at the sigma where normal would start, to compare them",
    )
    starting_noise: str = option(
        "schedule",
        choices=STARTS,
        label="Starting noise",
        infotext="Latent upscale starting noise",
        tip="schedule: rounded to whole steps, as in the WebUI; continuous: without jumps, for few steps; "
        "matched: continuous, and the same for every scheduler",
    )

    def matters(self, name: str) -> bool:
        """The default starting noise is not written: older pictures have no label for it."""
        return name != "starting_noise" or self.starting_noise != "schedule"

    @property
    def resizes_picture(self) -> bool:
        """Whether the picture is resized before it is encoded; only for `resolved` settings."""
        from lib_latent_upscale.methods import method_named

        return method_named(self.method).resizes_picture

    def resolved(self, *, family: str | None, factor: float) -> UpscaleSettings:
        """The settings that run, with the method that "automatic" means for this model.

        A host asks once, before it encodes, and writes these into the infotext, so that the picture can be made again.

        Args:
            family: family of the latents, a name in `learned.LATENTS`; None for all others.
            factor: how many times larger the result is, in the mean of both sides.
        """
        from lib_latent_upscale.methods import resolved_method

        return replace(self, method=resolved_method(self.method, family, factor))

    @property
    def starts_anywhere(self) -> bool:
        """Whether the first sigma is independent of the schedule's steps; then exactly the requested steps run."""
        return self.matched_noise or self.starting_noise != "schedule"

    def same_start(self, steps: int, denoising_strength: float) -> tuple[float, float]:
        """Between which denoising strengths the first sigma stays what it is at this one.

        Raises:
            ValueError: as `scheduled_steps`.
        """
        from lib_latent_upscale.schedules import default_steps, scheduled_steps

        total = scheduled_steps(steps, denoising_strength)
        if self.starting_noise != "schedule" or total == 0:
            return denoising_strength, denoising_strength
        if self.exact_steps or self.matched_noise:
            return steps / (total + 1), min(steps / total, 1.0)
        run = default_steps(steps, denoising_strength)
        return (run - 1) / steps, run / steps

    def enlarge(
        self,
        latent: Tensor,
        size: tuple[int, int],
        *,
        source: tuple[float, float] | None = None,
        family: str | None = None,
        file: Path | None = None,
    ) -> Tensor:
        """The enlarged latents, (batch, channels, *size).

        Args:
            latent: (batch, channels, h, w); of the resized picture where `resizes_picture`.
            size: (height, width) of the result in cells.
            source: (height, width) of the small picture in cells, fractions too; the latent's where it is left out.
            family: family of the latents, a name in `learned.LATENTS`; None for all others.
            file: of the user's own network, where the method names one.

        Raises:
            ValueError: the method cannot do it; the message says what can.
        """
        from lib_latent_upscale.methods import Enlargement, enlarge

        small = source or (latent.shape[-2], latent.shape[-1])
        asked = Enlargement(small, size, family, self.keep_statistics, file)
        return enlarge(self.method, latent, asked)

    def plan(
        self,
        steps: int,
        denoising_strength: float,
        model_sigmas: Tensor,
        *,
        host_schedule: str = "normal",
        discard_penultimate: bool = False,
        limits: Limits | None = None,
    ) -> StepPlan:
        """The sigmas that these settings run.

        Args:
            steps, denoising_strength: as asked for.
            model_sigmas: the model's own table, ascending.
            host_schedule: what the host runs by itself, a name in `SCHEDULES`; used where the schedule is left to it.
            discard_penultimate: for samplers that leave the smallest sigma above zero out.
            limits: the user's own limits and curvature of schedules.

        Raises:
            ValueError: as for `plan_steps`.
        """
        from lib_latent_upscale.schedules import Limits, plan_steps

        limits = limits or Limits()
        schedule = host_schedule if self.scheduler == AUTOMATIC else self.scheduler
        start = self._start_sigma(schedule, steps, denoising_strength, model_sigmas, limits)
        return plan_steps(
            schedule,
            steps,
            denoising_strength,
            model_sigmas,
            exact=self.exact_steps,
            start_sigma=start,
            discard_penultimate=discard_penultimate,
            limits=limits,
        )

    def _start_sigma(
        self, schedule: str, steps: int, denoising_strength: float, model_sigmas: Tensor, limits: Limits
    ) -> float | None:
        """The first sigma; None if it is that of the schedule after the cut."""
        if not self.starts_anywhere or denoising_strength == 0:
            return None
        from lib_latent_upscale.schedules import continuous_start, plan_steps

        if self.starting_noise == "schedule":  # matched noise as it was before there was a choice
            return plan_steps("normal", steps, denoising_strength, model_sigmas).run[0].item()
        if self.starting_noise == "matched":
            return continuous_start("normal", denoising_strength, model_sigmas)
        return continuous_start(schedule, denoising_strength, model_sigmas, limits)

    def host_sigmas(
        self,
        length: int,
        steps: int,
        denoising_strength: float,
        model_sigmas: Tensor,
        *,
        limits: Limits | None = None,
    ) -> Tensor:
        """A schedule of `length` steps for a host that cuts it itself, after which the steps of `plan` are left.

        The host asks for as many steps as `scheduled_steps` has, and for one more with samplers whose penultimate
        sigma it then drops. The other arguments are those of `plan`.

        Returns:
            `length + 1` values, the last 0; what will be cut off may repeat the first sigma that runs.
        """
        import torch

        from lib_latent_upscale.schedules import Limits, scheduled_steps, sigmas_from

        limits = limits or Limits()
        start = self._start_sigma(self.scheduler, steps, denoising_strength, model_sigmas, limits)
        if start is None:
            return limits.sigmas(self.scheduler, length, model_sigmas)
        dropped = length - scheduled_steps(steps, denoising_strength)
        run = sigmas_from(self.scheduler, steps + dropped, model_sigmas, start, limits)
        return torch.cat([run[:1].expand(length + 1 - len(run)), run])
