"""The evidence: what is run, how the figures become tables, and that the document says what they say."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from PIL import Image

from benchmarks.quality import grid as grid_module
from benchmarks.quality.document import FINDINGS, Claim, check_findings, document, table
from benchmarks.quality.evidence import MEASURES, Evidence, Mean, Run, Variant, ranks
from benchmarks.quality.grid import FIGURES, WHOLE, Grid, Reference, pictures_of, run_grid
from benchmarks.quality.photographs import PHOTOGRAPHS, original, shrunk
from lib_latent_upscale.interpolation import INTERPOLATIONS
from lib_latent_upscale.schedules import SCHEDULES
from lib_latent_upscale.standalone.commands.cli import main

DOCS = Path(__file__).parents[2] / "docs"
SMALL = Grid(
    photographs=("coffee", "camera"), strengths=(0.5,), schedules=("simple", "karras"), size=64, steps=2, seeds=(1, 2)
)
PSNR = MEASURES[0]


def made_up(value, grid=SMALL):
    """Evidence in which every figure of a run is `value(photograph, seed, schedule, method)`."""
    runs = [
        Run.of(
            cell,
            [1.0, 0.0],
            {
                method: [value(cell.photograph, cell.seed, cell.upscale.scheduler, method)] * len(FIGURES)
                for method in cell.methods
            },
        )
        for cell in grid.cells()
    ]
    references = {name: Reference(2.0, [1.0] * len(FIGURES), [1.0] * len(FIGURES)) for name in grid.photographs}
    return Evidence(grid, grid.twins, references, tuple(runs), "0" * 64, {})


# What is run


def test_every_method_and_schedule_is_run_or_has_a_twin_that_is():
    assert {*WHOLE.methods, *(name for names in WHOLE.twins.values() for name in names)} == set(INTERPOLATIONS)
    assert set(SCHEDULES) - set(WHOLE.schedules) == {"polyexponential"}
    assert WHOLE.twins["nearest-exact"] == ["nearest", "area"]


def pairs_run(**wanted):
    """Photograph, schedule and method of what is run with these properties."""
    return [
        (cell.photograph, cell.upscale.scheduler, method)
        for cell in WHOLE.cells()
        for method in cell.methods
        if all(getattr(cell, name) == value for name, value in wanted.items())
    ]


@pytest.mark.parametrize(
    ("strength", "kind"), [*((strength, "exact") for strength in WHOLE.strengths), (WHOLE.middle, "matched")]
)
def test_every_method_is_run_with_every_schedule_on_every_photograph(strength, kind):
    ran = pairs_run(seed=1, strength=strength, kind=kind)
    assert len(ran) == len(set(ran)) == len(PHOTOGRAPHS) * len(WHOLE.schedules) * len(WHOLE.methods)


def test_the_second_seed_runs_what_differs_from_the_default_in_one_thing():
    ran = pairs_run(strength=WHOLE.middle, seed=2, kind="exact")
    assert {schedule for _, schedule, method in ran if method == "nearest-exact"} == set(WHOLE.schedules)
    assert {method for _, schedule, method in ran if schedule == "simple"} == set(WHOLE.methods)
    assert len(ran) == len(set(ran)) == len(PHOTOGRAPHS) * (len(WHOLE.schedules) + len(WHOLE.methods) - 1)


def test_no_two_cells_share_a_file():
    files = [cell.file for cell in WHOLE.cells()]
    assert len(files) == len(set(files))


def test_a_stopped_run_goes_on_where_it_was(engine, tmp_path, monkeypatch):
    runs = run_grid(engine, SMALL, tmp_path)
    first = dict(runs)
    files = sorted(tmp_path.rglob("*.json"))
    assert len(files) == len(first) == len(list(SMALL.cells()))
    files[0].unlink()
    made = []
    monkeypatch.setattr(grid_module, "pictures_of", lambda *given: made.append(given) or pictures_of(*given))
    assert dict(run_grid(engine, SMALL, tmp_path)) == first
    assert len(made) == 1


def test_the_batch_gives_the_pictures_that_the_command_gives(demo_engine, tmp_path):
    """With the command's own guidance scale, which changes nothing where there is no prompt."""
    source = shrunk(original("coffee", 128))
    source.save(tmp_path / "small.png")
    methods = ("nearest-exact", "bicubic", "bislerp")
    cell = next(cell for cell in WHOLE.cells() if cell.upscale.scheduler == "karras")
    generation = replace(WHOLE, size=128).generation(cell)
    for method, picture in pictures_of(demo_engine, source, generation, methods).items():
        output = tmp_path / f"{method}.png"
        options = {"--method": method, "--scheduler": "karras", "--steps": WHOLE.steps, "--denoise": cell.strength}
        given = [str(part) for option in options.items() for part in option]
        assert main(["upscale", str(tmp_path / "small.png"), "-o", str(output), "--seed", "1", "--quiet", *given]) == 0
        with Image.open(output) as written:
            difference = np.abs(np.asarray(written, int) - np.asarray(picture, int))
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.001


@pytest.mark.parametrize("photograph", PHOTOGRAPHS, ids=lambda photograph: photograph.name)
def test_each_photograph_is_there_and_large_enough_not_to_be_enlarged_itself(photograph):
    import skimage.data

    whole = getattr(skimage.data, photograph.name)()
    assert min(whole.shape[:2]) >= WHOLE.size
    assert original(photograph.name, WHOLE.size).size == (WHOLE.size, WHOLE.size)


# What becomes of the figures


def test_ranks_go_from_the_best_and_equal_ones_share_theirs():
    figures = np.array([[30.0, 1.0], [20.0, 2.0], [30.0, 3.0]])
    assert ranks(figures, 1).tolist() == [[1.5, 3], [3, 2], [1.5, 1]]
    assert ranks(figures, -1).tolist() == [[2.5, 1], [1, 2], [2.5, 3]]


def test_the_margin_is_that_of_a_paired_t_interval():
    values = np.array([0.3, 0.1, 0.5, -0.2, 0.4])
    interval = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    mean = Mean.of(values)
    assert (mean.value - mean.margin, mean.value + mean.margin) == pytest.approx(tuple(interval))
    assert (mean.above, mean.count, mean.clear) == (4, 5, False)
    assert Mean.of(values + 1).clear
    assert not Mean.of(np.array([5.0])).clear


def test_seeds_are_averaged_before_photographs_are():
    evidence = made_up(lambda photograph, seed, schedule, method: {"coffee": 10.0, "camera": 20.0}[photograph] + seed)
    assert evidence.each(Variant(0.5), "psnr").tolist() == [11.5, 21.5]
    assert evidence.each(Variant(0.5, "karras", "lanczos"), "psnr").tolist() == [11.0, 21.0]  # has one seed only
    assert evidence.seed_spread("psnr") == pytest.approx((0.5**0.5, 50**0.5), rel=0.3)


def test_gains_are_taken_on_the_same_photograph():
    """Photographs differ by far more than variants do; a paired difference does not see that."""
    evidence = made_up(lambda photograph, _, __, method: 50.0 * (photograph == "coffee") + (method == "bicubic"))
    gain = evidence.gain(Variant(0.5, method="bicubic"), Variant(0.5), "psnr")
    assert (gain.value, gain.margin, gain.clear) == (1, 0, True)


def test_place_and_best_follow_the_means():
    worth = {"nearest-exact": 2.0, "lanczos": 3.0}
    evidence = made_up(lambda photograph, seed, schedule, method: worth.get(method, 0) + (schedule == "karras") / 4)
    assert evidence.best(0.5, PSNR).name == "lanczos + karras"
    assert evidence.place(Variant(0.5), PSNR) == 4
    assert evidence.rank(Variant(0.5), PSNR) == (4, 0)
    assert evidence.best(0.5, replace(PSNR, best=-1)).schedule == "simple"


def test_sharpness_is_shown_as_a_share_of_the_originals():
    evidence = made_up(lambda *_: 1.5)
    assert evidence.mean(Variant(0.5), "detail").value == 1.5 / 2


def test_the_file_keeps_everything(tmp_path):
    evidence = made_up(lambda *key: len(str(key)))
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
    assert {len(run.figures) for run in published.runs} >= {1, len(WHOLE.methods)}
    assert len(published.runs) == len(list(WHOLE.cells()))


def test_its_pictures_are_there():
    text = (DOCS / "evidence.md").read_text(encoding="utf-8")
    pictures = {path.name for path in DOCS.glob("evidence-*.png")}
    assert pictures
    assert all(f"({name})" in text for name in pictures)
