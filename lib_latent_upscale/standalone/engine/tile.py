"""Tile ControlNet: what the picture that is enlarged adds to each call of the UNet."""

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
"""Latent cells to each side over which tile_colorfix averages: sd-webui-controlnet's default."""
_SHARPNESS = 0.01
"""Share of blur in the negative side of tile_colorfix+sharp: sd-webui-controlnet's default, 1 %."""


@dataclass(frozen=True, eq=False)
class Control:
    """The tile ControlNet of one run."""

    network: Any
    """diffusers' ControlNetModel."""
    picture: Tensor
    """(pictures, 3, height, width) in 0 to 1, as large as the result before it is cropped."""
    settings: TileSettings
    sigmas: Tensor
    """The sigmas that run, descending, the last 0."""

    def at(self, sigma: Tensor) -> tuple[Control | None, Control | None]:
        """The control for the prompt and for the negative prompt at a sigma; None for no control.

        Second-order samplers also call the model between two steps: such a call belongs to the step that has begun.
        """
        step = int((self.sigmas[:-1] >= float(sigma.max()) * (1 - 1e-5)).sum()) - 1
        if self.settings.weight == 0 or step not in controlled_steps(self.settings, len(self.sigmas) - 1):
            return None, None
        return self, (None if self.settings.control_mode == "ControlNet is more important" else self)

    def residuals(self, latent: Tensor, timestep: Tensor, **conditioning: Any) -> dict[str, Any]:
        """Arguments for the UNet: what it adds to its blocks. `latent`, `timestep` and `conditioning` are the UNet's.

        In control modes other than Balanced, finer blocks have less weight: from 0.1 to 1 in equal logarithmic steps,
        like diffusers' guess mode and, within 1 % for SD 1.x, sd-webui-controlnet.
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
    """tile_colorfix: the local means of the denoised latent are replaced by those of the control picture.

    As in sd-webui-controlnet (`hook.py`): at every step the means over 17x17 cells are subtracted, and those of the
    control picture added, in proportion to the weight of the control up to 1.
    """

    means: Tensor
    """Local means of the control picture's latent, (pictures, channels, h, w)."""
    share: float
    """Share of the corrected latent, 0 to 1."""
    sharpness: float = 0.0
    """Share of blur in the negative side, away from which guidance moves the result; for tile_colorfix+sharp."""

    def __call__(self, denoised: Tensor, *, negative: bool = False) -> Tensor:
        """A denoised latent (pictures, channels, h, w) with the control picture's colours."""
        fixed = denoised - means(denoised) + self.means.to(denoised)
        if negative and self.sharpness:
            fixed = torch.lerp(fixed, means(fixed), self.sharpness)
        return torch.lerp(denoised, fixed, self.share)


def means(latent: Tensor) -> Tensor:
    """Means over 17x17 cells of a latent (batch, channels, h, w), of the same shape; its edges are repeated outside."""
    side = 2 * _VARIATION + 1
    return F.avg_pool2d(F.pad(latent, (_VARIATION,) * 4, mode="replicate"), side, stride=1)


def controlled_steps(settings: TileSettings, steps: int) -> range:
    """The steps (from 0) that lie entirely between start and end, as in diffusers' ControlNet pipelines.

    Raises:
        InputError: there is none, so the picture would be made without control.
    """
    inside = [i for i in range(steps) if i / steps >= settings.start and (i + 1) / steps <= settings.end]
    if steps and not inside:
        raise InputError(
            f"Tile ControlNet from {settings.start:g} to {settings.end:g} holds none of the {steps} steps: choose a "
            "wider range or more steps."
        )
    return range(inside[0], inside[-1] + 1) if inside else range(0)


def check_range(generation: GenerationSettings) -> None:
    """Check the range of controlled steps before a model is loaded, on which the number of steps does not depend.

    Raises:
        InputError: as for `controlled_steps`.
    """
    tile = generation.tile
    if tile is not None:
        controlled = second_pass(generation)[1] if tile.second_pass else generation
        controlled_steps(tile, controlled.plan(sd1_sigmas()).steps)


def control_picture(pictures: Tensor, size: tuple[int, int], settings: TileSettings) -> Tensor:
    """The pictures that the ControlNet sees, enlarged with Lanczos.

    tile_resample first shrinks them by the down-sampling rate, so that the model sees less detail and invents more.

    Args:
        pictures: (pictures, 3, h, w), RGB in -1 to 1.
        size: (height, width) of the result in pixels.
        settings: preprocessor and down-sampling rate.

    Returns:
        (pictures, 3, height, width) in 0 to 1.
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
    """The colour correction of the preprocessor; None if it has none.

    Args:
        vae: diffusers' AutoencoderKL.
        picture: the control pictures, (pictures, 3, height, width) in 0 to 1.
        cell: side of a latent cell in pixels.
        settings: preprocessor and weight.
    """
    if not settings.preprocessor.startswith("tile_colorfix"):
        return None
    latent = encode_picture(vae, picture * 2 - 1, cell)
    sharpness = _SHARPNESS if settings.preprocessor.endswith("+sharp") else 0.0
    return ColourFix(means(latent), min(settings.weight, 1.0), sharpness)


def second_pass(generation: GenerationSettings) -> tuple[GenerationSettings, GenerationSettings]:
    """The two runs of a generation with a second pass: the upscale without control, and the pass over its result.

    Raises:
        ValueError: it has no tile ControlNet.
    """
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
