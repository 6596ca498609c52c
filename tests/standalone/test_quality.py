"""The evidence: what is run, how the figures become tables, and that the document says what they say."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from PIL import Image

from benchmarks.quality import grid as grid_module
from benchmarks.quality.document import (
    FINDINGS,
    Claim,
    bearable,
    cell,
    check_findings,
    document,
    methods_table,
    strengths_table,
    table,
)
from benchmarks.quality.evidence import Evidence, Mean, Row
from benchmarks.quality.grid import CODED, FIGURES, PLAIN, Grid, figures_of, pictures_of, run_grid
from benchmarks.quality.pictures import KINDS, Picture
from lib_latent_upscale.comparison.metrics import plain_resize
from lib_latent_upscale.interpolation import INTERPOLATIONS
from lib_latent_upscale.methods import METHODS
from lib_latent_upscale.schedules import SCHEDULES
from lib_latent_upscale.standalone.commands.cli import main

DOCS = Path(__file__).parents[2] / "docs"
WHOLE = Grid()
SMALL = Grid(
    methods=("nearest-exact", "bicubic", "learned"),
    factors=(2, 4),
    strengths=(0.2, 0.5),
    schedules=("simple", "karras"),
    size=64,
    steps=2,
    count=2,
)


def made_up(value, grid=SMALL):
    """Evidence in which every figure of a result is `value(kind, picture, cell, method)`."""
    rows = []
    for kind in KINDS:
        for picture in ("one", "two"):
            cells = [(each.name, method) for each in grid.cells() for method in each.methods]
            cells += [(f"{factor:g}x", name) for factor in grid.factors for name in (PLAIN, CODED)]
            rows += [
                Row(kind, picture, name, method, [value(kind, picture, name, method)] * len(FIGURES))
                for name, method in cells
            ]
    return Evidence(grid, tuple(rows), {each.name: 1.0 for each in grid.cells()}, "0" * 64, {})


# What is run


def test_every_method_is_run_but_the_twins_of_nearest_exact():
    at_whole_factors = {"nearest", "area"}  # the same as nearest-exact there
    assert set(WHOLE.methods) <= {*INTERPOLATIONS, *METHODS}
    assert {"nearest-exact", "bilinear", "bicubic", "lanczos", "bislerp", *METHODS} - {"automatic"} <= set(
        WHOLE.methods
    )
    assert not at_whole_factors & set(WHOLE.methods)


def test_every_schedule_is_run_from_every_starting_noise():
    ran = {(each.upscale.scheduler, each.upscale.starting_noise) for each in WHOLE.cells()}
    assert {(schedule, start) for schedule in WHOLE.schedules for start in ("schedule", "continuous", "matched")} <= ran
    assert set(SCHEDULES) - set(WHOLE.schedules) == {"polyexponential"}


def test_no_two_cells_share_a_name():
    names = [each.name for each in WHOLE.cells()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("factor", WHOLE.factors)
def test_every_factor_leaves_whole_latent_cells(factor):
    picture = Picture("drawings", "grey", Image.new("RGB", (WHOLE.size, WHOLE.size), "grey"))
    assert picture.shrunk(factor).width * factor == WHOLE.size
    assert picture.shrunk(factor).width % 8 == 0


def noise(name, size=64):
    rng = np.random.default_rng(len(name))
    return Picture("drawings", name, Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)))


def test_a_stopped_run_goes_on_where_it_was(demo_engine, tmp_path, monkeypatch):
    few = replace(SMALL, strengths=(0.5,), schedules=("simple",), factors=(2, 4))
    first = list(run_grid(demo_engine, few, [noise("a")], tmp_path))
    files = sorted(tmp_path.rglob("*.json"))
    assert len(files) == len(list(few.cells()))
    files[0].unlink()
    made = []
    monkeypatch.setattr(grid_module, "pictures_of", lambda *given: made.append(given) or pictures_of(*given))
    assert list(run_grid(demo_engine, few, [noise("a")], tmp_path)) == first
    assert len(made) == 1


def test_the_batch_gives_the_pictures_that_the_command_gives(demo_engine, tmp_path):
    """With the command's own guidance scale, which changes nothing where there is no prompt."""
    source = noise("coffee", 64).image
    source.save(tmp_path / "small.png")
    methods = ("nearest-exact", "bicubic", "learned")
    one = next(each for each in WHOLE.cells() if each.upscale.scheduler == "karras")
    generation = replace(WHOLE, size=128).generation(one)
    for method, picture in pictures_of(demo_engine, source, generation, methods).items():
        output = tmp_path / f"{method}.png"
        options = {
            "--method": method,
            "--scheduler": "karras",
            "--starting-noise": one.upscale.starting_noise,
            "--steps": WHOLE.steps,
            "--denoise": one.strength,
        }
        given = [str(part) for option in options.items() for part in option]
        assert main(["upscale", str(tmp_path / "small.png"), "-o", str(output), "--seed", "1", "--quiet", *given]) == 0
        with Image.open(output) as written:
            difference = np.abs(np.asarray(written, int) - np.asarray(picture, int))
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.001


def test_gradient_energy_is_a_share_of_the_originals():
    original = noise("a").image
    source = original.resize((32, 32))
    energy = list(FIGURES).index("energy")
    assert figures_of(original, source, original)[energy] == 1
    assert figures_of(plain_resize(source, (64, 64)), source, original)[energy] < 0.5


# What becomes of the figures


def test_the_margin_is_that_of_a_paired_t_interval():
    values = np.array([0.3, 0.1, 0.5, -0.2, 0.4])
    interval = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    mean = Mean.of(values)
    assert (mean.value - mean.margin, mean.value + mean.margin) == pytest.approx(tuple(interval))
    assert not mean.clear
    assert Mean.of(values + 1).clear
    assert not Mean.of(np.array([5.0])).clear


def test_gains_are_taken_on_the_same_picture():
    """Pictures differ by far more than methods do; a paired difference does not see that."""
    evidence = made_up(lambda _, picture, __, method: 50.0 * (picture == "one") + (method == "bicubic"))
    at = cell(2, 0.2)
    gain = evidence.gain("drawings", (at, "bicubic"), (at, "nearest-exact"), "psnr")
    assert (gain.value, gain.margin, gain.clear) == (1, 0, True)


def test_the_highest_psnr_of_a_strength_is_bold():
    evidence = made_up(lambda _, __, name, method: 30.0 if (name, method) == (cell(2, 0.5), "learned") else 20.0)
    row = next(line for line in methods_table(evidence, "drawings", 2).splitlines() if line.startswith("| learned |"))
    assert row == "| learned | **20.0**, 20.00 | **30.0**, 30.00 |"


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([0.10, 0.12, 0.20], 0.15),  # half way to the second
        ([0.10, 0.105, 0.145], 0.225),
        ([0.10, 0.09, 0.11], 0.3),  # after the lowest
        ([0.10, 0.10, 0.105], 0.4),  # nothing is lost
        ([0.30, 0.20, 0.10], 0.4),
    ],
    ids=str,
)
def test_a_method_bears_strength_until_a_hundredth_of_gmsd_is_lost(values, wanted):
    assert bearable((0.1, 0.2, 0.4), values) == pytest.approx(wanted)


def test_the_table_of_strengths_has_each_method_at_each_factor():
    lost = {(2, "learned"): 1.0, (4, "bicubic"): 0.01}  # what strength 0.5 costs
    costs = {(cell(factor, 0.5), method): cost for (factor, method), cost in lost.items()}
    evidence = made_up(lambda _, __, name, method: costs.get((name, method), 0.0))
    assert strengths_table(evidence).splitlines()[2:] == [
        "| nearest-exact | 0.50 | 0.50 |",
        "| bicubic | 0.50 | 0.50 |",
        "| learned | 0.20 | 0.50 |",
    ]


def test_the_file_keeps_everything(tmp_path):
    evidence = made_up(lambda *key: float(len(str(key))))
    evidence.save(tmp_path / "evidence.json")
    assert Evidence.load(tmp_path / "evidence.json") == evidence


def test_a_table_has_a_line_a_row():
    assert table(["", "a"], [["x", "1"]]) == "|  | a |\n| --- | ---: |\n| x | 1 |"
    with pytest.raises(ValueError, match="1 cells under a head of 2"):
        table(["", "a"], [["x"]])


def test_a_finding_that_is_not_so_stops_the_document():
    evidence = made_up(lambda *_: 1.0)
    true, false = (lambda _: Claim("so", True)), (lambda _: Claim("not so", False))
    check_findings(evidence, [true])
    with pytest.raises(ValueError, match=r"anew:\nnot so$"):
        check_findings(evidence, [true, false])


# What is published


@pytest.fixture(scope="module")
def published():
    return Evidence.load(DOCS / "evidence.json")


def test_the_document_says_what_the_figures_say(published):
    check_findings(published, FINDINGS)
    assert (DOCS / "evidence.md").read_text(encoding="utf-8") == document(published, FINDINGS)


def test_the_figures_are_those_of_the_whole_grid(published):
    assert published.grid == WHOLE
    per_picture = sum(len(each.methods) for each in WHOLE.cells()) + 2 * len(WHOLE.factors)
    assert len(published.rows) == per_picture * WHOLE.count * len(KINDS)


def test_the_figures_are_those_of_the_weights_in_the_package(published):
    assert published.weights == grid_module.identity()


def test_its_pictures_are_there():
    text = (DOCS / "evidence.md").read_text(encoding="utf-8")
    pictures = {path.name for path in DOCS.glob("evidence-*.png")}
    assert pictures
    assert all(f"({name})" in text for name in pictures)
