"""Time and peak memory of the x4 upscaler beside diffusers' StableDiffusionUpscalePipeline, with the same weights.

    python -m benchmarks.x4 --width 16 --sizes 64 128 256 512 --output benchmarks/x4.md

Builds a randomly initialised model of the published architecture, `--width` channels wide (published: 256), and runs
each picture in processes of their own, in turn, `--repeats` times; the median counts. Ours runs twice: with tiles
chosen from the free memory, and with tiles of `--tile`, as where memory is short. All take the same DDIM steps with
guidance. Time is the clock's on an accelerator, and otherwise the processor's own seconds, which other programs hardly
disturb. Memory is what the call adds to the loaded model: on an accelerator, what torch allocated there at most;
otherwise, how far the process grew. `--width 256` is the true size, for a machine that can.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from lib_latent_upscale.memory import default_device
from lib_latent_upscale.x4_upscaler import X4Settings, load_x4, upscale_x4

ROOT = Path(__file__).resolve().parents[1]
MIB = 2**20
WORKER = "--worker"

Call = Callable[[Image.Image], Any]


def ours(folder: Path, steps: int, tile: int = 0) -> Call:
    model = load_x4(folder)
    settings = X4Settings(steps=steps, sampler="DDIM", scheduler="ddim_uniform", seed=0, tile=tile)
    return lambda picture: upscale_x4(picture, model, settings).image


def theirs(folder: Path, steps: int, _tile: int) -> Call:
    from diffusers import StableDiffusionUpscalePipeline

    device = default_device()
    kind = torch.float32 if device.type == "cpu" else torch.float16
    pipeline = StableDiffusionUpscalePipeline.from_pretrained(str(folder), torch_dtype=kind).to(device)
    pipeline.set_progress_bar_config(disable=True)
    return lambda picture: pipeline(
        prompt="", image=picture, num_inference_steps=steps, generator=torch.Generator().manual_seed(0)
    ).images[0]


def untiled(folder: Path, steps: int, _tile: int) -> Call:
    return ours(folder, steps)


RUNNERS: dict[str, Callable[[Path, int, int], Call]] = {"ours": untiled, "tiled": ours, "theirs": theirs}

Result = dict[str, float] | str
"""Figures, or why there are none."""


def peak_memory() -> int:
    """Bytes: the most that torch held on the accelerator, or that this process held."""
    device = default_device()
    if device.type != "cpu":
        return int(getattr(torch, device.type).max_memory_allocated(device))
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def work(name: str, folder: Path, size: int, steps: int, tile: int) -> dict[str, float]:
    """Measure one call, after one with a small picture that imports what is imported late."""
    run = RUNNERS[name](folder, steps, tile)
    run(Image.new("RGB", (64, 64), "teal"))
    before = peak_memory()
    clock = time.process_time if default_device().type == "cpu" else time.perf_counter
    started = clock()
    result = run(Image.effect_noise((size, size), 60).convert("RGB"))
    seconds = clock() - started
    if result.size != (4 * size, 4 * size):
        raise RuntimeError(f"{name} made {result.size} of {size}")
    return {"seconds": seconds, "mebibytes": (peak_memory() - before) / MIB}


def measure(name: str, folder: Path, size: int, options: argparse.Namespace) -> Result:
    """The figures of one process, or why there are none."""
    numbers = (str(number) for number in (size, options.steps, options.tile))
    command = [sys.executable, "-m", "benchmarks.x4", WORKER, name, str(folder), *numbers]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=options.timeout, check=False)
    except subprocess.TimeoutExpired:
        return f"stopped after {options.timeout} s"
    if done.returncode == 0:
        figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return figures
    last = done.stderr.strip().splitlines()[-1:] or [f"ended with {done.returncode}"]
    return "out of memory" if done.returncode < 0 or "memory" in last[0] else last[0][:80]


def middle(runs: list[Result]) -> Result:
    """The median of each figure; why there is none where a run failed."""
    figures = [run for run in runs if isinstance(run, dict)]
    if len(figures) < len(runs):
        return next(run for run in runs if isinstance(run, str))
    return {key: statistics.median(run[key] for run in figures) for key in figures[0]}


def cell(result: Result) -> str:
    return result if isinstance(result, str) else f"{result['seconds']:.1f} s, {result['mebibytes']:.0f} MiB"


def ratio(key: str, results: dict[str, Result]) -> str:
    """Ours beside theirs, and in tiles beside theirs."""
    theirs = results["theirs"]
    if isinstance(theirs, str):
        return ""
    mine = (results["ours"], results["tiled"])
    return ", ".join(result if isinstance(result, str) else f"{result[key] / theirs[key]:.2f}" for result in mine)


def table(results: dict[int, dict[str, Result]], options: argparse.Namespace) -> str:
    import diffusers

    rows = [
        ["input", "ours", f"ours, tiles of {options.tile}", "diffusers", "time beside theirs", "memory beside theirs"],
        ["---"] * 6,
        *(
            [f"{size}x{size}", *map(cell, found.values()), ratio("seconds", found), ratio("mebibytes", found)]
            for size, found in results.items()
        ),
    ]
    lines = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    threads = os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())
    return (
        f"# x4 upscaler: time and memory beside diffusers\n\n{lines}\n\n"
        f"Random weights, width {options.width} (published: 256), {options.steps} DDIM steps with guidance, median of "
        f"{options.repeats}; seconds are the processor's where the device is one. The first column chooses its tiles "
        "from the free memory. Memory is what the call adds to the loaded model and a 64x64 picture. "
        f"Device {default_device().type}, {threads} threads, {platform.system()} {platform.machine()}, "
        f"torch {torch.__version__}, diffusers {diffusers.__version__}.\n"
    )


def build(folder: Path, width: int) -> None:
    sys.path.insert(0, str(ROOT))
    from tests.core.x4_small import write_folder

    write_folder(
        folder,
        unet={"block_out_channels": [width, 2 * width, 2 * width, 4 * width], "norm_num_groups": min(32, width // 2)},
        vae={"block_out_channels": [width // 2, width, 2 * width], "norm_num_groups": min(32, width // 4)},
    )


def main() -> None:
    if WORKER in sys.argv:
        name, folder, *numbers = sys.argv[sys.argv.index(WORKER) + 1 :]
        sys.stdout.write(json.dumps(work(name, Path(folder), *map(int, numbers))) + "\n")
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=16, help="channels of the UNet's first block, a multiple of 8")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256, 512], help="sides of the pictures")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tile", type=int, default=128, help="side of the tiles of our second run")
    parser.add_argument("--timeout", type=int, default=600, help="seconds after which a process is stopped")
    parser.add_argument("--output", type=Path, help="write the table here too")
    options = parser.parse_args()
    results: dict[int, dict[str, Result]] = {}
    with tempfile.TemporaryDirectory() as place:
        build(Path(place) / "model", options.width)
        for size in options.sizes:
            runs: dict[str, list[Result]] = {name: [] for name in RUNNERS}
            for _ in range(options.repeats):
                for name, found in runs.items():
                    found.append(measure(name, Path(place) / "model", size, options))
            results[size] = {name: middle(found) for name, found in runs.items()}
            sys.stderr.write(f"{size}: {results[size]}\n")
    text = table(results, options)
    sys.stdout.write(text)
    if options.output:
        options.output.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
