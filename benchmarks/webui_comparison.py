"""Time of one comparison in a running WebUI beside the same variants made by separate calls.

    python -m benchmarks.webui_comparison http://127.0.0.1:7860 --size 512 --steps 10 --repeats 3

Both run in turn, after one of each that does not count; the fastest counts. A comparison also measures its pictures and
draws a sheet; the calls do neither.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import time
import urllib.request
from typing import Any

import numpy as np
from PIL import Image

METHODS, SCHEDULERS = ["bicubic", "bislerp"], ["simple", "karras"]
ALONE = [
    {"method": "bilinear", "scheduler": "automatic", "exact_steps": False},
    {},
    *({"method": method, "scheduler": scheduler} for method in METHODS for scheduler in SCHEDULERS),
]


def picture(size: int) -> str:
    colours = np.random.default_rng(0).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(colours).resize((size, size), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def seconds(url: str, body: dict[str, Any], variants: list[dict[str, Any]]) -> float:
    start = time.perf_counter()
    for variant in variants:
        data = json.dumps({**body, "script_args": [variant]}).encode()
        request = urllib.request.Request(f"{url}/sdapi/v1/img2img", data, {"Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=3600).read()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    body = {
        "init_images": [picture(arguments.size // 2)],
        "prompt": "a photograph",
        "script_name": "Latent Upscale",
        "sampler_name": "Euler",
        "steps": arguments.steps,
        "seed": 1,
        "width": arguments.size,
        "height": arguments.size,
        "denoising_strength": 0.5,
    }
    together = [{"compare": True, "compare_methods": METHODS, "compare_schedulers": SCHEDULERS}]
    times = [
        (seconds(arguments.url, body, together), seconds(arguments.url, body, ALONE))
        for _ in range(arguments.repeats + 1)
    ][1:]
    compared, alone = (min(column) for column in zip(*times, strict=True))
    print(f"{len(ALONE)} variants at {arguments.size} x {arguments.size}, {arguments.steps} steps:")
    print(f"one comparison {compared:.2f} s, separate calls {alone:.2f} s, ratio {compared / alone:.3f}")


if __name__ == "__main__":
    main()
