"""Measure the demo model on photographs that it never saw, and print the tables of the
README beside its weights (lib_latent_upscale/weights/demo-model).

    python tools/evaluate_demo_model.py [model] [tile]

Photographs: astronaut (NASA, public domain), chelsea and coffee (CC0), from scikit-image; the middle square of each.
"""

from __future__ import annotations

import sys

import numpy as np
import skimage.data
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from lib_latent_upscale.settings import AUTOMATIC, UpscaleSettings
from lib_latent_upscale.standalone.engine.engine import Engine
from lib_latent_upscale.standalone.engine.generation import GenerationSettings
from lib_latent_upscale.standalone.engine.models import load_model
from lib_latent_upscale.standalone.engine.tile_models import load_tile
from lib_latent_upscale.standalone.engine.vae import decode_latent
from lib_latent_upscale.tile_settings import TileSettings

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee")
STRENGTH = 0.3
TILE_STRENGTH = 0.8
NOISE_LEVELS = (0.25, 1.0, 4.0)


def photograph(name: str, size: int) -> Image.Image:
    """The middle square of a photograph of scikit-image at size x size pixels."""
    image = Image.fromarray(getattr(skimage.data, name)())
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return square.resize((size, size), Image.Resampling.LANCZOS)


def psnr(image: Image.Image, truth: Image.Image) -> float:
    return float(peak_signal_noise_ratio(np.asarray(truth), np.asarray(image), data_range=255))


def ssim(image: Image.Image, truth: Image.Image) -> float:
    return float(structural_similarity(np.asarray(truth), np.asarray(image), channel_axis=-1, data_range=255))


def round_trip(engine: Engine, small: Image.Image) -> Image.Image:
    """Encoded and decoded, nothing else."""
    prepared = engine.prepare([small], GenerationSettings(width=small.width, height=small.height))
    pixels = decode_latent(engine.model.vae, prepared.latent, engine.model.cell)[0]
    return Image.fromarray(((pixels + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy())


@torch.no_grad()
def remaining_noise(engine: Engine, small: Image.Image, sigma: float) -> float:
    """Mean square error of the latents after one denoising step, relative to the noise that was added."""
    generation = GenerationSettings(width=small.width, height=small.height, cfg_scale=1)
    prepared = engine.prepare([small], generation)
    noise = torch.randn(prepared.latent.shape, generator=torch.Generator().manual_seed(0))
    denoise = engine.denoiser(prepared, generation)
    cleaned = denoise(prepared.latent + sigma * noise, torch.tensor([sigma]))
    return float((cleaned - prepared.latent).square().mean() / sigma**2)


def enlarged(engine: Engine, small: Image.Image, upscale: UpscaleSettings) -> Image.Image:
    generation = GenerationSettings(
        width=2 * small.width, height=2 * small.height, denoising_strength=STRENGTH, upscale=upscale
    )
    return engine.upscale([small], generation).pictures[0]


def row(engine: Engine, name: str) -> list[str]:
    small, large = photograph(name, 256), photograph(name, 512)
    results = [
        small.resize(large.size, Image.Resampling.BICUBIC),
        enlarged(engine, small, UpscaleSettings(method="bilinear", scheduler=AUTOMATIC, exact_steps=False)),
        enlarged(engine, small, UpscaleSettings()),
    ]
    return [
        name,
        f"{psnr(round_trip(engine, small), small):.1f} dB",
        *(f"{psnr(image, large):.1f} dB, {ssim(image, large):.2f}" for image in results),
        *(f"{100 * remaining_noise(engine, small, sigma):.0f} %" for sigma in NOISE_LEVELS),
    ]


def kept(engine: Engine, small: Image.Image, tile: TileSettings | None) -> str:
    """PSNR of an upscale at denoising strength 0.8, shrunk again, against what it was made from."""
    generation = GenerationSettings(
        width=2 * small.width, height=2 * small.height, denoising_strength=TILE_STRENGTH, sampler="Euler", tile=tile
    )
    result = engine.upscale([small], generation).pictures[0]
    return f"{psnr(result.resize(small.size, Image.Resampling.BOX), small):.1f} dB"


def tile_table() -> list[list[str]]:
    model = load_model("demo")
    engine = Engine(model, load_tile("demo", model))
    tiles = {"without": None, "with tile ControlNet": TileSettings(), "weight 0.5": TileSettings(weight=0.5)}
    pictures = {name: photograph(name, 256) for name in PHOTOGRAPHS}
    rows = [[name, *(kept(engine, small, tile) for tile in tiles.values())] for name, small in pictures.items()]
    return [["photograph", *tiles], ["---"] * (len(tiles) + 1), *rows]


def model_table() -> list[list[str]]:
    engine = Engine(load_model("demo"))
    upscales = ("bicubic picture resize", "the WebUI's default", "nearest-exact, simple, exact steps")
    header = ["photograph", "VAE round trip", *upscales, *(f"noise left of sigma {s:g}" for s in NOISE_LEVELS)]
    return [header, ["---"] * len(header), *(row(engine, name) for name in PHOTOGRAPHS)]


TABLES = {"model": model_table, "tile": tile_table}


def main() -> None:
    for name in sys.argv[1:] or TABLES:
        sys.stdout.writelines(f"| {' | '.join(cells)} |\n" for cells in TABLES[name]())
        sys.stdout.write("\n")


if __name__ == "__main__":
    main()
