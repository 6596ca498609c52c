"""How long a generation with the script takes beside the host's own latent upscale, in a running WebUI.

    LATENT_UPSCALE_WEBUI_URL=http://127.0.0.1:7860 python benchmarks/webui.py [--rounds 15] [--steps 20] [--size 256]

Both run the same number of steps (the host through its option "img2img_fix_steps"), in turns, so that whatever else the
machine does meets both. The figure is the ratio of the medians; below it the same for the fastest runs.
"""

import argparse
import base64
import io
import json
import os
import statistics
import sys
import time
import urllib.request
from typing import Any

import numpy as np
from PIL import Image

OURS = {"script_name": "Latent Upscale", "script_args": [{"method": "bilinear", "scheduler": "automatic"}]}
HOSTS = {"override_settings": {"img2img_fix_steps": True}}


def call(url: str, path: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=3600) as answer:
        return json.load(answer)


def picture(size: int) -> str:
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--size", type=int, default=256, help="side of the result; the input's is half of it")
    arguments = parser.parse_args()
    url = os.environ.get("LATENT_UPSCALE_WEBUI_URL", "").rstrip("/")
    if not url:
        sys.exit("put the address of a running WebUI into LATENT_UPSCALE_WEBUI_URL")
    call(url, "/sdapi/v1/options", {"img2img_fix_steps": False})  # so that the host puts it back after each call
    body = {
        "init_images": [picture(arguments.size // 2)],
        "steps": arguments.steps,
        "width": arguments.size,
        "height": arguments.size,
        "denoising_strength": 0.5,
        "resize_mode": 3,
        "sampler_name": "Euler",
        "seed": 1,
    }
    seconds: dict[str, list[float]] = {"host": [], "script": []}
    made: dict[str, str] = {}
    for turn in range(arguments.rounds + 1):
        for name, changes in (("host", HOSTS), ("script", OURS)):
            started = time.perf_counter()
            made[name] = call(url, "/sdapi/v1/img2img", {**body, **changes})["images"][0]
            if turn:  # the first is for warming up
                seconds[name].append(time.perf_counter() - started)
    pixels = {name: np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) for name, text in made.items()}
    print(f"{arguments.size}x{arguments.size}, {arguments.steps} steps, {arguments.rounds} rounds each")
    print(f"same picture: {np.array_equal(pixels['host'], pixels['script'])}")
    for title, best in (("median", statistics.median), ("fastest", min)):
        host, script = best(seconds["host"]), best(seconds["script"])
        print(f"{title:8} host {host:.3f} s   script {script:.3f} s   ratio {script / host:.3f}")


if __name__ == "__main__":
    main()
