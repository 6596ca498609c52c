"""Time and memory of `latent-upscale upscale` beside diffusers' StableDiffusionImg2ImgPipeline, with the same weights.

    python -m benchmarks.standalone --sizes 512 1024 2048 --output benchmarks/standalone.md
    python -m benchmarks.standalone --model random-sd1 --steps 1 --repeats 1 --only ours --sizes 2048

Each picture of half the size is enlarged to the size in processes of their own, ours and theirs in turn, `--repeats`
times; the fastest run counts. Both run exactly `--steps` steps of Euler a with guidance at denoising strength 0.5;
diffusers gets the picture already enlarged, as its users do it. Seconds are those of the call on a loaded model, after
a first small call: the clock's on an accelerator, and otherwise the processor's own, which other programs do not
disturb. Memory is the most that the whole process held, with Python, torch and the model; on an accelerator, what torch
allocated there. `random-sd1` is a model of SD 1.x's true size (1 G values) with random weights.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from lib_latent_upscale.memory import default_device
from lib_latent_upscale.settings import UpscaleSettings
from lib_latent_upscale.standalone.engine.generation import GenerationSettings
from lib_latent_upscale.standalone.engine.models import DEMO, DEMO_FILE, load_model

ROOT = Path(__file__).resolve().parents[1]
DEVICE = default_device().type
MIB = 2**20
STRENGTH = 0.5
METHOD = "nearest-exact"
PROMPT = "a photograph"
WORKER = "--worker"
RANDOM_SD1 = "random-sd1"

Call = Callable[[Image.Image, int], Image.Image]
Figures = dict[str, float]


def ours(model: str, steps: int) -> Call:
    from lib_latent_upscale.standalone.engine.engine import Engine

    engine = Engine(load_model(model))

    def call(picture: Image.Image, size: int) -> Image.Image:
        generation = GenerationSettings(
            size,
            size,
            prompt=PROMPT,
            steps=steps,
            sampler="Euler a",
            denoising_strength=STRENGTH,
            upscale=UpscaleSettings(METHOD),
        )
        return engine.upscale([picture], generation).pictures[0]

    return call


def theirs(model: str, steps: int) -> Call:
    from diffusers import EulerAncestralDiscreteScheduler, StableDiffusionImg2ImgPipeline

    kind = {"torch_dtype": torch.float32 if DEVICE == "cpu" else torch.float16, "safety_checker": None}
    if model == DEMO:
        pipeline = StableDiffusionImg2ImgPipeline.from_single_file(
            str(DEMO_FILE), config=str(DEMO_FILE.parent / "diffusers"), local_files_only=True, **kind
        )
    else:
        pipeline = StableDiffusionImg2ImgPipeline.from_pretrained(model, **kind)
    pipeline.scheduler = EulerAncestralDiscreteScheduler.from_config(pipeline.scheduler.config)
    pipeline.to(DEVICE).set_progress_bar_config(disable=True)

    def call(picture: Image.Image, size: int) -> Image.Image:
        large = picture.resize((size, size), Image.Resampling.LANCZOS)
        # The pipeline runs int(steps * strength) of the steps that it is given.
        options = {"num_inference_steps": round(steps / STRENGTH), "strength": STRENGTH, "guidance_scale": 7.0}
        generator = torch.Generator().manual_seed(0)
        result: Image.Image = pipeline(PROMPT, large, generator=generator, **options).images[0]
        return result

    return call


RUNNERS = {"ours": ours, "theirs": theirs}


def peak_memory() -> int:
    """Bytes: the most that torch held on the accelerator, or that this process held."""
    if DEVICE != "cpu":
        return int(getattr(torch, DEVICE).max_memory_allocated())
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would also count what the process was before it became this program
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import psutil

    memory = psutil.Process().memory_info()
    return int(getattr(memory, "peak_wset", memory.rss))


def work(name: str, model: str, size: int, steps: int) -> Figures:
    """Measure one call, after a small one that imports what is imported late."""
    call = RUNNERS[name](model, steps)
    call(Image.new("RGB", (64, 64), "teal"), 128)
    picture = Image.effect_noise((size // 2, size // 2), 60).convert("RGB")
    clock = time.process_time if DEVICE == "cpu" else time.perf_counter
    started = clock()
    result = call(picture, size)
    seconds = clock() - started
    if result.size != (size, size):
        raise RuntimeError(f"{name} made {result.size} of {size}")
    return {"seconds": seconds, "mebibytes": peak_memory() / MIB}


def measure(name: str, model: str, size: int, options: argparse.Namespace) -> Figures | str:
    """The figures of one process, or why there are none."""
    command = [sys.executable, "-m", "benchmarks.standalone", WORKER, name, model, str(size), str(options.steps)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=options.timeout, check=False)
    except subprocess.TimeoutExpired:
        return f"stopped after {options.timeout} s"
    if done.returncode == 0:
        figures: Figures = json.loads(done.stdout.splitlines()[-1])
        return figures
    last = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
    return "out of memory" if done.returncode < 0 or "memory" in last else last[:80]


def best(runs: list[Figures | str]) -> Figures | str:
    figures = [run for run in runs if not isinstance(run, str)]
    return {key: min(run[key] for run in figures) for key in figures[0]} if figures else runs[0]


def row(size: int, found: dict[str, Figures | str]) -> list[str]:
    cells = [f"{size}x{size}"]
    for result in found.values():
        cells += [result, ""] if isinstance(result, str) else [f"{result['seconds']:.1f}", f"{result['mebibytes']:.0f}"]
    both = [result for result in found.values() if not isinstance(result, str)]
    if len(both) == 2:
        cells += [f"{both[0][key] / both[1][key]:.2f}" for key in ("seconds", "mebibytes")]
    return cells


def growth(results: dict[int, dict[str, Figures | str]]) -> str:
    """How much memory each of our sizes needs beside the next one: a smaller picture should not need more."""
    ours = [(size, found["ours"]) for size, found in results.items() if not isinstance(found.get("ours", ""), str)]
    ratios = [
        f"{size}x{size} {small['mebibytes'] / large['mebibytes']:.2f} of {larger}x{larger}"
        for (size, small), (larger, large) in pairwise(ours)
    ]
    return f"Our memory: {', '.join(ratios)}.\n" if ratios else ""


def table(results: dict[int, dict[str, Figures | str]], options: argparse.Namespace) -> str:
    import diffusers

    names = {"ours": "ours", "theirs": "diffusers"}
    heads = ["output", *(f"{names[name]}, {unit}" for name in options.only for unit in ("s", "MiB"))]
    if len(options.only) == 2:
        heads += ["time ours/theirs", "memory ours/theirs"]
    rows = [heads, ["---"] * len(heads), *(row(size, found) for size, found in results.items())]
    lines = "\n".join("| " + " | ".join(cells) + " |" for cells in rows)
    threads = os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())
    return (
        f"# `upscale`: time and memory beside diffusers\n\n{lines}\n\n"
        f"Model {Path(options.model).name}, {options.steps} steps of Euler a with guidance, fastest of "
        f"{options.repeats}; seconds are the processor's where the device is one. Memory is the whole process's peak. "
        f"Device {DEVICE}, {threads} threads, {platform.system()} {platform.machine()}, "
        f"torch {torch.__version__}, diffusers {diffusers.__version__}.\n{growth(results)}"
    )


def build_random_sd1(folder: Path) -> None:
    """SD 1.x's published architecture with random weights in half precision: 2 GB."""
    import diffusers
    import transformers

    from tests.standalone.tiny_model import make_scheduler, make_tokenizer

    channels = (128, 256, 512, 512)
    vae = diffusers.AutoencoderKL(
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
    )
    unet = diffusers.UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8, sample_size=64)
    tokenizer = make_tokenizer(folder / "bytes")
    text = transformers.CLIPTextConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        vocab_size=len(tokenizer),
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    parts: dict[str, Any] = {"vae": vae, "unet": unet, "text_encoder": transformers.CLIPTextModel(text)}
    diffusers.StableDiffusionImg2ImgPipeline(
        **{name: part.half() for name, part in parts.items()},
        tokenizer=tokenizer,
        scheduler=make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)


def main() -> None:
    if WORKER in sys.argv:
        name, model, size, steps = sys.argv[sys.argv.index(WORKER) + 1 :]
        sys.stdout.write(json.dumps(work(name, model, int(size), int(steps))) + "\n")
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEMO, help=f"demo, a diffusers folder, or {RANDOM_SD1}")
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024, 2048], help="sides of the results")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=list(RUNNERS), default=list(RUNNERS))
    parser.add_argument("--timeout", type=int, default=3600, help="seconds after which a process is stopped")
    parser.add_argument("--output", type=Path, help="write the table here too")
    options = parser.parse_args()
    results: dict[int, dict[str, Figures | str]] = {}
    with tempfile.TemporaryDirectory() as place:
        model = options.model
        if model == RANDOM_SD1:
            model = str(Path(place) / "model")
            build_random_sd1(Path(model))
        for size in options.sizes:
            runs: dict[str, list[Figures | str]] = {name: [] for name in options.only}
            for _ in range(options.repeats):
                for name, found in runs.items():
                    found.append(measure(name, model, size, options))
            results[size] = {name: best(found) for name, found in runs.items()}
            sys.stderr.write(f"{size}: {results[size]}\n")
    text = table(results, options)
    sys.stdout.write(text)
    if options.output:
        options.output.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
