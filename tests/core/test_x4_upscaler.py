"""The x4 upscaler: equal to diffusers where both run, exact in size, without seams, repeatable, modest in memory.

Two kinds of models: small random ones with diffusers' architecture, for equality; and an oracle that knows the
answer, so that a fault of the tiling shows as a fault of the picture.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lib_latent_upscale import memory
from lib_latent_upscale.errors import InputError, Interrupted, NotFinite, OutOfMemory
from lib_latent_upscale.noise_tables import NoiseTable
from lib_latent_upscale.samplers import SAMPLERS, X4_SAMPLERS
from lib_latent_upscale.schedules import SCHEDULES
from lib_latent_upscale.tiling import split_evenly
from lib_latent_upscale.x4_upscaler import X4Model, X4Result, X4Settings, load_x4, plans, upscale_x4
from lib_latent_upscale.x4_upscaler.loading import CONFIGURATION, _numbers
from lib_latent_upscale.x4_upscaler.picture import guard_colours
from lib_latent_upscale.x4_upscaler.tokenizer import ClipTokenizer
from tests.core.x4_small import write_folder
from tests.core.x4_strategies import any_settings

GIB = 2**30


class OracleUnet(torch.nn.Module):
    """Predicts the v of a picture that it sees in its input, plus an error that differs from tile to tile."""

    dtype = torch.float32
    config = SimpleNamespace(out_channels=4)

    def __init__(self, disagreement: float = 0.0) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.alphas = NoiseTable.from_config({"beta_schedule": "scaled_linear"}).alphas
        self.disagreement = disagreement
        self.seen: list[tuple[int, ...]] = []

    def forward(self, inputs: torch.Tensor, timestep: torch.Tensor, **_: Any) -> tuple[torch.Tensor]:
        self.seen.append(tuple(inputs.shape))
        alpha = self.alphas[round(float(timestep))]
        picture = F.avg_pool2d(F.pad(inputs[:, 4:], (3, 3, 3, 3), mode="replicate"), 7, 1)
        picture = torch.cat([picture, picture.mean(1, keepdim=True)], dim=1)
        picture = picture + self.disagreement * picture.mean((2, 3), keepdim=True)
        return ((alpha.sqrt() * inputs[:, :4] - picture) / (1 - alpha).sqrt(),)


class OracleVae(torch.nn.Module):
    """Enlarges the first three channels, plus an error that differs from tile to tile and sits at their edges."""

    dtype = torch.float32

    def __init__(self, disagreement: float = 0.0) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.disagreement = disagreement
        self.seen: list[tuple[int, ...]] = []

    def decode(self, latents: torch.Tensor, return_dict: bool) -> tuple[torch.Tensor]:
        self.seen.append(tuple(latents.shape))
        picture = latents[:, :3]
        if self.disagreement:
            picture = F.avg_pool2d(F.pad(picture, (1, 1, 1, 1)), 3, 1)
            picture = picture + self.disagreement * picture.mean((2, 3), keepdim=True)
        return (0.08333 * F.interpolate(picture, scale_factor=4, mode="bicubic"),)


class OracleText(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, numbers: torch.Tensor) -> tuple[torch.Tensor]:
        return (torch.zeros(*numbers.shape, 4),)


def oracle(disagreement: float = 0.0) -> X4Model:
    return X4Model(
        unet=OracleUnet(disagreement),
        vae=OracleVae(disagreement),
        text_encoder=OracleText(),
        tokenizer=ClipTokenizer.from_merges([("a", "t</w>")]),
        device=torch.device("cpu"),
        name="oracle",
        **_numbers(CONFIGURATION),
    )


def quick(**changes: Any) -> X4Settings:
    return X4Settings(**{"seed": 1, "steps": 3, "sampler": "Euler", "guidance_scale": 1, "noise_level": 0, **changes})


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Smooth colours."""
    values = np.random.default_rng(0).integers(40, 215, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def numbers(result: X4Result | Image.Image) -> np.ndarray:
    return np.asarray(result.image if isinstance(result, X4Result) else result, dtype=float)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("x4"))


@pytest.fixture(scope="module")
def small(folder: Path) -> X4Model:
    return load_x4(folder, device="cpu")


# --- Correct means: diffusers' pipeline ---


@pytest.mark.parametrize(
    ("prompt", "guidance", "noise_level", "steps"), [("a cat", 9.0, 20, 4), ("", 1.0, 349, 3), ("at", 2.5, 0, 7)]
)
def test_equals_the_pipeline_of_diffusers(
    folder: Path, small: X4Model, prompt: str, guidance: float, noise_level: int, steps: int
) -> None:
    """Same weights, seed and DDIM steps; the pipeline loads the folder, tokenizer and noise by itself."""
    from diffusers import StableDiffusionUpscalePipeline

    source = picture(80, 64)
    ours = upscale_x4(
        source,
        small,
        X4Settings(
            prompt, "bad", noise_level, guidance, steps, "DDIM", "ddim_uniform", seed=5, colour_guard=False, tile=96
        ),
    )
    pipeline = StableDiffusionUpscalePipeline.from_pretrained(str(folder), low_cpu_mem_usage=False)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        prompt=prompt,
        negative_prompt="bad",
        image=source,
        guidance_scale=guidance,
        noise_level=noise_level,
        num_inference_steps=steps,
        generator=torch.Generator().manual_seed(5),
    ).images[0]
    difference = np.abs(numbers(ours) - numbers(theirs))
    assert numbers(theirs).std() > 20  # there is something to compare
    assert difference.max() <= 1  # a value that rounds the other way
    assert difference.mean() < 0.001


def test_tiled_agrees_with_untiled(small: X4Model) -> None:
    """Stated tolerance on a random model, whose normalisation sees other pixels in a tile: 2 of 255 on average."""
    source = picture(176, 72)
    whole = numbers(upscale_x4(source, small, quick(tile=176, decoder_tile=176)))
    tiled = upscale_x4(source, small, quick(tile=96, decoder_tile=96))
    difference = np.abs(numbers(tiled) - whole)
    assert tiled.settings.tile == 96
    assert 0 < difference.mean() < 2
    assert whole.std() > 20


def test_tiles_at_once_change_nothing(small: X4Model, monkeypatch: pytest.MonkeyPatch) -> None:
    source = picture(128, 64)
    settings = quick(tile=64, decoder_tile=128, steps=2, guidance_scale=3)
    results = []
    for free in (1, 200 * GIB):
        monkeypatch.setattr(plans, "free_memory", lambda _, free=free: free)
        results.append(numbers(upscale_x4(source, small, settings)))
    assert np.abs(results[0] - results[1]).max() <= 1


# --- No seams ---


def _seam(result: np.ndarray, tile: int, overlap: int, length: int) -> tuple[float, float]:
    """(largest step within 8 pixels of a tile's border, largest step elsewhere), in 255ths.

    A step is the change from one column to the next, averaged over the rows; the picture's own border is left out.
    """
    steps = np.abs(np.diff(result.mean(axis=0), axis=0)).mean(axis=-1)
    borders = [4 * place for part in split_evenly(length, tile, overlap) for place in (part.start, part.stop)]
    near = {place + off for place in borders if 0 < place < 4 * length for off in range(-8, 9)}
    inner = range(16, len(steps) - 16)
    return max(steps[i] for i in inner if i in near), max(steps[i] for i in inner if i not in near)


def _flat(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), (180, 190, 200))


def _gradient(width: int, height: int) -> Image.Image:
    row = np.linspace(100, 155, width).astype(np.uint8)
    return Image.fromarray(np.broadcast_to(row[None, :, None], (height, width, 3)).copy())


@pytest.mark.parametrize("make", [_flat, _gradient])
@pytest.mark.parametrize("guard", [False, True])
@pytest.mark.parametrize(("tile", "decoder_tile"), [(96, 192), (192, 64)])
def test_no_seam_though_tiles_disagree(
    make: Callable[[int, int], Image.Image], guard: bool, tile: int, decoder_tile: int
) -> None:
    """Each tile is off by a fifth of its mean; in the gradient, two neighbours differ by several of 255."""
    settings = quick(tile=tile, decoder_tile=decoder_tile, colour_guard=guard)
    result = numbers(upscale_x4(make(192, 64), oracle(0.2), settings))
    cut, overlap = (tile, 32) if tile < 192 else (decoder_tile, 16)
    at_border, elsewhere = _seam(result, cut, overlap, 192)
    assert at_border <= max(elsewhere, 0.5)  # half of one 255th cannot be seen


def test_the_measure_sees_the_seam_that_tiles_without_overlap_have() -> None:
    result = upscale_x4(_gradient(192, 64), oracle(0.2), quick(tile=96, decoder_tile=192, overlap=0))
    at_border, elsewhere = _seam(numbers(result), 96, 0, 192)
    assert at_border > elsewhere + 0.3


# --- Any picture, exactly four times larger ---


@pytest.mark.parametrize("size", [(1, 1), (3, 1), (30, 30), (65, 127), (64, 64), (5000, 3)])
def test_exactly_four_times_larger(size: tuple[int, int]) -> None:
    result = upscale_x4(picture(*size), oracle(), quick(steps=1))
    assert result.image.size == (4 * size[0], 4 * size[1])
    assert result.image.mode == "RGB"


def test_the_content_stays_in_place() -> None:
    """A padded size: of all shifts by up to two pixels, the shrunk result fits the input best with none."""
    source = picture(37, 70)
    result = upscale_x4(source, oracle(), quick(steps=8, colour_guard=False))
    shrunk = numbers(result.image.resize(source.size, Image.Resampling.BOX))
    shifts = [(down, right) for down in range(-2, 3) for right in range(-2, 3)]
    errors = {shift: np.abs(np.roll(shrunk, shift, (0, 1)) - numbers(source))[6:-6, 6:-6].mean() for shift in shifts}
    assert min(errors, key=lambda shift: errors[shift]) == (0, 0)
    assert errors[0, 0] < 4


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK", "LA", "RGBA", "I;16", "F"])
def test_any_mode(mode: str) -> None:
    source = picture(20, 12, "L")
    deep = {"I;16": np.asarray(source, dtype=np.uint16) * 257, "F": np.asarray(source, dtype=np.float32) / 255}
    source = Image.fromarray(deep[mode]) if mode in deep else source.convert(mode)
    result = upscale_x4(source, oracle(), quick()).image
    assert result.mode == ("RGBA" if "A" in mode else "RGB")
    assert abs(numbers(result)[..., :3].mean() - numbers(picture(20, 12, "L")).mean()) < 8


def test_transparency_survives() -> None:
    source = picture(40, 24, "RGBA")
    alpha = Image.new("L", source.size, 255)
    alpha.paste(128, (10, 0, 40, 24))
    alpha.paste(0, (20, 0, 40, 24))
    source.putalpha(alpha)
    result = np.asarray(upscale_x4(source, oracle(), quick()).image.getchannel("A"))
    assert set(result[:, :32].flat) == {255}
    assert set(result[:, 52:68].flat) == {128}
    assert set(result[:, 92:].flat) == {0}


def test_palette_transparency_survives() -> None:
    source = Image.new("P", (16, 8), 0)
    source.putpalette([200, 200, 200, 0, 0, 0])
    source.paste(1, (8, 0, 16, 8))
    source.info["transparency"] = 1
    result = np.asarray(upscale_x4(source, oracle(), quick()).image.getchannel("A"))
    assert result[:, 4] == pytest.approx(255)
    assert result[:, -4] == pytest.approx(0)


def test_colours_of_invisible_pixels_do_not_bleed() -> None:
    source = Image.new("RGBA", (32, 16), (200, 200, 200, 255))
    source.paste((0, 0, 0, 0), (16, 0, 32, 16))
    result = numbers(upscale_x4(source, oracle(), quick()))
    assert result[:, :64, :3].min() > 185


def test_an_empty_picture_is_refused() -> None:
    with pytest.raises(InputError, match="0x5"):
        upscale_x4(Image.new("RGB", (0, 5)), oracle(), quick())


# --- Colour guard ---


def test_the_colour_guard_holds_the_colours() -> None:
    """A model that is a fifth of the mean too bright everywhere: the guard brings that below 2 of 255."""
    source = _flat(96, 64)
    drift = {
        guard: np.abs(numbers(upscale_x4(source, oracle(0.2), quick(colour_guard=guard))) - (180, 190, 200)).mean()
        for guard in (False, True)
    }
    assert drift[False] > 10
    assert drift[True] < 2


def test_the_colour_guard_leaves_detail() -> None:
    detail = 0.05 * torch.randn(1, 3, 256, 320)
    detail -= F.interpolate(F.avg_pool2d(detail, 4), scale_factor=4)
    source = torch.zeros(1, 3, 64, 80)
    torch.testing.assert_close(guard_colours(detail.clone() + 0.3, source), detail, rtol=0, atol=1e-5)


# --- Repeatable ---


@pytest.mark.parametrize("sampler", X4_SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_every_sampler_obeys_the_seed_and_counts_its_tiles(sampler: str, steps: int) -> None:
    settings = quick(sampler=sampler, steps=steps, seed=7, tile=64, decoder_tile=64)
    told: list[tuple[int, int]] = []
    first = upscale_x4(picture(80, 16), oracle(), settings, progress=lambda *count: told.append(count))
    torch.manual_seed(99)
    before = torch.get_rng_state()
    again = upscale_x4(picture(80, 16), oracle(), first.settings)
    assert np.array_equal(numbers(first), numbers(again))
    assert torch.equal(before, torch.get_rng_state())
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert told[-1][0] == told[-1][1] == told[0][1]


def is_flow_in_forge(model: Any) -> bool:
    """In its k_diffusion/sampling.py: `isinstance(model.inner_model.predictor, PredictionFlux)`."""
    return isinstance(model.inner_model.predictor, torch.nn.Module)


def is_flow_in_neo(model: Any) -> bool:
    """In its modules_forge/packages/k_diffusion/sampling.py."""
    return model.inner_model.predictor.prediction_type == "const"


def is_flow_in_ersatzforge(model: Any) -> bool:
    """In its packages/k_diffusion/sampling.py."""
    return any(hasattr(model.inner_model.predictor, name) for name in ("shift", "mu"))


@pytest.mark.parametrize("is_flow", [is_flow_in_forge, is_flow_in_neo, is_flow_in_ersatzforge])
@pytest.mark.parametrize("sampler", ["Euler a", "DPM2 a", "DPM++ SDE"])
def test_samplers_of_hosts_take_it_for_no_flow_model(
    sampler: str, is_flow: Callable[[Any], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    import k_diffusion.sampling

    name = SAMPLERS[sampler].function
    original, found = getattr(k_diffusion.sampling, name), []

    @functools.wraps(original)
    def asking(model: Any, *arguments: Any, **more: Any) -> torch.Tensor:
        found.append(is_flow(model))
        return original(model, *arguments, **more)

    expected = numbers(upscale_x4(picture(64, 64), oracle(), quick(sampler=sampler)))
    monkeypatch.setattr(k_diffusion.sampling, name, asking)
    assert np.array_equal(numbers(upscale_x4(picture(64, 64), oracle(), quick(sampler=sampler))), expected)
    assert found == [False]


@pytest.mark.parametrize("scheduler", SCHEDULES)
@pytest.mark.parametrize("sampler", ["DDIM", "DPM++ 2M"])
def test_every_schedule_reaches_the_picture(scheduler: str, sampler: str) -> None:
    source = picture(64, 64)
    result = upscale_x4(source, oracle(), quick(scheduler=scheduler, sampler=sampler, steps=8))
    assert np.abs(numbers(result.image.resize((64, 64))) - numbers(source)).mean() < 6


def test_another_seed_is_another_picture(small: X4Model) -> None:
    source = picture(64, 64)
    one, two = (numbers(upscale_x4(source, small, quick(seed=seed, steps=2))) for seed in (1, 2))
    assert np.abs(one - two).mean() > 1


def test_a_drawn_seed_is_told() -> None:
    source = picture(64, 64)
    result = upscale_x4(source, oracle(), quick(seed=-1, sampler="Euler a"))
    assert result.settings.seed >= 0
    assert np.array_equal(numbers(result), numbers(upscale_x4(source, oracle(), result.settings)))


def test_the_hosts_autocast_does_not_reach_the_model(small: X4Model) -> None:
    """The WebUI runs everything under autocast, where the VAE would lose its precision."""
    source, settings = picture(64, 64), quick(steps=1)
    plain = numbers(upscale_x4(source, small, settings))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert np.array_equal(numbers(upscale_x4(source, small, settings)), plain)


# --- Memory ---


@pytest.mark.parametrize("free", [GIB // 4, GIB // 2])
def test_the_work_at_once_does_not_grow_with_the_picture(free: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixels that the UNet and the decoder see at once, times what one takes by measure: within what is free."""
    monkeypatch.setattr(plans, "free_memory", lambda _: free)
    peaks = []
    for side in (192, 384, 512):
        model = oracle()
        upscale_x4(picture(side, side), model, quick(steps=1, colour_guard=False))
        peaks.append([max(n * h * w for n, _, h, w in part.seen) for part in (model.unet, model.vae)])
    assert max(unet for unet, _ in peaks) * 4000 * 4 <= 0.6 * free
    assert max(vae for _, vae in peaks) <= 128**2
    assert peaks[2][0] <= 1.2 * peaks[1][0]


@pytest.mark.parametrize(
    ("free", "tile"),
    [(1 * GIB, 128), (2 * GIB, 192), (4 * GIB, 256), (20 * GIB, 512), (0, 96), (None, 256)],
)
def test_tiles_follow_the_free_memory(free: int | None, tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32 with guidance a pixel takes 4000 * 4 * 2 bytes, and six tenths of what is free may be used."""
    monkeypatch.setattr(plans, "free_memory", lambda _: free)
    chosen = plans.Plan.choose(plans.UNET, (1024, 1024), 0, 32, bytes_per_value=8, device=torch.device("cpu"))
    assert chosen.tile == tile


@pytest.mark.parametrize(
    ("size", "tile", "decoder_tile"), [((20, 64), 96, 64), ((96, 90), 96, 96), ((100, 100), 128, 128)]
)
def test_free_memory_does_not_show_where_one_tile_covers_the_picture(
    size: tuple[int, int], tile: int, decoder_tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same command on two machines, the larger with a hundred times the memory of the other."""
    made = []
    for free in (2 * GIB, 200 * GIB):
        monkeypatch.setattr(plans, "free_memory", lambda _, free=free: free)
        made.append(upscale_x4(picture(*size), oracle(0.3), quick()))
    assert made[0].settings == made[1].settings
    assert (made[0].settings.tile, made[0].settings.decoder_tile) == (tile, decoder_tile)
    assert np.array_equal(numbers(made[0]), numbers(made[1]))


def test_the_tiles_that_were_used_make_the_same_picture_with_other_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "free_memory", lambda _: GIB // 4)
    first = upscale_x4(picture(200, 150), oracle(0.3), quick())
    monkeypatch.setattr(plans, "free_memory", lambda _: 200 * GIB)
    assert first.settings.tile == 96
    assert np.array_equal(numbers(first), numbers(upscale_x4(picture(200, 150), oracle(0.3), first.settings)))
    assert not np.array_equal(numbers(first), numbers(upscale_x4(picture(200, 150), oracle(0.3), quick())))


def test_a_thin_picture_is_one_tile_in_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """64x512 pixels are no more work at once than 181x181."""
    monkeypatch.setattr(plans, "free_memory", lambda _: GIB)
    device = torch.device("cpu")
    assert plans.Plan.choose(plans.UNET, (64, 512), 0, 32, bytes_per_value=4, device=device).tile == 512


class Greedy(OracleUnet):
    """Runs out of memory with more than `limit` pixels at once."""

    limit = 64 * 64

    def forward(self, inputs: torch.Tensor, timestep: torch.Tensor, **rest: Any) -> tuple[torch.Tensor]:
        if inputs.shape[0] * inputs.shape[-1] * inputs.shape[-2] > self.limit:
            raise torch.OutOfMemoryError("Tried to allocate 1.00 TiB")
        return super().forward(inputs, timestep, **rest)


def test_out_of_memory_is_tried_smaller_and_told(caplog: pytest.LogCaptureFixture) -> None:
    source = picture(256, 64)
    result = upscale_x4(source, replace(oracle(), unet=Greedy()), quick(tile=256))
    assert result.settings.tile == 64
    assert "ran out of memory with tiles of 256" in result.notes[0]
    assert result.notes[-1] in caplog.text
    assert np.array_equal(numbers(result), numbers(upscale_x4(source, oracle(), result.settings)))


def test_tiles_at_once_give_way_before_their_size() -> None:
    result = upscale_x4(picture(256, 64), replace(oracle(), unet=Greedy()), quick(tile=64))
    assert result.settings.tile == 64
    assert "tiles of 64 at once" in result.notes[0]


def test_out_of_memory_while_decoding_keeps_the_samples() -> None:
    model = oracle()
    decode = model.vae.decode

    def greedy(latents: torch.Tensor, return_dict: bool) -> tuple[torch.Tensor]:
        if latents.shape[-1] > 48:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")
        return decode(latents, return_dict)

    model.vae.decode = greedy
    told: list[tuple[int, int]] = []
    result = upscale_x4(picture(128, 64), model, quick(), progress=lambda *count: told.append(count))
    assert result.settings.decoder_tile == 32
    assert len(model.unet.seen) == 3
    assert told[-1][0] == told[-1][1]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("could not create a primitive", True),  # seen with torch 2.3 in reForge, held to a limit
        ("could not create a primitive descriptor for a convolution forward propagation primitive", False),
        ("MPS backend out of memory (MPS allocated: 8.00 GB)", True),
        ("unable to mmap 9 bytes from file <x4.safetensors>: Cannot allocate memory (12)", True),
        ("mat1 and mat2 shapes cannot be multiplied", False),
    ],
)
def test_words_for_a_lack_of_memory(said: str, expected: bool) -> None:
    assert memory.is_out_of_memory(RuntimeError(said)) is expected


def test_out_of_memory_for_good_is_a_sentence() -> None:
    unet = Greedy()
    unet.limit = 0
    with pytest.raises(OutOfMemory, match="even with tiles of 32"):
        upscale_x4(picture(64, 64), replace(oracle(), unet=unet), quick(tile=64))


def test_a_model_that_does_not_fit_is_a_sentence() -> None:
    model = oracle()

    def full(*_: Any) -> None:
        raise MemoryError("no room")

    model.text_encoder.forward = full
    with pytest.raises(OutOfMemory, match=r"oracle.*no room"):
        upscale_x4(picture(64, 64), model, quick())


def test_other_errors_stay_what_they_are() -> None:
    model = oracle()

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("shapes do not fit")

    model.unet.forward = broken
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        upscale_x4(picture(64, 64), model, quick())


def test_values_that_are_no_numbers_are_not_a_black_picture() -> None:
    model = oracle()
    model.vae.decode = lambda latents, return_dict: (F.interpolate(latents[:, :3] * torch.nan, scale_factor=4),)
    with pytest.raises(NotFinite, match="dtype float32"):
        upscale_x4(picture(64, 64), model, quick())


def test_free_memory_counts_what_torch_holds_unused(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = SimpleNamespace(
        mem_get_info=lambda _: (3 * GIB, 8 * GIB), memory_reserved=lambda _: 2 * GIB, memory_allocated=lambda _: GIB
    )
    monkeypatch.setattr(memory, "_backend", lambda _: backend)
    assert memory.free_memory(torch.device("meta")) == 4 * GIB
    monkeypatch.setattr(memory, "_backend", lambda _: None)
    assert memory.free_memory(torch.device("meta")) is None


def test_free_memory_of_the_processor() -> None:
    free = memory.free_memory(torch.device("cpu"))
    assert free is None or 0 < free < 2**50


def test_a_part_goes_back_to_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    released: list[torch.device] = []
    monkeypatch.setattr(memory, "release_memory", released.append)
    part = torch.nn.Linear(2, 2)
    other = torch.device("meta")
    with memory.on_device(part, torch.device("cpu")):
        assert part.weight.device.type == "cpu"
    assert released == []
    part.to(other)
    with memory.on_device(part, other):
        assert part.weight.device == other
    assert released == []


# --- Interrupt ---


def test_interrupt_stops_within_one_tile() -> None:
    model = oracle()
    with pytest.raises(Interrupted):
        upscale_x4(picture(64, 64), model, quick(steps=50), interrupted=lambda: len(model.unet.seen) == 3)
    assert len(model.unet.seen) == 3


def test_interrupt_before_the_start_costs_nothing() -> None:
    model = oracle()
    with pytest.raises(Interrupted):
        upscale_x4(picture(64, 64), model, quick(), interrupted=lambda: True)
    assert model.unet.seen == []


# --- Prompts ---


def test_a_prompt_that_is_too_long_is_told() -> None:
    result = upscale_x4(picture(64, 64), oracle(), quick(prompt="at " * 80))
    assert "5 more were left out" in result.notes[0]


# --- Settings ---


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("noise_level", -1, "0 to 349"),
        ("noise_level", 350, "0 to 349"),
        ("noise_level", 3.5, "0 to 349"),
        ("noise_level", True, "0 to 349"),
        ("tile", 7, "32 to 2048 in steps of 8, or 0"),
        ("tile", 100, "steps of 8"),
        ("decoder_tile", -8, "or 0"),
        ("overlap", 260, "0 to 256"),
        ("guidance_scale", 0.5, "1 .* to 50"),
        ("guidance_scale", float("nan"), "1 .* to 50"),
        ("guidance_scale", "9", "1 .* to 50"),
        ("steps", 0, "1 to 1000"),
        ("seed", -2, "or -1"),
        ("sampler", "Eular", "Euler a"),
        ("scheduler", "", "karras"),
        ("prompt", None, "text"),
        ("colour_guard", "yes", "True or False"),
    ],
)
def test_bad_settings_say_what_is_allowed(field: str, value: object, allowed: str) -> None:
    with pytest.raises(ValueError, match=rf"{field} is .*{allowed}"):
        X4Settings.from_dict({field: value})


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"nose_level.*noise_level"):
        X4Settings.from_dict({"nose_level": 20})


@given(any_settings(st.text(alphabet=st.characters(exclude_categories=["Z", "C"]))))
def test_infotext_brings_everything_back(settings: X4Settings) -> None:
    assert X4Settings.from_infotext(settings.to_infotext()) == settings


def test_an_overlap_larger_than_the_tile_is_refused() -> None:
    with pytest.raises(ValueError, match="overlap is 64 and tile is 32; overlap must not be larger than tile"):
        X4Settings(tile=32, overlap=64)
    assert X4Settings(tile=0, overlap=256).overlap == 256


def test_pictures_of_version_0_1_may_have_a_larger_one_and_are_made_again() -> None:
    read = X4Settings.from_infotext({"x4 upscaler tile size": "64", "x4 upscaler tile overlap": "256"})
    assert (read.tile, read.overlap) == (64, 64)


def test_every_setting_has_its_label() -> None:
    assert list(X4Settings.labels()) == [field.name for field in dataclasses.fields(X4Settings)]
    assert all(label.startswith("x4 upscaler ") for label in X4Settings.labels().values())


@pytest.mark.parametrize(
    ("label", "value"),
    [("x4 upscaler noise level", "3.5"), ("x4 upscaler steps", "many"), ("x4 upscaler colour guard", "maybe")],
)
def test_bad_infotext_names_its_label(label: str, value: str) -> None:
    with pytest.raises(ValueError, match=label):
        X4Settings.from_infotext({label: value, "Steps": "20"})
