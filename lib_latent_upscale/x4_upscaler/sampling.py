"""The sampling loop of the x4 upscaler: tiles averaged at every step, in memory that does not grow with the picture."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lib_latent_upscale.errors import Interrupted, NotFinite, SizeError
from lib_latent_upscale.memory import memory_errors, on_device
from lib_latent_upscale.noise_tables import NoiseTable
from lib_latent_upscale.samplers import SAMPLERS, Noise, run_sampler
from lib_latent_upscale.schedules import get_sigmas
from lib_latent_upscale.tiling import Tile, TileBlend, batches, map_tiles
from lib_latent_upscale.x4_settings import X4Settings
from lib_latent_upscale.x4_upscaler.loading import X4Model
from lib_latent_upscale.x4_upscaler.picture import FACTOR, Source, guard_colours, prepare
from lib_latent_upscale.x4_upscaler.plans import DECODER, UNET, Plan, fit

__all__ = ["X4Result", "upscale_x4"]

_log = logging.getLogger(__name__)

_DECODER_OVERLAP = 16

Progress = Callable[[int, int], None]
Stopped = Callable[[], bool]


@dataclass(frozen=True)
class X4Result:
    """An upscaled picture, and how it was made."""

    image: Image.Image
    """Four times the input's width and height; RGB, or RGBA if the input had transparency."""
    settings: X4Settings
    """The settings that were used, with seed and tile sizes filled in, so that the picture can be made again."""
    notes: tuple[str, ...] = ()
    """What the user should know, such as smaller tiles after memory ran out."""


@dataclass
class _Run:
    """State of one upscale."""

    model: X4Model
    settings: X4Settings
    progress: Progress | None = None
    interrupted: Stopped | None = None
    notes: list[str] = field(default_factory=list)
    done: int = 0
    total: int = 0

    @property
    def guided(self) -> bool:
        return self.settings.guidance_scale > 1

    def note(self, text: str) -> None:
        _log.warning("%s", text)
        self.notes.append(text)

    def advance(self, tiles: int = 1) -> None:
        """Count finished tiles, report progress, and stop if requested."""
        self.done += tiles
        if self.progress is not None:
            self.progress(self.done, self.total)
        self.check()

    def check(self) -> None:
        if self.interrupted is not None and self.interrupted():
            raise Interrupted("The x4 upscaler was interrupted; the picture before it is kept.")


def upscale_x4(
    picture: Image.Image,
    model: X4Model,
    settings: X4Settings | None = None,
    *,
    progress: Progress | None = None,
    interrupted: Stopped | None = None,
) -> X4Result:
    """Enlarge a picture of any mode and size exactly four times with the x4 upscaler.

    `progress(done, total)` is called after every group of tiles, counted over the whole pass; the count starts again
    where memory ran out. `interrupted()` is asked before the first and after every group of tiles.

    The noise comes from the seed alone, on the CPU, for the whole picture: neither the device nor the tiles change
    it. Latents and the result stay on the CPU; the device holds one part of the model and one group of tiles. Every
    part of the model goes back to where it was, also after an error.

    Tile sizes of 0 are chosen from the free memory. Where one tile covers the picture, that does not show: another
    machine makes the same picture and the same settings of it. Larger pictures are cut as the memory allows, and other
    tiles are a slightly different picture; the sizes in the result's settings make it again anywhere.

    Raises:
        Interrupted: `interrupted` said so.
        OutOfMemory: even the smallest tiles do not fit.
        NotFinite: the range of the model's dtype is too small.
        SizeError: the picture cannot be enlarged.
    """
    if min(picture.size) < 1:
        raise SizeError(f"the picture is {picture.width}x{picture.height}; both sides need at least one pixel.")
    settings = X4Settings() if settings is None else settings
    if settings.seed < 0:
        settings = replace(settings, seed=random.randrange(2**32))
    run = _Run(model, settings, progress, interrupted)
    run.check()
    # k-diffusion's Euler and Heun draw from torch's global generator, even where they add no noise.
    with (
        torch.no_grad(),
        torch.random.fork_rng([]),
        _full_precision(model.device),
        memory_errors(model.name, model.device),
    ):
        source = prepare(picture)
        latents, tile = _sample(run, source, _encode_prompts(run))
        decoded, decoder_tile = _decode(run, latents)
        if settings.colour_guard:
            decoded = guard_colours(decoded, source.pixels)
        if not bool(torch.isfinite(decoded).all()):
            raise NotFinite(
                f"{model.name} returned values that are not numbers: load it with the dtype float32; "
                "if it was, the file is damaged."
            )
        image = source.finish(decoded)
    overlap = min(settings.overlap, tile)  # automatic tiles may be smaller than the overlap that was asked for
    used = replace(settings, tile=tile, overlap=overlap, decoder_tile=decoder_tile)
    return X4Result(image, used, tuple(run.notes))


def _full_precision(device: torch.device) -> AbstractContextManager[Any]:
    """No autocast: the WebUI's (`modules.devices.autocast`) would put the VAE in half precision, where it overflows."""
    try:
        return torch.autocast(device.type, enabled=False)
    except RuntimeError:  # a kind of device that this torch has no autocast for
        return nullcontext()


def _encode_prompts(run: _Run) -> Tensor:
    """Text embeddings (1 or 2, 77, width) on the CPU: first those of the negative prompt, if there is guidance."""
    settings, model = run.settings, run.model
    texts = [settings.negative_prompt, settings.prompt] if run.guided else [settings.prompt]
    numbers, lost = zip(*(model.tokenizer.encode(text) for text in texts), strict=True)
    if any(lost):
        run.note(f"The x4 upscaler reads 75 tokens of a prompt; {max(lost)} more were left out.")
    with on_device(model.text_encoder, model.device):
        embeddings: Tensor = model.text_encoder(torch.tensor(numbers).to(model.device))[0]
    return embeddings.cpu()


def _sample(run: _Run, source: Source, text: Tensor) -> tuple[Tensor, int]:
    """Latents (1, 4, h, w) of the enlarged picture, float32 on the CPU, and the tile size that was used."""
    unet, device, settings = run.model.unet, run.model.device, run.settings
    bytes_per_value = unet.dtype.itemsize * (2 if run.guided else 1)
    with on_device(unet, device):
        plan = Plan.choose(
            UNET, source.padded, settings.tile, settings.overlap, bytes_per_value=bytes_per_value, device=device
        )
        latents, plan = fit(plan, lambda plan: _sample_once(run, source, text, plan), device, run.note)
    return latents, plan.tile


def _sample_once(run: _Run, source: Source, text: Tensor, plan: Plan) -> Tensor:
    """The whole sampling with one plan; if memory runs out, it is repeated, so that a picture has one tiling."""
    settings, table = run.settings, run.model.noise
    # The order of diffusers' pipeline, so that a seed means the same there: the picture's noise first.
    generator = torch.Generator("cpu").manual_seed(settings.seed)
    noised = _noised(run, source.pixels, generator)
    latents = torch.randn((1, run.model.unet.config.out_channels, *source.padded), generator=generator)
    sigmas = _sigmas(settings, table)
    tiles = plan.tiles(source.padded)
    run.done, run.total = 0, _evaluations(settings) * len(tiles) + _decoder_tiles(run, source.padded)
    denoiser = _Denoiser(run, noised, text, tiles, plan)
    # Variance 1 at the first and the last noise level, as the model was trained: k-diffusion's latents are
    # sqrt(sigma^2 + 1) times larger than those of diffusers.
    noised_latents = latents * _scale(float(sigmas[0]))
    noise = Noise(
        draw=lambda: torch.randn(latents.shape, generator=generator),
        seed=settings.seed,
        lowest=0.9 * float(sigmas[sigmas > 0].min()),  # a little more than the schedule: torchsde warns about its ends
        highest=1.1 * float(sigmas[0]),
    )
    result = run_sampler(SAMPLERS[settings.sampler], denoiser, noised_latents, sigmas, noise)
    return result / _scale(float(sigmas[-1]))


def _scale(sigma: float) -> float:
    return float((sigma**2 + 1) ** 0.5)


def _noised(run: _Run, pixels: Tensor, generator: torch.Generator) -> Tensor:
    alpha = run.model.low_resolution_noise.alphas[run.settings.noise_level]
    return alpha.sqrt() * pixels + (1 - alpha).sqrt() * torch.randn(pixels.shape, generator=generator)


def _evaluations(settings: X4Settings) -> int:
    """Number of the sampler's calls of the model."""
    sampler = SAMPLERS[settings.sampler]
    return sampler.evaluations * settings.steps - (sampler.evaluations - 1)


def _sigmas(settings: X4Settings, noise: NoiseTable) -> Tensor:
    sigmas = get_sigmas(settings.scheduler, settings.steps, noise.sigmas)
    if not SAMPLERS[settings.sampler].ends_at_zero:
        sigmas[-1] = min(float(noise.sigmas[0]), float(sigmas[-2]))
    return sigmas


@dataclass
class _Denoiser:
    """k-diffusion's model: latents at a noise level to the picture's latents, tile by tile.

    Averaging what the UNet returns for overlapping tiles at every step (MultiDiffusion, arXiv:2302.08113) equals
    averaging the denoised latents, so that any sampler works; the latents stay one whole.
    """

    run: _Run
    noised: Tensor
    """Input picture with noise, (1, 3, h, w) on the CPU."""
    text: Tensor
    tiles: list[Tile]
    plan: Plan
    inner_model: ClassVar[Any] = SimpleNamespace(predictor=SimpleNamespace(prediction_type="epsilon"))
    """The samplers of Forge's and Forge Neo's k_diffusion ask it whether this is a flow-matching model."""

    def __post_init__(self) -> None:
        self._log_sigmas = self.run.model.noise.sigmas.log().numpy()
        self._dtype: torch.dtype = self.run.model.unet.dtype  # diffusers looks through all modules for it

    def __call__(self, latents: Tensor, sigma: Tensor, **_: Any) -> Tensor:
        level = float(sigma.reshape(-1)[0])
        inputs = torch.cat([latents / _scale(level), self.noised], dim=1)
        timestep = float(np.interp(np.log(level), self._log_sigmas, np.arange(len(self._log_sigmas))))
        blend = TileBlend((int(latents.shape[-2]), int(latents.shape[-1])), self.plan.used_overlap)
        for group in batches(self.tiles, self.plan.batch):
            predicted = self._predict(torch.cat([tile.cut(inputs) for tile in group]), timestep)
            for tile, values in zip(group, predicted, strict=True):
                blend.add(tile, values[None])
            self.run.advance(len(group))
        return _denoised(self.run.model.noise.prediction, latents, blend.mean(), level)

    def _predict(self, inputs: Tensor, timestep: float) -> Tensor:
        """What the UNet returns for tiles (n, 7, h, w), guidance included: (n, 4, h, w), float32."""
        model, count, prompts = self.run.model, len(inputs), len(self.text)
        output: Tensor = model.unet(
            inputs.to(model.device, self._dtype).repeat(prompts, 1, 1, 1),
            torch.tensor(timestep, device=model.device),
            encoder_hidden_states=self.text.to(model.device, self._dtype).repeat_interleave(count, dim=0),
            # int64: floats raise in the embedding.
            class_labels=torch.full((count * prompts,), self.run.settings.noise_level, device=model.device),
            return_dict=False,
        )[0].float()
        if prompts == 1:
            return output
        without, given = output.chunk(2)
        return without + self.run.settings.guidance_scale * (given - without)


def _denoised(prediction: str, latents: Tensor, output: Tensor, sigma: float) -> Tensor:
    """The denoised latents from what the UNet returned, in k-diffusion's scale."""
    scale = _scale(sigma)
    if prediction == "v_prediction":
        return latents / scale**2 - output * (sigma / scale)
    return latents - output * sigma if prediction == "epsilon" else output


def _decoder_tiles(run: _Run, size: tuple[int, int]) -> int:
    """The likely number of the decoder's tiles."""
    return len(Plan(DECODER, run.settings.decoder_tile or DECODER.tiles[0], _DECODER_OVERLAP).tiles(size))


def _decode(run: _Run, latents: Tensor) -> tuple[Tensor, int]:
    """The picture (1, 3, 4h, 4w), float32 on the CPU, and the tile size that was used."""
    vae, device, dtype = run.model.vae, run.model.device, run.model.vae.dtype
    size = (int(latents.shape[-2]), int(latents.shape[-1]))
    sampled = run.done

    def decode(tile: Tensor) -> Tensor:
        picture: Tensor = vae.decode(tile.to(device, dtype), return_dict=False)[0]
        return picture

    def work(plan: Plan) -> Tensor:
        run.done, run.total = sampled, sampled + len(plan.tiles(size))
        return map_tiles(
            decode,
            latents / run.model.scaling_factor,
            plan.tile,
            plan.used_overlap,
            factor=FACTOR,
            finished=lambda *_: run.advance(),
        )

    with on_device(vae, device):
        plan = Plan.choose(
            DECODER,
            size,
            run.settings.decoder_tile,
            _DECODER_OVERLAP,
            bytes_per_value=dtype.itemsize,
            device=device,
        )
        decoded, plan = fit(replace(plan, batch=1), work, device, run.note)
    return decoded, plan.tile
