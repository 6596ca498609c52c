"""Measure the demo model on pictures that it never saw, and print the tables of the README beside its weights.

    python -m tools.demo.evaluate model --drawings DIR --taesd DIR
    python -m tools.demo.evaluate tile --drawings DIR

Photographs: astronaut (NASA, public domain), chelsea and coffee (CC0), from scikit-image; the middle square of each.
Drawings: scenes of those that are kept for measuring.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import skimage.data
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio
from torch import Tensor, nn

from lib_latent_upscale.comparison.variants import HOST_DEFAULT
from lib_latent_upscale.settings import UpscaleSettings
from lib_latent_upscale.standalone.engine.engine import Engine
from lib_latent_upscale.standalone.engine.generation import GenerationSettings
from lib_latent_upscale.standalone.engine.models import load_model
from lib_latent_upscale.standalone.engine.tile_models import load_tile
from lib_latent_upscale.standalone.engine.vae import decode_latent
from lib_latent_upscale.tile_settings import TileSettings
from tools.learned import taesd
from tools.learned.pictures import held_out_scenes

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee")
SIZE = 512
STRENGTH, TILE_STRENGTH = 0.2, 0.8
NOISE_LEVELS = (0.25, 1.0, 4.0)
NEAREST = UpscaleSettings("nearest-exact")
UPSCALES: Mapping[str, UpscaleSettings] = {
    "WebUI, latent upscale": HOST_DEFAULT,
    "WebUI, Just resize": replace(HOST_DEFAULT, method="pixels"),
    "nearest-exact": NEAREST,
    "learned": UpscaleSettings("learned"),
}


def photograph(name: str) -> Image.Image:
    """The middle square of a photograph of scikit-image."""
    image = Image.fromarray(getattr(skimage.data, name)())
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.resize((SIZE, SIZE), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))


def kinds(options: argparse.Namespace) -> dict[str, list[Image.Image]]:
    return {
        "drawings": held_out_scenes(options.drawings, options.count),
        "photographs": [photograph(name) for name in PHOTOGRAPHS],
    }


def half(image: Image.Image) -> Image.Image:
    return image.resize((SIZE // 2, SIZE // 2), Image.Resampling.LANCZOS)


def energy(image: Image.Image) -> float:
    """Sum of squared differences down and across."""
    values = np.asarray(image, dtype=np.float64)
    return float(sum(np.square(np.diff(values, axis=axis)).sum() for axis in (0, 1)))


def beside(image: Image.Image, truth: Image.Image) -> tuple[float, float]:
    """PSNR, and the gradient energy as a share of the original's."""
    psnr = peak_signal_noise_ratio(np.asarray(truth), np.asarray(image), data_range=255)
    return float(psnr), energy(image) / energy(truth)


def as_image(pixels: Tensor) -> Image.Image:
    """A picture of (3, height, width) in -1..1."""
    return Image.fromarray(((pixels + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy())


def round_trip(engine: Engine, picture: Image.Image) -> Image.Image:
    """Encoded and decoded, nothing else."""
    prepared = engine.prepare([picture], GenerationSettings(*picture.size))
    return as_image(decode_latent(engine.model.vae, prepared.latent, engine.model.vae_scale_factor)[0])


@torch.no_grad()
def through(networks: tuple[nn.Module, nn.Module], picture: Image.Image) -> Image.Image:
    """The same with TAESD."""
    values = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255
    encoder, decoder = networks
    return as_image(decoder(encoder(values))[0] * 2 - 1)


@torch.no_grad()
def remaining_noise(engine: Engine, picture: Image.Image, sigma: float) -> float:
    """Mean square error of the latents after one denoising step, relative to the noise that was added."""
    generation = GenerationSettings(*picture.size, cfg_scale=1)
    prepared = engine.prepare([picture], generation)
    noise = torch.randn(prepared.latent.shape, generator=torch.Generator().manual_seed(0))
    cleaned = engine.denoiser(prepared, generation)(prepared.latent + sigma * noise, torch.tensor([sigma]))
    return float((cleaned - prepared.latent).square().mean() / sigma**2)


def enlarged(engine: Engine, picture: Image.Image, upscale: UpscaleSettings) -> Image.Image:
    generation = GenerationSettings(SIZE, SIZE, denoising_strength=STRENGTH, upscale=upscale)
    return engine.upscale([half(picture)], generation).pictures[0]


def row(name: str, pairs: list[tuple[float, float]]) -> str:
    psnr, share = np.mean(pairs, axis=0)
    return f"| {name} | {psnr:.1f} dB | {share:.2f} |"


def model_table(options: argparse.Namespace) -> list[str]:
    engine, teacher = Engine(load_model("demo", device="cpu")), taesd.load(options.taesd, "sd1")
    lines = []
    for kind, pictures in kinds(options).items():
        lines += ["", f"| {kind} ({len(pictures)}) | PSNR | gradient energy |", "|---|---:|---:|"]
        lines.append(row("round trip of TAESD", [beside(through(teacher, one), one) for one in pictures]))
        lines.append(row("round trip of the demo model", [beside(round_trip(engine, one), one) for one in pictures]))
        plain = [beside(half(one).resize(one.size, Image.Resampling.LANCZOS), one) for one in pictures]
        lines.append(row("picture resized, no model", plain))
        for name, upscale in UPSCALES.items():
            lines.append(row(name, [beside(enlarged(engine, one, upscale), one) for one in pictures]))
        left = [np.mean([remaining_noise(engine, half(one), sigma) for one in pictures]) for sigma in NOISE_LEVELS]
        of = ", ".join(f"{sigma:g}: {100 * share:.0f} %" for sigma, share in zip(NOISE_LEVELS, left, strict=True))
        lines.append(f"\nNoise left after one step, {kind}, of sigma {of}.")
    return lines


def kept(engine: Engine, picture: Image.Image, tile: TileSettings | None) -> float:
    """PSNR of an upscale at denoising strength 0.8, shrunk again, against what it was made from."""
    generation = GenerationSettings(
        SIZE, SIZE, denoising_strength=TILE_STRENGTH, sampler="Euler", upscale=NEAREST, tile=tile
    )
    result = engine.upscale([half(picture)], generation).pictures[0]
    return beside(result.resize(half(picture).size, Image.Resampling.BOX), half(picture))[0]


def tile_table(options: argparse.Namespace) -> list[str]:
    model = load_model("demo", device="cpu")
    engine = Engine(model, load_tile("demo", model))
    tiles = {"without": None, "with tile ControlNet": TileSettings(), "weight 0.5": TileSettings(weight=0.5)}
    lines = [f"| | {' | '.join(tiles)} |", f"|---{'|---:' * len(tiles)}|"]
    for kind, pictures in kinds(options).items():
        means = [np.mean([kept(engine, one, tile) for one in pictures]) for tile in tiles.values()]
        lines.append(f"| {kind} | {' | '.join(f'{mean:.1f} dB' for mean in means)} |")
    return lines


TABLES = {"model": model_table, "tile": tile_table}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--drawings", type=Path, required=True)
    parser.add_argument("--taesd", type=Path, help="for its own round trip, in the first table")
    parser.add_argument("--count", type=int, default=8, help="drawings")
    options = parser.parse_args()
    sys.stdout.writelines(f"{line}\n" for line in TABLES[options.table](options))


if __name__ == "__main__":
    main()
