"""The table and the plot say what runs."""

import numpy as np
import pytest

from lib_latent_upscale.noise_tables import sd1_sigmas
from lib_latent_upscale.schedules import SCHEDULES
from lib_latent_upscale.standalone.commands import schedules as schedule_view
from lib_latent_upscale.standalone.commands.cli import main
from lib_latent_upscale.standalone.commands.schedules import plan_rows, plot_rows


def test_the_noise_table_is_sd1s():
    """0.0292 and 14.6146: k-diffusion's and the WebUI's sigma_min and sigma_max for SD 1.x."""
    table = sd1_sigmas()
    assert len(table) == 1000
    assert table[0].item() == pytest.approx(0.0292, abs=5e-5)
    assert table[-1].item() == pytest.approx(14.6146, abs=5e-5)


def test_the_table_names_steps_and_first_sigma_of_every_schedule(capsys):
    """30 steps at 0.4: the default cut runs int(0.4 * 30) + 1 = 13 of them, the fixed one 30 of int(30 / 0.4) = 75."""
    assert main(["schedules", "--steps", "30", "--denoise", "0.4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if line.split()[:1] and line.split()[0] in SCHEDULES]
    assert [row[0] for row in rows] == list(SCHEDULES)
    for row in rows:
        assert row[1:4] == ["13", "of", "30"]
        assert row[6:9] == ["30", "of", "75"]


def test_one_schedule_is_shown_in_full(capsys):
    """The facts of the schedules: simple at 20 steps and 0.5 starts at 1.61, the last 20 of 40."""
    assert main(["schedules", "--scheduler", "simple", "--matched-noise"]) == 0
    shown = capsys.readouterr().out
    exact = next(line for line in shown.splitlines() if line.startswith("simple, exact steps:"))
    idle, runs = exact.split(": ")[1].split("[")
    assert len(idle.split()) == 20
    assert len(runs.split()) == 21
    assert runs.split()[0] == "1.61"
    assert "matched noise" in shown


def test_denoising_strength_zero_says_that_nothing_runs(capsys):
    assert main(["schedules", "--denoise", "0", "--matched-noise", "--scheduler", "karras"]) == 0
    assert "0 of 20" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_plot_is_written_the_same_each_time(tmp_path, suffix):
    for name in ("a", "b"):
        assert main(["schedules", "--scheduler", "simple", "-o", str(tmp_path / f"{name}.{suffix}")]) == 0
    first, second = ((tmp_path / f"{name}.{suffix}").read_bytes() for name in ("a", "b"))
    assert first == second
    assert len(first) > 1000


def test_the_plot_marks_each_step_at_its_sigma():
    rows = plan_rows(["simple", "karras"], 10, 0.5, matched=True)
    axes = plot_rows(rows, "").axes[0]
    drawn = [np.array([segment[0][0] for segment in marks.get_segments()]) for marks in axes.collections]
    plans = [plan for row in rows for plan in row.plans.values()]
    for plan, idle, runs in zip(plans, drawn[::2], drawn[1::2], strict=True):
        np.testing.assert_allclose(runs, plan.run[:-1], rtol=1e-6)
        assert len(idle) == plan.start
    assert {text.get_text() for text in axes.texts} >= {"6 of 10", "10 of 20", "10 of 10"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "steps is 0"),
        (["--denoise", "nan"], "denoising strength"),
        (["--scheduler", "linear"], "choose one of: simple"),
        (["-o", "plot.jpg"], ".png or .svg"),
    ],
)
def test_bad_input_is_one_sentence(capsys, monkeypatch, arguments, message):
    monkeypatch.setattr(schedule_view, "plot_rows", None)
    assert main(["schedules", *arguments]) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.err.count("\n") == 1
    assert shown.out == ""
