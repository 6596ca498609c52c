"""The command; see the package."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

import benchmarks.quality
from benchmarks.quality import plots
from benchmarks.quality.document import FINDINGS, check_findings, document
from benchmarks.quality.evidence import Evidence
from benchmarks.quality.grid import Grid, run_grid
from benchmarks.quality.pictures import pictures
from lib_latent_upscale.standalone.engine.engine import Engine
from lib_latent_upscale.standalone.engine.models import load_model
from lib_latent_upscale.writing import write_whole

ROOT = Path(__file__).resolve().parents[2]
QUICK = Grid(factors=(1.5, 2), strengths=(0.2, 0.5), schedules=("simple", "karras"), middle=0.2, count=2)
LOOK = 0.2
"""The denoising strength of the pictures that are shown."""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality",
        description=benchmarks.quality.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--drawings", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="a small part of the grid, without findings")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "quality", help="finished cells")
    parser.add_argument("--output", type=Path, help="folder for the document (docs; with --quick WORK/quick)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = options.output or (options.work / "quick" if options.quick else ROOT / "docs")
    folder.mkdir(parents=True, exist_ok=True)
    engine, grid = Engine(load_model("demo", device="cpu")), QUICK if options.quick else Grid()
    originals = list(pictures(options.drawings, grid.count, grid.size))
    sigmas = {cell.name: round(float(engine.plan(grid.generation(cell)).run[0]), 4) for cell in grid.cells()}
    try:
        evidence = Evidence.collect(grid, run_grid(engine, grid, originals, options.work), sigmas)
    except KeyboardInterrupt:
        sys.stderr.write("Stopped; the same command goes on from here.\n")
        return 130
    evidence.save(folder / "evidence.json")
    plots.save(plots.tradeoff(evidence), folder / "evidence-tradeoff.png")
    plots.save(plots.sheet(grid, engine, originals, LOOK), folder / "evidence-pictures.png")
    findings = () if options.quick else FINDINGS
    check_findings(evidence, findings)
    written = write_whole(folder / "evidence.md", document(evidence, findings).encode(), overwrite=True)
    sys.stdout.write(f"{written}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
