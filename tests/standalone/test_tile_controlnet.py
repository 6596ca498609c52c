"""Tile ControlNet, standalone: the same as diffusers' pipelines, and refused in words where it cannot be used."""

import json
import re
from dataclasses import replace

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from lib_latent_upscale.settings import UpscaleSettings
from lib_latent_upscale.standalone import engine as engine_module
from lib_latent_upscale.standalone.cli import build_parser, main
from lib_latent_upscale.standalone.common import tile_overrides
from lib_latent_upscale.standalone.engine import Engine
from lib_latent_upscale.standalone.errors import InputError
from lib_latent_upscale.standalone.models import load_model
from lib_latent_upscale.standalone.settings import GenerationSettings, parse_parameters, write_parameters
from lib_latent_upscale.standalone.tile import ColourFix, control_picture, controlled_steps, second_pass
from lib_latent_upscale.standalone.tile_models import checked_tile, load_tile
from lib_latent_upscale.tile_controlnet import CONTROL_MODES, PREPROCESSORS, TileSettings
from tests.standalone import tiny_model

CHANGES = {"Balanced": False, "ControlNet is more important": True}
"""Control modes that diffusers has, and its guess mode in them."""


@pytest.fixture(scope="module")
def sd1_tile(sd1_folder, tmp_path_factory):
    return tiny_model.save_controlnet(tmp_path_factory.mktemp("tile") / "tiny-tile", sd1_folder)


@pytest.fixture(scope="module")
def sdxl_tile(sdxl_folder, tmp_path_factory):
    return tiny_model.save_controlnet(tmp_path_factory.mktemp("tile") / "tiny-xl-tile", sdxl_folder)


@pytest.fixture(scope="module")
def engine(sd1_folder, sd1_tile):
    model = load_model(str(sd1_folder), device="cpu")
    return Engine(model, load_tile(str(sd1_tile), model))


@pytest.fixture(scope="module")
def sdxl_engine(sdxl_folder, sdxl_tile):
    model = load_model(str(sdxl_folder), device="cpu")
    return Engine(model, load_tile(str(sdxl_tile), model))


def small(tile=None, **changes) -> GenerationSettings:
    """An upscale whose five steps run from sigma 1.9 over whole timesteps: 444, 333, 222, 111, 0."""
    defaults = {"steps": 5, "denoising_strength": 0.5, "prompt": "a cat", "sampler": "Euler", "cfg_scale": 3}
    upscale = UpscaleSettings(scheduler="normal")
    return GenerationSettings(96, 64, **{**defaults, "upscale": upscale, "tile": tile, **changes})


@torch.no_grad()
def denoised(engine, photo, generation, monkeypatch) -> torch.Tensor:
    """The latents before they are decoded."""
    kept = []

    def keep(_vae, latent, _cell):
        kept.append(latent)
        return torch.zeros(len(latent), 3, 64, 96)

    with monkeypatch.context() as patch:
        patch.setattr(engine_module, "decode_latent", keep)
        engine.upscale([photo], generation)
    return kept[-1]


@torch.no_grad()
def by_diffusers(kind, folder, engine, photo, generation, **options) -> torch.Tensor:
    """The same latents from diffusers' pipeline with its Euler sampler over the same timesteps."""
    scheduler = diffusers.EulerDiscreteScheduler.from_pretrained(
        folder, subfolder="scheduler", timestep_spacing="linspace", interpolation_type="linear", steps_offset=0
    )
    pipeline = kind.from_pretrained(folder, controlnet=engine.tile.network, scheduler=scheduler)
    pipeline.set_progress_bar_config(disable=True)
    prepared = engine.prepare([photo], generation)
    tile = generation.tile
    return pipeline(
        generation.prompt,
        image=engine.enlarged_latent(prepared, generation),
        control_image=control_picture(prepared.pixels, (64, 96), tile),
        strength=generation.denoising_strength,
        num_inference_steps=2 * generation.steps,
        guidance_scale=generation.cfg_scale,
        generator=torch.Generator().manual_seed(generation.seed),
        controlnet_conditioning_scale=float(tile.weight),
        control_guidance_start=tile.start,
        control_guidance_end=tile.end,
        guess_mode=CHANGES[tile.control_mode],
        output_type="latent",
        **options,
    ).images


def close(ours, theirs) -> bool:
    """Within float noise: k-diffusion finds a sigma's timestep from a logarithm, to about a thousandth."""
    return bool((ours - theirs).abs().max() < 2e-3 * theirs.std())


TILES = [
    TileSettings(),
    TileSettings(weight=0.6),
    TileSettings(start=0.2, end=0.8),
    TileSettings(down_sampling_rate=3),
    TileSettings(control_mode="ControlNet is more important"),
]


@pytest.mark.parametrize("tile", TILES, ids=str)
def test_sd1_equals_diffusers_pipeline(sd1_folder, engine, photo, monkeypatch, tile):
    generation = small(tile)
    ours = denoised(engine, photo, generation, monkeypatch)
    kind = diffusers.StableDiffusionControlNetImg2ImgPipeline
    assert close(ours, by_diffusers(kind, sd1_folder, engine, photo, generation))
    assert not close(ours, denoised(engine, photo, replace(generation, tile=None), monkeypatch))


@pytest.mark.parametrize("tile", TILES[:1] + TILES[-1:], ids=str)
def test_sdxl_equals_diffusers_pipeline(sdxl_folder, sdxl_engine, photo, monkeypatch, tile):
    generation = small(tile)
    ours = denoised(sdxl_engine, photo, generation, monkeypatch)
    kind = diffusers.StableDiffusionXLControlNetImg2ImgPipeline
    sizes = {"original_size": (64, 96), "target_size": (64, 96)}
    theirs = by_diffusers(kind, sdxl_folder, sdxl_engine, photo, generation, **sizes)
    assert close(ours, theirs)
    assert not close(ours, denoised(sdxl_engine, photo, replace(generation, tile=None), monkeypatch))
