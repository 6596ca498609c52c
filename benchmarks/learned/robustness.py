"""How *learned* bears latents that are a little off, as the real autoencoders' are; writes benchmarks/robustness.md.

python -m benchmarks.learned.robustness --taesd DIR --drawings DIR --kodak DIR
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.learned.__main__ import case, photographed
from benchmarks.learned.methods import METHODS, Case, nearness
from lib_latent_upscale.learned import FAMILIES, restore_latent
from tools.learned import taesd
from tools.learned.pictures import held_out_scenes

FACTOR = 2.0
OUTPUT = Path(__file__).parents[1] / "robustness.md"


def noise(latent: Tensor, deviation: float) -> Tensor:
    """The same noise for every method."""
    return latent + deviation * torch.randn(latent.shape, generator=torch.Generator().manual_seed(0))


def smoothed(latent: Tensor, share: float) -> Tensor:
    """A share of each cell taken from the mean of the nine around it."""
    mean = F.avg_pool2d(F.pad(latent, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return torch.lerp(latent, mean, share)


DISTURBANCES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "none": lambda latent: latent,
    "noise of deviation 0.05": lambda latent: noise(latent, 0.05),
    "noise of deviation 0.1": lambda latent: noise(latent, 0.1),
    "3 % smaller": lambda latent: 0.97 * latent,
    "3 % larger": lambda latent: 1.03 * latent,
    "0.05 added": lambda latent: latent + 0.05,
    "10 % smoothed": lambda latent: smoothed(latent, 0.1),
}
"""Of latents whose deviation is about 1."""


def table(cases: list[Case]) -> str:
    """A line a disturbance: the resized picture's latents, and those restored."""
    lines = ["| disturbance | *pixels* | *learned* |", "|---|---|---|"]
    given = [METHODS["pixels"](one) for one in cases]
    for name, disturb in DISTURBANCES.items():
        disturbed = [disturb(latent) for latent in given]
        restored = [
            restore_latent(latent, one.factor, one.family) for one, latent in zip(cases, disturbed, strict=True)
        ]
        cells = []
        for latents in (disturbed, restored):
            found = [nearness(one, one.decode(latent)) for one, latent in zip(cases, latents, strict=True)]
            psnr, energy = (np.mean([each[figure] for each in found]) for figure in ("PSNR", "gradient energy"))
            cells.append(f"{psnr:.2f} dB, {energy:.2f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure every family."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("taesd", "drawings", "kodak"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--count", type=int, default=3, help="drawings, and as many photographs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pictures = held_out_scenes(options.drawings, options.count) + photographed(options.kodak, options.count)
    parts = []
    for name, family in FAMILIES.items():
        networks = taesd.load(options.taesd, name)
        parts.append(f"## {family.title}\n\n{table([case(one, FACTOR, name, networks) for one in pictures])}\n")
    OUTPUT.write_text(
        "# Latents that are a little off\n\n"
        f"Written by `python -m benchmarks.learned.robustness`. {options.count} held-out drawings and as many Kodak\n"
        "photographs, enlarged twice without denoising. The latents of the resized picture were disturbed and then\n"
        "decoded (*pixels*), or restored and then decoded (*learned*): PSNR, and gradient energy as a share of the\n"
        "original's.\n\n" + "\n".join(parts),
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
