"""Make the README's pictures with the project's own commands.

python tools/make_pictures.py
"""

from __future__ import annotations

import sys
from pathlib import Path

from lib_latent_upscale.standalone.cli import main

ASSETS = Path(__file__).parents[1] / "assets"


def make_pictures() -> int:
    """Run each command; the page and the figures of the comparison are not kept."""
    sheet = ASSETS / "comparison.png"
    code = main(["compare", str(ASSETS / "original.png"), "-o", str(sheet)])
    for suffix in (".json", ".html"):
        sheet.with_suffix(suffix).unlink(missing_ok=True)
    plot = ["--steps", "20", "--denoise", "0.5", "--scheduler", "simple", "--scheduler", "karras"]
    return code or main(["schedules", *plot, "-o", str(ASSETS / "schedules.png")])


if __name__ == "__main__":
    sys.exit(make_pictures())
