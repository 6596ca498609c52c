"""The command; see the package."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import benchmarks.quality
from benchmarks.quality import plots
from benchmarks.quality.document import FINDINGS, check_findings, document, typical_photograph
from benchmarks.quality.evidence import Evidence, Run
from benchmarks.quality.grid import QUICK, WHOLE, Grid, references, run_grid
from lib_latent_upscale.standalone.engine.engine import Engine
from lib_latent_upscale.standalone.engine.models import load_model
from lib_latent_upscale.standalone.files.images import written_whole

ROOT = Path(__file__).resolve().parents[2]


def collect(engine: Engine, grid: Grid, work: Path) -> Evidence:
    """Run what is not there yet and take all figures together."""
    runs = [
        Run.of(cell, engine.plan(grid.generation(cell)).run.tolist(), figures)
        for cell, figures in run_grid(engine, grid, work)
    ]
    return Evidence.collect(grid, references(engine, grid), runs)


def write(evidence: Evidence, engine: Engine, folder: Path, *, whole: bool) -> None:
    """The figures, the plots, and then the document, if what it says is so."""
    folder.mkdir(parents=True, exist_ok=True)
    evidence.save(folder / "evidence.json")
    middle = evidence.grid.middle
    plots.save(plots.tradeoff_plot(evidence), folder / "evidence-tradeoff.png")
    plots.save(plots.schedules_plot(evidence, middle), folder / "evidence-schedules.png")
    pictures = plots.sheet(evidence, engine, typical_photograph(evidence), (evidence.grid.strengths[0], middle))
    plots.save(pictures, folder / "evidence-pictures.png")
    findings = FINDINGS if whole else ()
    check_findings(evidence, findings)
    with written_whole(folder / "evidence.md") as part:
        part.write_text(document(evidence, findings), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality",
        description=benchmarks.quality.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="a small part of the grid, without findings")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "quality", help="finished cells")
    parser.add_argument("--output", type=Path, help="folder for the document (docs; with --quick WORK/quick)")
    options = parser.parse_args()
    folder = options.output or (options.work / "quick" if options.quick else ROOT / "docs")
    engine = Engine(load_model("demo", device="cpu"))
    try:
        evidence = collect(engine, QUICK if options.quick else WHOLE, options.work)
    except KeyboardInterrupt:
        sys.stderr.write("Stopped; the same command goes on from here.\n")
        return 130
    write(evidence, engine, folder, whole=not options.quick)
    sys.stdout.write(f"{folder / 'evidence.md'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
