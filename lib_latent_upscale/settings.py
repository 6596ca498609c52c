"""Everything a person can choose about a latent upscale, and how it is written into the picture's infotext."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lib_latent_upscale.options import AUTOMATIC, Settings, Table, option

if TYPE_CHECKING:
    from torch import Tensor

    from lib_latent_upscale.schedules import StepPlan

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

    HEADING: ClassVar[str] = "Latent upscale"
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

    def enlarge(self, latent: Tensor, size: tuple[int, int]) -> Tensor:
        """The latent (batch, channels, h, w) at `size` (height, width) in cells, as these settings ask for it."""
        from lib_latent_upscale.interpolation import interpolate_latent

        return interpolate_latent(latent, size, self.method, keep_statistics=self.keep_statistics)

    def plan(
        self,
        steps: int,
        denoising_strength: float,
        model_sigmas: Tensor,
        *,
        host_schedule: str = "normal",
        discard_penultimate: bool = False,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
        rho: float | None = None,
    ) -> StepPlan:
        """The sigmas that these settings run.

        Args:
            steps, denoising_strength: as asked for.
            model_sigmas: the model's own table, ascending.
            host_schedule: what the host runs by itself, a name in `SCHEDULES`; used where the schedule is left to it.
            discard_penultimate: for samplers that leave the smallest sigma above zero out.
            sigma_min, sigma_max, rho: the person's own ends and curvature of schedules.

        Raises:
            ValueError: as `plan_steps`.
        """
        from lib_latent_upscale.schedules import plan_steps

        start = self._start_sigma(steps, denoising_strength, model_sigmas)
        return plan_steps(
            host_schedule if self.scheduler == AUTOMATIC else self.scheduler,
            steps,
            denoising_strength,
            model_sigmas,
            exact=self.exact_steps,
            sigma_min=sigma_min,
            sigma_max=sigma_max if start is None else None,
            rho=rho,
            start_sigma=start,
            discard_penultimate=discard_penultimate,
        )

    def _start_sigma(self, steps: int, denoising_strength: float, model_sigmas: Tensor) -> float | None:
        """Where the first step starts, if not where the schedule itself stands after the cut."""
        if not self.matched_noise or denoising_strength == 0:
            return None
        from lib_latent_upscale.schedules import plan_steps

        return plan_steps("normal", steps, denoising_strength, model_sigmas).run[0].item()

    def host_sigmas(
        self,
        length: int,
        steps: int,
        denoising_strength: float,
        model_sigmas: Tensor,
        *,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
        rho: float | None = None,
    ) -> Tensor:
        """A schedule of `length` steps for a host that cuts it itself, so that what is left is what `plan` runs.

        The host asks for as many steps as `scheduled_steps` has, and for one more with samplers whose penultimate
        sigma it then drops. The other arguments are those of `plan`.

        Returns:
            `length + 1` values, the last 0; what will be cut off may repeat the first sigma that runs.
        """
        import torch

        from lib_latent_upscale.schedules import get_sigmas, plan_steps, scheduled_steps

        start = self._start_sigma(steps, denoising_strength, model_sigmas)
        if start is None:
            return get_sigmas(self.scheduler, length, model_sigmas, sigma_min=sigma_min, sigma_max=sigma_max, rho=rho)
        dropped = length - scheduled_steps(steps, denoising_strength)
        run = plan_steps(
            self.scheduler,
            steps + dropped,
            denoising_strength,
            model_sigmas,
            start_sigma=start,
            sigma_min=sigma_min,
            rho=rho,
        ).run
        return torch.cat([run[:1].expand(length + 1 - len(run)), run])
