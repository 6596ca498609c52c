"""Write the averaged weights of the checkpoints as float16 safetensors into the package.

python -m tools.learned.export --work DIR
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file

from lib_latent_upscale.learned.families import LATENTS
from lib_latent_upscale.learned.upscalers import WEIGHTS


def main() -> None:
    """Export every network that has a checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=WEIGHTS)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    for kind in ("restore", "enlarge"):
        for family in LATENTS:
            path = options.work / f"{kind}-{family}.pt"
            if not path.exists():
                continue
            average = torch.load(path, weights_only=True)["average"]
            values = {
                name: value.half().contiguous(memory_format=torch.contiguous_format) for name, value in average.items()
            }
            exported = options.output / f"{kind}-{family}.safetensors"
            save_file(values, exported)
            exported.chmod(0o644)


if __name__ == "__main__":
    main()
