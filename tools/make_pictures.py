"""Make the README's pictures with the project's own commands; assets/learned.png: benchmarks.learned.picture.

python tools/make_pictures.py
"""

from __future__ import annotations

import sys
from pathlib import Path

from lib_latent_upscale.standalone.commands.cli import main

ASSETS = Path(__file__).parents[1] / "assets"
PHOTOGRAPH = str(ASSETS / "photograph.png")
COMMANDS = {
    "tile-controlnet.png": ["compare", PHOTOGRAPH, "--denoise", "0.8", "--tile-controlnet", "demo"],
    "schedules.png": ["schedules", "--scheduler", "simple", "--scheduler", "karras"],
}


def make_pictures() -> int:
    """Run each command; the page and the figures of a comparison are not kept."""
    for name, command in COMMANDS.items():
        if code := main([*command, "-o", str(ASSETS / name), "--overwrite"]):
            return code
        for suffix in (".json", ".html"):
            (ASSETS / name).with_suffix(suffix).unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(make_pictures())
