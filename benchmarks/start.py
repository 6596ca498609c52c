"""How long the command takes to answer: `--help`, and `upscale` with the demo model until its first step is done.

    python -m benchmarks.start

Seconds of the clock and of the processor, fastest of `--repeats`; on a busy machine only the latter say anything. Which
imports they are: python -X importtime -m lib_latent_upscale upscale ...
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from PIL import Image

COMMAND = [sys.executable, "-m", "lib_latent_upscale"]
STEPS = 1000
"""So many that the first one is seen on its own."""


def answered(arguments: list[str], seen: bytes) -> tuple[float, float]:
    """Seconds of the clock and of the processor until `seen` stands in what the command writes, or it ends."""
    begun, shown, used = time.perf_counter(), b"", 0.0
    process = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    watched = psutil.Process(process.pid)
    while seen not in shown and (part := os.read(process.stdout.fileno(), 65536)):
        shown += part
        times = watched.cpu_times()
        used = times.user + times.system
    elapsed = time.perf_counter() - begun
    process.send_signal(signal.SIGTERM)
    process.communicate()
    if seen not in shown:
        raise RuntimeError(f"{arguments} ended without {seen!r}: {shown[-500:]!r}")
    return elapsed, used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder, "picture.png")
        Image.effect_noise((64, 64), 60).convert("RGB").save(picture)
        upscale = ["upscale", str(picture), "-o", str(Path(folder, "large.png")), "--steps", str(STEPS)]
        for name, arguments, seen in (
            ("--help", ["--help"], b"COMMAND"),
            ("upscale, first step", upscale, f"1/{STEPS}".encode()),
        ):
            runs = [answered(arguments, seen) for _ in range(repeats)]
            clock, processor = (min(column) for column in zip(*runs, strict=True))
            print(f"{name:20} {clock:6.2f} s, of the processor {processor:6.2f} s")


if __name__ == "__main__":
    main()
