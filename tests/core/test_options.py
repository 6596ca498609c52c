"""Options: what each one knows about itself, and what is said about values that are not allowed."""

import json
import pickle
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_latent_upscale.catalogue import CATALOGUE, NAMES, POSITIONS
from lib_latent_upscale.comparison.settings import CompareSettings
from lib_latent_upscale.interpolation import INTERPOLATIONS
from lib_latent_upscale.options import Integer, Number, Settings, SettingsError, Table, option, rows
from lib_latent_upscale.samplers import X4_SAMPLERS
from lib_latent_upscale.schedules import SCHEDULES
from lib_latent_upscale.settings import UpscaleSettings
from lib_latent_upscale.tile_settings import TileSettings
from lib_latent_upscale.x4_settings import X4Settings

ROOT = Path(__file__).resolve().parents[2]
ROWS = [(kind, row) for kind in CATALOGUE for row in rows(kind).values()]
IDS = [kind.api_name(row.name) for kind, row in ROWS]
HALF = "a\ud800"
"""Half of a character: JSON may bring it, no file can hold it."""


@pytest.mark.parametrize(("kind", "row"), ROWS, ids=IDS)
class TestEveryOption:
    def test_its_default_is_allowed(self, kind, row):
        assert row.problem(row.default) == ""

    def test_its_default_comes_back_from_its_text(self, kind, row):
        assert row.allowed.read(row.allowed.write(row.default)) in (row.default, str(row.default), "")

    def test_its_tip_is_one_clause(self, kind, row):
        assert row.tip[0] == row.tip[0].lower() or row.tip.split()[0].isupper()
        assert not row.tip.endswith(".")

    def test_a_value_of_a_megabyte_is_not_repeated(self, kind, row):
        problem = row.problem("x" * 2**20)
        assert len(problem) < 800

    def test_half_of_a_character_is_refused(self, kind, row):
        value = [{"name": HALF}] if row.name == "compare_variants" else HALF
        problem = row.problem(value)
        assert problem
        problem.encode()  # what is said can be said everywhere


@pytest.mark.parametrize("row", [row for _, row in ROWS if row.slider], ids=lambda row: row.label)
def test_a_slider_offers_nothing_that_is_refused(row):
    highest, step = row.slider
    values = [round(row.allowed.least + index * step, 9) for index in range(int(highest / step) + 1)]
    values = [value for value in values if value <= highest]
    assert values[0] == row.allowed.least
    assert [value for value in values if row.problem(row.normalised(value))] == []


@pytest.mark.parametrize("what", ["label", "infotext"])
def test_no_two_options_are_called_the_same(what):
    called = [getattr(row, what) for _, row in ROWS]
    assert len(set(called)) == len(called)


def test_every_argument_has_one_name_and_one_position():
    assert len(set(NAMES)) == len(NAMES)
    assert set(NAMES) - set(POSITIONS) == {"compare_variants"}
    assert len(set(POSITIONS)) == len(POSITIONS)


class TestErrors:
    def test_they_call_fields_as_the_reader_does(self):
        with pytest.raises(SettingsError) as refused:
            TileSettings(weight=3)
        error = refused.value
        assert str(error) == "weight is 3; a number from 0 to 2 is needed"
        assert error.in_call == "tile_controlnet_weight is 3; a number from 0 to 2 is needed"
        assert error.on_page == "Tile weight is 3; a number from 0 to 2 is needed"

    def test_two_fields_that_do_not_go_together(self):
        with pytest.raises(SettingsError) as refused:
            TileSettings(start=0.9, end=0.1)
        assert refused.value.on_page == (
            "Tile start is 0.9 and Tile end is 0.1; Tile start must be smaller than Tile end"
        )

    def test_the_model_is_no_field_but_has_names(self):
        error = SettingsError(X4Settings, "{model} is {0}", "'none'")
        assert (error.in_call, error.on_page) == ("x4_model is 'none'", "x4 model is 'none'")

    @given(st.text(st.characters(exclude_categories=["Cs"])))
    def test_braces_in_a_value_mean_nothing(self, text):
        assert str(SettingsError(UpscaleSettings, "{method} is {0}", text)) == f"method is {text}"

    def test_they_cross_from_one_process_to_another(self):
        error = SettingsError(X4Settings, "{tile} is {0}", 7)
        assert pickle.loads(pickle.dumps(error)).in_call == "x4_tile is 7"

    def test_the_beginning_of_a_long_value_is_shown_and_its_length(self):
        with pytest.raises(
            ValueError, match=r"^method is 'xxx.*\.\.\. \(1000000 characters\); choose one of"
        ) as refused:
            UpscaleSettings(method="x" * 1_000_000)
        assert len(str(refused.value)) < 400

    def test_many_unknown_names_are_not_all_repeated(self):
        with pytest.raises(ValueError, match="known are: method") as refused:
            UpscaleSettings.from_dict({f"name {index}": 0 for index in range(10_000)})
        assert len(str(refused.value)) < 400


class TestControls:
    """Pages hand over 9 for 9.0, and those of some hosts 20.0 for 20."""

    def test_numbers_take_their_fields_type(self):
        made = X4Settings.from_api({"x4_guidance_scale": 9, "x4_steps": 12.0, "method": "area"}, X4Settings())
        assert made == X4Settings(steps=12)
        assert (type(made.guidance_scale), type(made.steps)) == (float, int)

    def test_what_is_refused_is_repeated_as_it_was_given(self):
        with pytest.raises(SettingsError, match=r"weight is 3; a number"):
            TileSettings.from_api({"tile_controlnet_weight": 3}, TileSettings())
        with pytest.raises(SettingsError, match=r"steps is 2\.5; an integer"):
            X4Settings.from_api({"x4_steps": 2.5}, X4Settings())

    def test_absent_ones_are_as_in_the_defaults(self):
        assert TileSettings.from_api({}, TileSettings(weight=0.3)).weight == 0.3


def test_a_comparison_comes_back_from_its_infotext():
    asked = CompareSettings(True, ["area", "bislerp"], ["karras"], True, [{"method": "area", "steps": 9}])
    assert CompareSettings.from_infotext(asked.to_infotext()) == asked
    assert json.loads(asked.to_infotext()["Latent upscale compare variants"]) == [{"method": "area", "steps": 9}]


class TestTable:
    @pytest.mark.parametrize(
        ("module", "name", "table"),
        [
            ("interpolation", "INTERPOLATIONS", INTERPOLATIONS),
            ("schedules", "SCHEDULES", SCHEDULES),
        ],
    )
    def test_its_names_are_the_same_before_the_table_is_imported(self, module, name, table):
        code = (
            f"import sys; from lib_latent_upscale.options import Table\n"
            f"print(*Table('lib_latent_upscale.{module}', '{name}').names, sep='|')\n"
            f"sys.exit('lib_latent_upscale.{module}' in sys.modules or 'torch' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout.strip().split("|") == list(table)

    def test_one_that_is_not_there_is_an_error(self):
        with pytest.raises(LookupError, match=r"NOTHING is not assigned in schedules\.py"):
            _ = Table("lib_latent_upscale.schedules", "NOTHING").names


def test_settings_are_there_at_once():
    """--help and bad values are answered without torch."""
    code = (
        "import sys; from lib_latent_upscale.catalogue import CATALOGUE; [kind() for kind in CATALOGUE]\n"
        "sys.exit(str({'torch', 'numpy', 'PIL', 'gradio'} & set(sys.modules) or 0) if 'torch' in sys.modules else 0)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_a_number_without_a_range_is_no_option():
    with pytest.raises(TypeError, match="low and high"):
        option(3, label="Three", tip="no range")


def test_the_kind_of_value_follows_from_the_default():
    @dataclass(frozen=True)
    class Own(Settings):
        whole: int = option(4, low=0, high=8, step=4, label="Whole", tip="one")
        part: float = option(0.5, low=0, high=1, label="Part", tip="two")

    known = rows(Own)
    assert known["whole"].allowed == Integer(0, 8, 4)
    assert known["part"].allowed == Number(0, 1)
    assert known["part"].flag == "part"
    assert (known["whole"].axis, known["whole"].slider) == ("Whole", (8, 4))


def test_the_samplers_of_the_x4_upscaler_can_all_be_chosen():
    assert rows(X4Settings)["sampler"].allowed.names == tuple(X4_SAMPLERS)
