"""The standalone engine: picture -> latent -> interpolation -> sampler -> picture, on one loaded model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lib_latent_upscale.comparison.metrics import plain_resize
from lib_latent_upscale.errors import GenerationError, InputError
from lib_latent_upscale.memory import on_device
from lib_latent_upscale.method_files import file_of
from lib_latent_upscale.methods import weights_of
from lib_latent_upscale.samplers import SAMPLERS, import_k_diffusion, run_sampler
from lib_latent_upscale.schedules import StepPlan
from lib_latent_upscale.settings import WEIGHTS_LABEL
from lib_latent_upscale.standalone.engine.generation import GenerationSettings, write_parameters
from lib_latent_upscale.standalone.engine.geometry import Fit, fit_picture, padded_picture
from lib_latent_upscale.standalone.engine.infotext import add_labels
from lib_latent_upscale.standalone.engine.models import LatentModel
from lib_latent_upscale.standalone.engine.noise import SeededNoise
from lib_latent_upscale.standalone.engine.prompts import Conditioning, encode_prompt
from lib_latent_upscale.standalone.engine.tile import (
    ColourFix,
    Control,
    colour_fix,
    control_picture,
    controlled_steps,
    second_pass,
)
from lib_latent_upscale.standalone.engine.tile_models import TileModel
from lib_latent_upscale.standalone.engine.vae import decode_latent, encode_picture

__all__ = ["Engine", "Prepared", "Progress", "Upscaled"]

Progress = Callable[[int, int], None]
"""Called with (steps done, steps in total)."""

_CELLS_AT_ONCE = 128 * 128
"""Latent cells: up to this number prompt and negative prompt go through the UNet together, above it one by one."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """What all variants of an upscale of the same pictures have in common, computed once."""

    fit: Fit
    pixels: Tensor
    """(pictures, 3, height, width) in -1 to 1, padded to whole latent cells."""
    latent: Tensor
    """(pictures, channels, h, w), not yet enlarged."""
    positive: Conditioning
    negative: Conditioning
    generation: GenerationSettings
    """The settings that it was prepared for; variants have the same size, prompts and seed."""
    seeds: tuple[int, ...]
    """One for each picture."""
    encode_resized: Callable[[], Tensor]
    """Encodes the pictures at the size of the result, for methods with `resizes_picture`."""

    @cached_property
    def resized_latent(self) -> Tensor:
        """Latents of the resized pictures, (pictures, channels, height, width); encoded when they are first needed."""
        return self.encode_resized()


@dataclass(frozen=True)
class Upscaled:
    """Finished pictures of one run."""

    pictures: list[Image.Image]
    plan: StepPlan
    """The steps of the latent upscale; those of a second pass are not included."""
    seconds: float
    """Time of enlarging, sampling and decoding."""
    generation: GenerationSettings
    """The settings that ran, with the method that "automatic" meant."""

    def made_with(self, asked: GenerationSettings) -> GenerationSettings:
        """The settings that ran for one of several pictures; `asked` are its own, such as its seed."""
        return replace(asked, upscale=self.generation.upscale)


@dataclass(frozen=True, eq=False)
class _Guide:
    """The tile ControlNet in one run."""

    control: Control | None = None
    fix: ColourFix | None = None

    def at(self, sigma: Tensor) -> tuple[Control | None, Control | None]:
        return (None, None) if self.control is None else self.control.at(sigma)

    def fixed(self, denoised: Tensor, *, negative: bool = False) -> Tensor:
        return denoised if self.fix is None else self.fix(denoised, negative=negative)


_UNGUIDED = _Guide()


class Engine:
    """Upscales pictures with one model, and with a tile ControlNet if the settings of a generation have one."""

    def __init__(self, model: LatentModel, tile: TileModel | None = None, learned: Path | None = None) -> None:
        """Set up the engine.

        Args:
            model: the diffusion model.
            tile: the tile ControlNet, if there is one.
            learned: the file of the user's own latent upscaler, for the method with its name.
        """
        self.model = model
        self.tile = tile
        self._files = {} if learned is None else {learned.stem: learned}
        self._denoise = _k_diffusion_wrapper(model)

    def upscale(
        self,
        pictures: Sequence[Image.Image],
        generation: GenerationSettings,
        progress: Progress | None = None,
        *,
        seeds: Sequence[int] | None = None,
    ) -> Upscaled:
        """Upscale pictures; as `prepare`, then `run`."""
        return self.run(self.prepare(pictures, generation, seeds), generation, progress)

    @contextmanager
    def offloaded(self) -> Iterator[None]:
        """Move all models to the CPU's memory meanwhile, so that a pass has the device to itself."""
        networks = [self.model.unet, self.model.vae, *(encoder.model for encoder in self.model.encoders)]
        with ExitStack() as stack:
            for network in [*networks, *([self.tile.network] if self.tile is not None else [])]:
                stack.enter_context(on_device(network, torch.device("cpu")))
            yield

    def check(self, generation: GenerationSettings) -> None:
        """Check that the method can be used with this model.

        Raises:
            InputError: no network knows the model's latents, or the user's own file cannot be used for them.
        """
        self._weights(generation)

    def parameters(self, generation: GenerationSettings) -> str:
        """The infotext of a picture that this model made, with the hash of a learned method's weights."""
        weights = self._weights(generation)
        return add_labels(write_parameters(generation), {WEIGHTS_LABEL: weights} if weights else {})

    def _weights(self, generation: GenerationSettings) -> str:
        try:
            return weights_of(generation.upscale.method, self.model.family, self._file(generation))
        except ValueError as error:
            raise InputError(f"{self.model.name}: {str(error).rstrip('.')}.") from error

    def settled(self, generation: GenerationSettings, fit: Fit) -> GenerationSettings:
        """The settings with the method that "automatic" means for these sizes and this model."""
        factor = math.sqrt(math.prod(fit.target) / math.prod(fit.source))
        return replace(generation, upscale=generation.upscale.resolved(family=self.model.family, factor=factor))

    def _file(self, generation: GenerationSettings) -> Path | None:
        return self._files.get(file_of(generation.upscale.method))

    def prepare(
        self, pictures: Sequence[Image.Image], generation: GenerationSettings, seeds: Sequence[int] | None = None
    ) -> Prepared:
        """Encode pictures and prompts.

        Args:
            pictures: RGB, all of one size.
            generation: the settings.
            seeds: one for each picture; by default all have that of `generation`.

        Raises:
            InputError: as for `check`.
        """
        self.check(generation)
        each = tuple(seeds) if seeds is not None else (generation.seed,) * len(pictures)
        cell = self.model.vae_scale_factor
        fit = fit_picture(pictures[0].size, generation.size, cell)
        pixels = torch.stack([_to_tensor(padded_picture(picture, fit.source, cell)) for picture in pictures])
        latent = encode_picture(self.model.vae, pixels, cell, each)
        positive, negative = self._conditioning(generation)
        resized = partial(self._encode_resized, pictures, fit, generation, each)
        return Prepared(fit, pixels, latent, positive, negative, generation, each, resized)

    def _encode_resized(
        self, pictures: Sequence[Image.Image], fit: Fit, generation: GenerationSettings, seeds: Sequence[int]
    ) -> Tensor:
        cell = self.model.vae_scale_factor
        large = [plain_resize(picture, generation.size) for picture in pictures]
        pixels = torch.stack([_to_tensor(padded_picture(picture, fit.target, cell)) for picture in large])
        return encode_picture(self.model.vae, pixels, cell, seeds)

    def plan(self, generation: GenerationSettings) -> StepPlan:
        """The sigmas that `generation` runs with this model."""
        return generation.plan(self.model.sigmas)

    def enlarged_latent(self, prepared: Prepared, generation: GenerationSettings) -> Tensor:
        """The enlarged latents before noise is added, (pictures, channels, height, width)."""
        upscale, fit = generation.upscale, prepared.fit
        latent = prepared.resized_latent if upscale.resizes_picture else prepared.latent
        file = self._file(generation)
        return upscale.enlarge(latent, fit.target, source=fit.source, family=self.model.family, file=file)

    def run(self, prepared: Prepared, generation: GenerationSettings, progress: Progress | None = None) -> Upscaled:
        """Enlarge, add noise, denoise and decode; then the second pass, if there is one.

        Raises:
            InputError: the settings cannot be run with this model.
            GenerationError: the model returned values that are not numbers.
        """
        generation = self.settled(generation, prepared.fit)
        if generation.tile is None or not generation.tile.second_pass:
            return self._run(prepared, generation, progress)
        first, second = second_pass(generation)
        steps, more = self.plan(first).steps, self.plan(second).steps
        controlled_steps(generation.tile, more)
        upscaled = self._run(prepared, first, _shifted(progress, 0, steps + more))
        started = time.perf_counter()
        again = self._run(
            self.prepare(upscaled.pictures, second, prepared.seeds), second, _shifted(progress, steps, steps + more)
        )
        seconds = upscaled.seconds + time.perf_counter() - started
        return replace(upscaled, pictures=again.pictures, seconds=seconds, generation=generation)

    @torch.no_grad()
    def _run(self, prepared: Prepared, generation: GenerationSettings, progress: Progress | None = None) -> Upscaled:
        """One pass."""
        started = time.perf_counter()
        plan = self.plan(generation)
        guide = self._guide(prepared, generation, plan)
        latent = self.enlarged_latent(prepared, generation)
        noise = SeededNoise(prepared.seeds, tuple(latent.shape[1:]))
        noised = latent.cpu() + noise.draw() * plan.run[0]
        denoised = run_sampler(
            SAMPLERS[generation.sampler],
            self.denoiser(prepared, generation, guide),
            noised.to(self.model.device),
            plan.run,
            noise.along(plan),
            callback=_step_counter(progress, plan.steps),
        )
        decoded = decode_latent(self.model.vae, denoised, self.model.vae_scale_factor)
        pictures = [_to_picture(pixels, generation.size) for pixels in decoded]
        return Upscaled(pictures, plan, time.perf_counter() - started, generation)

    def _conditioning(self, generation: GenerationSettings) -> tuple[Conditioning, Conditioning]:
        positive = encode_prompt(self.model.encoders, generation.prompt)
        negative = encode_prompt(self.model.encoders, generation.negative_prompt)
        if self.model.zeroes_empty_negative and not generation.negative_prompt:
            negative = _zeroed(negative)
        return positive, negative

    def _guide(self, prepared: Prepared, generation: GenerationSettings, plan: StepPlan) -> _Guide:
        """The tile ControlNet's part in a run; nothing where the generation has none."""
        settings = generation.tile
        if settings is None:
            return _UNGUIDED
        if self.tile is None:
            raise InputError("The generation asks for a tile ControlNet, but none is loaded; give --tile-controlnet.")
        controlled_steps(settings, plan.steps)
        cell = self.model.vae_scale_factor
        height, width = (side * cell for side in prepared.fit.target)
        picture = control_picture(prepared.pixels, (height, width), settings)
        fix = colour_fix(self.model.vae, picture, cell, settings)
        return _Guide(Control(self.tile.network, picture.to(self.model.device), settings, plan.run), fix)

    def denoiser(
        self, prepared: Prepared, generation: GenerationSettings, guide: _Guide = _UNGUIDED
    ) -> Callable[..., Tensor]:
        """The function `model(x, sigma)` for samplers, with guidance; x is float32, (pictures, channels, h, w)."""

        def denoise(latent: Tensor, sigma: Tensor) -> Tensor:
            control, other = guide.at(sigma)
            if generation.cfg_scale == 1:
                cond = _repeated(prepared.positive, len(latent))
                return guide.fixed(self._denoise(latent, sigma, cond=cond, control=control))
            positive, negative = self._both(latent, sigma, prepared, (control, other))
            negative = guide.fixed(negative, negative=True)
            return negative + (guide.fixed(positive) - negative) * generation.cfg_scale

        return denoise

    def _both(
        self, latent: Tensor, sigma: Tensor, prepared: Prepared, controls: tuple[Control | None, Control | None]
    ) -> tuple[Tensor, Tensor]:
        """The latent denoised with the prompt and with the negative prompt, each with its control."""
        positive, negative = (_repeated(part, len(latent)) for part in (prepared.positive, prepared.negative))
        control, other = controls
        small = latent.shape[0] * latent.shape[-2] * latent.shape[-1] <= _CELLS_AT_ONCE
        if small and positive.embeddings.shape == negative.embeddings.shape and control is other:
            cond = _joined(positive, negative)
            both = self._denoise(torch.cat([latent, latent]), torch.cat([sigma, sigma]), cond=cond, control=control)
            first, second = both.chunk(2)
            return first, second
        first = self._denoise(latent, sigma, cond=positive, control=control)
        return first, self._denoise(latent, sigma, cond=negative, control=other)


def _k_diffusion_wrapper(model: LatentModel) -> Callable[..., Tensor]:
    """The UNet in k-diffusion's wrapper, like CompVisDenoiser and CompVisVDenoiser in the WebUI."""
    external = import_k_diffusion("external")
    wrapper = external.DiscreteVDDPMDenoiser if model.predicts_v else external.DiscreteEpsDDPMDenoiser
    denoiser: Callable[..., Tensor] = wrapper(_Unet(model), model.alphas_cumprod, quantize=False).to(model.device)
    return denoiser


class _Unet(torch.nn.Module):
    """diffusers' UNet as k-diffusion calls it: float32 in and out."""

    def __init__(self, model: LatentModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, latent: Tensor, timestep: Tensor, cond: Conditioning, control: Control | None = None) -> Tensor:
        unet = self.model.unet
        added = None
        if cond.pooled is not None:
            added = {"text_embeds": cond.pooled.to(unet.dtype), "time_ids": self._time_ids(latent)}
        values = latent.to(unet.dtype, memory_format=torch.channels_last)
        conditioning = {"encoder_hidden_states": cond.embeddings.to(unet.dtype), "added_cond_kwargs": added}
        residuals = {} if control is None else control.residuals(values, timestep, **conditioning)
        predicted: Tensor = unet(values, timestep, **conditioning, **residuals, return_dict=False)[0]
        return predicted.float()

    def _time_ids(self, latent: Tensor) -> Tensor:
        """SDXL's picture size, crop and target size; as in the WebUI both sizes are that of the result."""
        height, width = (side * self.model.vae_scale_factor for side in latent.shape[-2:])
        ids = torch.tensor([height, width, 0, 0, height, width], dtype=self.model.unet.dtype, device=latent.device)
        return ids.repeat(len(latent), 1)


def _zeroed(cond: Conditioning) -> Conditioning:
    pooled = None if cond.pooled is None else torch.zeros_like(cond.pooled)
    return Conditioning(torch.zeros_like(cond.embeddings), pooled)


def _repeated(cond: Conditioning, count: int) -> Conditioning:
    pooled = None if cond.pooled is None else cond.pooled.expand(count, -1)
    return replace(cond, embeddings=cond.embeddings.expand(count, -1, -1), pooled=pooled)


def _joined(first: Conditioning, second: Conditioning) -> Conditioning:
    pooled = None
    if first.pooled is not None and second.pooled is not None:
        pooled = torch.cat([first.pooled, second.pooled])
    return Conditioning(torch.cat([first.embeddings, second.embeddings]), pooled)


def _step_counter(progress: Progress | None, steps: int) -> Callable[[dict[str, Any]], None] | None:
    if progress is None:
        return None
    return lambda state: progress(state["i"] + 1, steps)


def _shifted(progress: Progress | None, offset: int, total: int) -> Progress | None:
    """The progress of one of several runs, counted over all of them."""
    return progress and (lambda done, _: progress(offset + done, total))


def _to_tensor(image: Image.Image) -> Tensor:
    """The picture as (3, height, width) in -1 to 1."""
    return torch.from_numpy(np.asarray(image, dtype=np.float32) / 127.5 - 1).permute(2, 0, 1)


def _to_picture(pixels: Tensor, size: tuple[int, int]) -> Image.Image:
    """The top left part, of `size` (width, height), of a picture (3, height, width) in -1 to 1."""
    values = pixels[:, : size[1], : size[0]].permute(1, 2, 0).cpu()
    if not torch.isfinite(values).all():
        raise GenerationError("The model returned values that are not numbers; try --dtype float32.")
    return Image.fromarray(((values + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy())
