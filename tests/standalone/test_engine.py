"""The engine: exactly the asked size, the asked steps, the same picture each time; checked against plain formulas."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lib_latent_upscale.errors import GenerationError, InputError
from lib_latent_upscale.interpolation import interpolate_latent
from lib_latent_upscale.settings import UpscaleSettings
from lib_latent_upscale.standalone.engine import engine as engine_module
from lib_latent_upscale.standalone.engine.engine import Engine
from lib_latent_upscale.standalone.engine.generation import GenerationSettings
from lib_latent_upscale.standalone.engine.models import load_model
from lib_latent_upscale.standalone.engine.prompts import encode_prompt
from tests.standalone import tiny_model

SMALL = GenerationSettings(96, 64, steps=2, prompt="a cat", sampler="Euler")


def values(picture):
    return np.asarray(picture, dtype=int)


@settings(max_examples=8)
@given(
    width=st.integers(16, 90), height=st.integers(16, 90), wanted=st.tuples(st.integers(16, 130), st.integers(16, 130))
)
def test_exactly_the_asked_size_comes_out(engine, width, height, wanted):
    picture = Image.effect_noise((width, height), 60).convert("RGB")
    generation = replace(SMALL, width=wanted[0], height=wanted[1], steps=1)
    assert engine.upscale([picture], generation).pictures[0].size == wanted


def test_the_same_again_gives_the_same(engine, photo):
    torch.manual_seed(1)
    first = engine.upscale([photo], SMALL).pictures[0]
    torch.manual_seed(2)
    torch.randn(7)
    second = engine.upscale([photo], SMALL).pictures[0]
    assert (values(first) == values(second)).all()


@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ 2M SDE"])
def test_pictures_in_a_batch_are_as_alone(engine, photo, noise_picture, sampler):
    generation = replace(SMALL, sampler=sampler)
    other = noise_picture.resize(photo.size)
    together = engine.upscale([other, photo], generation).pictures[1]
    assert np.abs(values(together) - values(engine.upscale([photo], generation).pictures[0])).max() <= 1


def test_seeds_and_settings_change_the_picture(engine, photo):
    base = values(engine.upscale([photo], SMALL).pictures[0])
    for change in (
        {"seed": 2},
        {"prompt": "a dog"},
        {"negative_prompt": "a cat"},
        {"cfg_scale": 3},
        {"denoising_strength": 0.6},
        {"steps": 3},
        {"upscale": UpscaleSettings(method="bicubic")},
        {"upscale": UpscaleSettings(keep_statistics=True, method="bilinear")},
    ):
        assert (values(engine.upscale([photo], replace(SMALL, **change)).pictures[0]) != base).any(), change


@torch.no_grad()
def test_no_denoising_is_the_enlarged_latent_decoded(engine, photo):
    """By hand with diffusers' autoencoder: 128x96 pixels, 16x12 cells, to 24x16 cells."""
    vae = engine.model.vae
    pixels = torch.from_numpy(np.array(photo, dtype=np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
    generation = GenerationSettings(192, 144, denoising_strength=0, upscale=UpscaleSettings("bicubic"))
    drawn = vae.encode(pixels).latent_dist.sample(torch.Generator().manual_seed(generation.seed))
    latent = interpolate_latent(drawn, (18, 24), "bicubic")
    expected = ((vae.decode(latent).sample[0] + 1) * 127.5).clamp(0, 255).permute(1, 2, 0)
    result = engine.upscale([photo], generation)
    assert result.plan.steps == 0
    assert np.abs(values(result.pictures[0]) - expected.numpy()).max() < 0.52


@pytest.mark.parametrize(("family", "method"), [("sd1", "learned"), ("sdxl", "learned"), (None, "pixels")])
def test_without_a_method_the_model_chooses_it(engine, photo, monkeypatch, family, method):
    monkeypatch.setattr(type(engine.model), "family", family)
    asked = replace(SMALL, width=192, height=144, steps=1, denoising_strength=0.3)
    done, named = (engine.upscale([photo], one) for one in (asked, replace(asked, upscale=UpscaleSettings(method))))
    assert done.generation.upscale == UpscaleSettings(method)
    assert (values(done.pictures[0]) == values(named.pictures[0])).all()


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("cfg_scale", [1.0, 7.0])
@torch.no_grad()
def test_the_denoised_latent_follows_the_formula(tmp_path, photo, prediction, cfg_scale):
    """k-diffusion's preconditioning (Karras et al. 2022, table 1 and appendix C) and guidance, written out."""
    model = load_model(str(tiny_model.save_sd1(tmp_path / "model", prediction=prediction)), device="cpu")
    engine = Engine(model)
    generation = replace(SMALL, cfg_scale=cfg_scale, negative_prompt="a dog")
    prepared = engine.prepare([photo], generation)
    index = 500
    sigma = model.sigmas[index]
    x = torch.randn(1, 4, 8, 12) * sigma

    def denoised(tokens):
        output = model.unet(x / (sigma**2 + 1) ** 0.5, index, tokens).sample
        if prediction == "epsilon":
            return x - sigma * output
        return x / (sigma**2 + 1) - output * sigma / (sigma**2 + 1) ** 0.5

    positive, negative = denoised(prepared.positive.embeddings), denoised(prepared.negative.embeddings)
    expected = negative + cfg_scale * (positive - negative)
    result = engine.denoiser(prepared, generation)(x, sigma[None])
    assert torch.allclose(result, expected, atol=2e-4 * expected.abs().max())


def test_guidance_in_turns_is_guidance_at_once(engine, photo, monkeypatch):
    """Large latents go through the UNet one prompt after the other, to save memory."""
    at_once = engine.upscale([photo], SMALL).pictures[0]
    monkeypatch.setattr(engine_module, "_CELLS_AT_ONCE", 0)
    assert np.abs(values(at_once) - values(engine.upscale([photo], SMALL).pictures[0])).max() <= 1


def test_what_variants_share_is_made_once(engine, photo, monkeypatch):
    prepared = engine.prepare([photo], SMALL)
    monkeypatch.setattr(engine_module, "encode_picture", None)
    monkeypatch.setattr(engine_module, "encode_prompt", None)
    for method in ("nearest", "bislerp"):
        generation = replace(SMALL, upscale=UpscaleSettings(method))
        assert engine.run(prepared, generation).pictures[0].size == SMALL.size


def test_progress_counts_the_steps_that_run(engine, photo):
    seen = []
    generation = replace(SMALL, steps=3, denoising_strength=0.4)
    engine.upscale([photo], generation, lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_little_more_strength_at_few_steps_is_a_little_more_change(demo_engine, photo):
    """Rounded to whole steps, what repeats at 8 pixels jumps from 0.500 to 0.501 (AUTOMATIC1111 #14706)."""
    energies = []
    for strength in (0.499, 0.5, 0.501, 0.51):
        seen = []
        upscale = UpscaleSettings("nearest-exact", starting_noise="continuous")
        generation = GenerationSettings(256, 192, steps=4, denoising_strength=strength, seed=7, upscale=upscale)
        made = demo_engine.upscale([photo], generation, lambda done, total, seen=seen: seen.append((done, total)))
        assert seen[-1] == (4, 4)
        power = np.abs(np.fft.fft2(made.pictures[0].convert("L"))) ** 2
        power[0, 0] = 0
        energies.append((power[192 // 8].sum() + power[:, 256 // 8].sum()) / power.sum())
    assert max(energies) < 1.02 * min(energies)


def test_values_that_are_no_numbers_are_an_error_not_a_black_picture(engine, photo, monkeypatch):
    monkeypatch.setattr(engine_module, "decode_latent", lambda *_: torch.full((1, 3, 64, 96), torch.nan))
    with pytest.raises(GenerationError, match="float32"):
        engine.upscale([photo], SMALL)


@pytest.mark.parametrize("method", ["pixels", "learned"])
def test_a_method_of_the_resized_picture_encodes_it_once_and_keeps_the_size(engine, photo, method, monkeypatch):
    encoded, encode = [], engine_module.encode_picture

    def counted(vae, pixels, *more):
        encoded.append(tuple(pixels.shape))
        return encode(vae, pixels, *more)

    monkeypatch.setattr(engine_module, "encode_picture", counted)
    generation = replace(GenerationSettings(200, 150, steps=1, denoising_strength=0.1), upscale=UpscaleSettings(method))
    prepared = engine.prepare([photo], generation)
    pictures = [engine.run(prepared, generation).pictures[0] for _ in range(2)]
    assert pictures[0].size == (200, 150)
    assert (np.asarray(pictures[0]) == np.asarray(pictures[1])).all()
    assert len(encoded) == 2, "the small one, and the resized one for both runs"


def test_a_model_whose_latents_no_network_knows_is_said(demo_engine, photo):
    vae = SimpleNamespace(config=SimpleNamespace(**{**demo_engine.model.vae.config, "scaling_factor": 0.5}))
    engine = Engine(replace(demo_engine.model, vae=vae))
    generation = GenerationSettings(256, 192, steps=1, upscale=UpscaleSettings("learned"))
    with pytest.raises(InputError, match=r"demo: method is 'learned'; it knows the latents of .*, not this model's"):
        engine.upscale([photo], generation)


@pytest.mark.parametrize(
    ("prompt", "warned"), [("a (cat:1.2)", 1), ("a cat <lora:fur:0.8>", 1), ("a cat: small <3", 0), ("(a cat)", 0)]
)
def test_syntax_that_is_not_interpreted_is_said(engine, caplog, prompt, warned):
    encode_prompt(engine.model.encoders, prompt)
    assert caplog.text.count("plain text here") == warned
