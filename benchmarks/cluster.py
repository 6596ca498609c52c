"""Pictures over Ray: one worker beside two, each of one thread, on this machine.

    python -m benchmarks.cluster --pictures 8 --size 128

Seconds of the clock from the first worker's first picture to the last one, so that starting Ray and loading the model
are not in them; both in turns, fastest of `--repeats`. Two workers need two free cores.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image


def seconds(folder: Path, results: Path, workers: int, steps: int) -> float:
    """From the first result to the last."""
    options = ["--steps", str(steps), "--ray", "--ray-workers", str(workers), "--quiet"]
    command = [sys.executable, "-m", "lib_latent_upscale", "upscale", str(folder), "-o", str(results), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
        times = [time.perf_counter() for _ in process.stdout]
    if process.returncode:
        raise RuntimeError(f"{command} ended with {process.returncode}")
    return times[-1] - times[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (("pictures", 9), ("size", 128), ("steps", 4), ("repeats", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    found: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "pictures")
        folder.mkdir()
        for index in range(options.pictures):
            Image.effect_noise((options.size, options.size), 60).convert("RGB").save(folder / f"{index}.png")
        for turn in range(options.repeats):
            for workers, times in found.items():
                times.append(seconds(folder, Path(place, f"{workers}-{turn}"), workers, options.steps))
    one, two = min(found[1]), min(found[2])
    print(f"{options.pictures - 1} pictures: one worker {one:.1f} s, two {two:.1f} s, {one / two:.2f} times as fast")


if __name__ == "__main__":
    main()
