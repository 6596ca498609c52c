"""Latents of the pictures: sharp, of the same reduced and resized, and of the reduced ones at their own size.

    python -m tools.learned.encode --family sd1 --taesd DIR --work DIR

Each chunk is a file of its own, so that the work goes on where it was broken off and a training can begin meanwhile.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from tools.learned import taesd
from tools.learned.pictures import SIDE
from tools.precision import autocast

CHUNK = 64
SIDES = {64: 0.08, 80: 0.12, 96: 0.12, 128: 0.32, 160: 0.2, 192: 0.16}
"""Sides of the reduced pictures (factors 4 to 1.33), and how often each is drawn."""
FILTERS = (Image.Resampling.BOX, Image.Resampling.LANCZOS, Image.Resampling.BICUBIC)
GENERATED = 0.3
"""Share of the reduced pictures that have been through the autoencoder, as generated pictures have."""


def pixels(pictures: list[Image.Image]) -> Tensor:
    """(batch, 3, height, width) in 0..1."""
    values = np.stack([np.asarray(picture) for picture in pictures])
    tensor = torch.from_numpy(values).permute(0, 3, 1, 2).float() / 255
    return tensor.contiguous(memory_format=torch.channels_last)


def image(values: Tensor) -> Image.Image:
    """A picture of (3, height, width) in 0..1."""
    return Image.fromarray((values.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy())


@torch.no_grad()
def encoded(encoder: nn.Module, pictures: list[Image.Image]) -> Tensor:
    """Latents in half precision, in batches that a small machine can hold."""
    latents = []
    for start in range(0, len(pictures), 8):
        with autocast():
            latents.append(encoder(pixels(pictures[start : start + 8])))
    return torch.cat([latent.half() for latent in latents])


@torch.no_grad()
def chunk(
    rng: np.random.Generator, pictures: list[Image.Image], networks: tuple[nn.Module, nn.Module], draws: int
) -> Any:
    """Latents of some pictures; `soft` and `small` belong to the `sharp` ones at `index`."""
    encoder, decoder = networks
    sides = rng.choice(list(SIDES), (len(pictures), draws), p=list(SIDES.values()))
    result: dict[str, Any] = {"sharp": encoded(encoder, pictures), "reduced": []}
    for side in SIDES:
        index = np.argwhere(sides == side)[:, 0]
        if not len(index):
            continue
        small = [pictures[place].resize((side, side), FILTERS[rng.integers(3)]) for place in index]
        latents = encoded(encoder, small)
        for place in np.flatnonzero(rng.random(len(index)) < GENERATED):
            small[place] = image(decoder(latents[place : place + 1].float())[0])
            latents[place : place + 1] = encoded(encoder, [small[place]])
        soft = encoded(encoder, [picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS) for picture in small])
        result["reduced"].append(
            {"factor": SIDE / side, "index": torch.from_numpy(index), "small": latents, "soft": soft}
        )
    return result


def main() -> None:
    """Write FAMILY-000.pt and so on into the folder `latents`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--family", choices=list(taesd.FILES), required=True)
    parser.add_argument("--taesd", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--count", type=int, default=10**9, help="of the pictures, from the first on")
    parser.add_argument("--draws", type=int, default=2, help="reductions of each picture")
    options = parser.parse_args()
    torch.set_num_threads(1)
    networks = taesd.load(options.taesd, options.family)
    values = np.load(options.work / "pictures.npy", mmap_mode="r")[: options.count]
    folder = options.work / "latents"
    folder.mkdir(exist_ok=True)
    for number in range(len(values) // CHUNK):
        path = folder / f"{options.family}-{number:03}.pt"
        if path.exists():
            continue
        pictures = [Image.fromarray(one) for one in values[number * CHUNK : (number + 1) * CHUNK]]
        part = path.with_suffix(".part")
        torch.save(chunk(np.random.default_rng((7, number)), pictures, networks, options.draws), part)
        part.rename(path)


if __name__ == "__main__":
    main()
