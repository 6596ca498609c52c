"""Tile ControlNet at work: what the picture that is being enlarged adds to each call of the UNet."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from lib_latent_upscale.errors import InputError
from lib_latent_upscale.noise_tables import sd1_sigmas
from lib_latent_upscale.settings import UpscaleSettings
from lib_latent_upscale.standalone.engine.generation import GenerationSettings
from lib_latent_upscale.standalone.engine.vae import encode_picture
from lib_latent_upscale.tile_settings import TileSettings

__all__ = ["ColourFix", "Control", "check_range", "colour_fix", "control_picture", "controlled_steps", "second_pass"]

_VARIATION = 8
"""Latent cells to each side over which tile_colorfix takes means: the default of sd-webui-controlnet."""
_SHARPNESS = 0.01
"""Share of blur in the negative side of tile_colorfix+sharp: sd-webui-controlnet's default of 1, in hundredths."""


@dataclass(frozen=True, eq=False)
class Control:
    """The tile ControlNet of one run."""

    network: Any
    """diffusers' ControlNetModel."""
    picture: Tensor
    """(pictures, 3, height, width) in 0 to 1, as large as the result before it is cut to size."""
    settings: TileSettings
    sigmas: Tensor
    """Of the run, descending, 0 at the end."""

    def at(self, sigma: Tensor) -> tuple[Control | None, Control | None]:
        """The control of the prompt and of the negative prompt at a sigma; None where there is none.

        Samplers of a second order call the model between two steps, too: a call belongs to the step it lies in.
        """
        step = int((self.sigmas[:-1] >= float(sigma.max()) * (1 - 1e-5)).sum()) - 1
        if self.settings.weight == 0 or step not in controlled_steps(self.settings, len(self.sigmas) - 1):
            return None, None
        return self, (None if self.settings.control_mode == "ControlNet is more important" else self)

    def residuals(self, latent: Tensor, timestep: Tensor, **conditioning: Any) -> dict[str, Any]:
        """What the UNet is to add to its blocks; arguments as the UNet gets them.

        Where not everything is balanced, the blocks count for less the finer they are: from a tenth to the whole,
        evenly in the logarithm. So do diffusers' guess mode and, for SD 1.x within 1 %, sd-webui-controlnet.
        """
        picture = self.picture.to(latent).repeat(len(latent) // len(self.picture), 1, 1, 1)
        blocks, middle = self.network(
            latent,
            timestep,
            controlnet_cond=picture,
            conditioning_scale=self.settings.weight,
            guess_mode=self.settings.control_mode != "Balanced",
            return_dict=False,
            **conditioning,
        )
        return {"down_block_additional_residuals": blocks, "mid_block_additional_residual": middle}


@dataclass(frozen=True, eq=False)
class ColourFix:
    """tile_colorfix: the means of the latent follow the control picture's, at every step.

    sd-webui-controlnet (`hook.py`) does it to what the UNet predicts: of the denoised latent it takes the means over
    17x17 cells away and adds the control picture's; by the control's weight up to 1, and in every step.
    """

    means: Tensor
    """Of the control picture's latent, (pictures, channels, h, w)."""
    share: float
    """How much of the corrected latent is used, 0 to 1."""
    sharpness: float = 0.0
    """How much the negative side is blurred, which guidance then pushes away from; tile_colorfix+sharp."""

    def __call__(self, denoised: Tensor, *, negative: bool = False) -> Tensor:
        """A denoised latent with the picture's colours."""
        fixed = denoised - means(denoised) + self.means.to(denoised)
        if negative and self.sharpness:
            fixed = torch.lerp(fixed, means(fixed), self.sharpness)
        return torch.lerp(denoised, fixed, self.share)


def means(latent: Tensor) -> Tensor:
    """Means over 17x17 cells; beyond its edges the latent goes on as it ends."""
    side = 2 * _VARIATION + 1
    return F.avg_pool2d(F.pad(latent, (_VARIATION,) * 4, mode="replicate"), side, stride=1)


def controlled_steps(settings: TileSettings, steps: int) -> range:
    """The steps (from 0) that lie whole between start and end, as in diffusers' ControlNet pipelines.

    Raises:
        InputError: none of them does: the picture would come out without control.
    """
    inside = [i for i in range(steps) if i / steps >= settings.start and (i + 1) / steps <= settings.end]
    if steps and not inside:
        raise InputError(
            f"Tile ControlNet from {settings.start:g} to {settings.end:g} holds none of the {steps} steps: choose a "
            "wider range or more steps."
        )
    return range(inside[0], inside[-1] + 1) if inside else range(0)


def check_range(generation: GenerationSettings) -> None:
    """Check the range of steps before a model is loaded; the number of steps does not depend on it.

    Raises:
        InputError: as for `controlled_steps`.
    """
    tile = generation.tile
    if tile is not None:
        controlled = second_pass(generation)[1] if tile.second_pass else generation
        controlled_steps(tile, controlled.plan(sd1_sigmas()).steps)


def control_picture(pictures: Tensor, size: tuple[int, int], settings: TileSettings) -> Tensor:
    """The control picture (pictures, 3, height, width) in 0 to 1 of RGB pictures (pictures, 3, h, w) in -1 to 1.

    `size` is (height, width) in pixels. tile_resample first shrinks each picture by the down-sampling rate, so that
    the model sees less of it and invents more; then, and without it, the picture is enlarged (Lanczos).
    """
    shown = [_shown(picture, size, settings) for picture in pictures]
    return torch.stack([torch.from_numpy(np.asarray(image, np.float32) / 255).permute(2, 0, 1) for image in shown])


def _shown(picture: Tensor, size: tuple[int, int], settings: TileSettings) -> Image.Image:
    values = ((picture + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).cpu()
    image = Image.fromarray(values.numpy())
    rate = settings.down_sampling_rate
    if settings.preprocessor == "tile_resample" and rate > 1:
        image = image.resize([max(round(side / rate), 1) for side in image.size], Image.Resampling.BOX)
    return image.resize((size[1], size[0]), Image.Resampling.LANCZOS)


def colour_fix(vae: Any, picture: Tensor, cell: int, settings: TileSettings) -> ColourFix | None:
    """The colour correction that the preprocessor asks for; None for those that ask for none."""
    if not settings.preprocessor.startswith("tile_colorfix"):
        return None
    latent = encode_picture(vae, picture * 2 - 1, cell)
    sharpness = _SHARPNESS if settings.preprocessor.endswith("+sharp") else 0.0
    return ColourFix(means(latent), min(settings.weight, 1.0), sharpness)


def second_pass(generation: GenerationSettings) -> tuple[GenerationSettings, GenerationSettings]:
    """A generation with a second pass as two: the upscale without control, and the pass over its result."""
    tile = generation.tile
    if tile is None:
        raise ValueError("the generation has no tile ControlNet")
    scheduler = tile.second_scheduler
    second = replace(
        generation,
        steps=tile.second_steps,
        denoising_strength=tile.second_denoising_strength,
        upscale=UpscaleSettings("nearest-exact", scheduler=scheduler, exact_steps=generation.upscale.exact_steps),
        tile=replace(tile, second_pass=False),
    )
    return replace(generation, tile=None), second
