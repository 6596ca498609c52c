"""What the learned methods cost beside bicubic, the autoencoder's encode and one step of a full-size U-Net.

    OMP_NUM_THREADS=1 python -m benchmarks.learned.cost --output benchmarks/learned.md

Each row runs in a process of its own, on one thread in float32, `--repeats` times; the fastest counts, in the
processor's own seconds, which other programs hardly disturb. Memory is how far the process grew in the call, the
weights not counted. Autoencoder and U-Net have SD 1.x's published shape and random weights; neither is downloaded.
"""

from __future__ import annotations

import argparse
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lib_latent_upscale.interpolation import interpolate_latent
from lib_latent_upscale.learned import restore_latent, upscale_latent

WORKER = "--worker"
CELL = 8
SIZES = (64, 128, 256, 512)
LARGEST = {"pixels": 128, "step": 64}
"""Cells of a side up to which the large networks run: they take minutes on one core."""

TITLES = {
    "bicubic": "bicubic, from half the side",
    "learned-latent": "learned-latent, from half the side",
    "learned": "learned: its network alone",
    "pixels": "pixels: the encode",
    "step": "one step of the U-Net, without guidance",
}

Call = Callable[[int], Any]


def _latent(side: int) -> torch.Tensor:
    return torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(0))


def _encode() -> Call:
    import diffusers

    from lib_latent_upscale.standalone.engine.vae import encode_picture

    down, up = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4
    vae = diffusers.AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), down_block_types=down, up_block_types=up, layers_per_block=2
    ).eval()
    return lambda side: encode_picture(vae, torch.rand(1, 3, CELL * side, CELL * side), CELL, [0])


def _step() -> Call:
    import diffusers

    unet = diffusers.UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8, sample_size=64).eval()
    return lambda side: unet(_latent(side), 500, torch.randn(1, 77, 768)).sample


CALLS: dict[str, Callable[[], Call]] = {
    "bicubic": lambda: lambda side: interpolate_latent(_latent(side // 2), (side, side), "bicubic"),
    "learned-latent": lambda: lambda side: upscale_latent(_latent(side // 2), (side, side), "sd1"),
    "learned": lambda: lambda side: restore_latent(_latent(side), 2, "sd1"),
    "pixels": _encode,
    "step": _step,
}


@torch.no_grad()
def _measure(name: str, side: int, repeats: int) -> tuple[float, float]:
    """(seconds of the processor, MiB) of one call."""
    call = CALLS[name]()
    call(16)  # reads weights, and what torch keeps for good
    before, seconds = _peak(), []
    for _ in range(repeats):
        started = time.process_time()
        call(side)
        seconds.append(time.process_time() - started)
    return min(seconds), _peak() - before


def _peak() -> float:
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _measured_apart(name: str, side: int, repeats: int) -> tuple[float, float]:
    command = [sys.executable, "-m", "benchmarks.learned.cost", WORKER, name, str(side), str(repeats)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, memory = map(float, done.stdout.split()[-2:])
    return seconds, memory


def _document(found: dict[tuple[str, int], tuple[float, float]], repeats: int) -> str:
    heads = " | ".join(f"{side}x{side}" for side in SIZES)
    step = found["step", LARGEST["step"]][0]
    lines = [f"| cells of the result | {heads} |", "| --- |" + " ---: |" * len(SIZES)]
    for name, title in TITLES.items():
        shown = [_shown(found[name, side], step, side) if (name, side) in found else "" for side in SIZES]
        lines.append(f"| {title} | {' | '.join(shown)} |")
    table = "\n".join(lines)
    return (
        "# The learned methods: time and memory\n\n"
        f"{table}\n\n"
        "Seconds of the processor, how many steps of the U-Net at that size these are (its time at 64x64, times the "
        "number of cells; in truth attention takes more, so that the shares are smaller), and how far the process "
        "grew. A 64x64 result is a picture of 512x512. *learned* costs its row and that of *pixels*. Written by "
        f"`python -m benchmarks.learned.cost`; one thread, float32, fastest of {repeats}, "
        f"{platform.system()} {platform.machine()}, torch {torch.__version__}. Weights: 3 MB for each network.\n\n"
        "Nothing is tiled: at 512x512 cells, a picture of 4096x4096, the networks need less than the encode of a "
        "picture of 512x512.\n"
    )


def _shown(measured: tuple[float, float], step: float, side: int) -> str:
    seconds, memory = measured
    share = seconds / (step * (side / LARGEST["step"]) ** 2)
    return f"{seconds:.3g} s, {share:.2g}, {memory:.0f} MiB"


def main() -> None:
    """Measure, or one row of it in a process of its own."""
    if WORKER in sys.argv:
        name, side, repeats = sys.argv[sys.argv.index(WORKER) + 1 :]
        torch.set_num_threads(1)
        seconds, memory = _measure(name, int(side), int(repeats))
        sys.stdout.write(f"{seconds} {memory}\n")
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "learned.md")
    options = parser.parse_args()
    wanted = [(name, side) for name in CALLS for side in SIZES if side <= LARGEST.get(name, side)]
    found = {}
    for name, side in wanted:
        found[name, side] = _measured_apart(name, side, options.repeats)
        sys.stderr.write(f"{name} {side}: {found[name, side]}\n")
    options.output.write_text(_document(found, options.repeats), encoding="utf-8")


if __name__ == "__main__":
    main()
