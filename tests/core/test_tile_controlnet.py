"""Settings of the tile ControlNet: what is allowed, and the way into a picture's infotext and back."""

import re
from dataclasses import FrozenInstanceError, asdict, fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_latent_upscale.schedules import SCHEDULES
from lib_latent_upscale.settings import AUTOMATIC, UpscaleSettings
from lib_latent_upscale.tile_settings import CONTROL_MODES, PREPROCESSORS, TileSettings
from lib_latent_upscale.x4_settings import X4Settings

LABELS = TileSettings.labels()
DEFAULTS = TileSettings()
SECOND = ("second_denoising_strength", "second_steps", "second_scheduler")

any_settings = st.builds(
    TileSettings,
    weight=st.floats(0, 2),
    start=st.floats(0, 0.5),
    end=st.floats(0.5, 1, exclude_min=True),
    preprocessor=st.sampled_from(PREPROCESSORS),
    down_sampling_rate=st.floats(1, 8),
    control_mode=st.sampled_from(CONTROL_MODES),
    second_pass=st.booleans(),
    second_denoising_strength=st.floats(0, 1),
    second_steps=st.integers(1, 1000),
    second_scheduler=st.sampled_from([AUTOMATIC, *SCHEDULES]),
)


def what_matters(settings: TileSettings) -> TileSettings:
    """The settings with the default in place of every value that cannot change the picture."""
    idle = () if settings.second_pass else SECOND
    idle += () if settings.preprocessor == "tile_resample" else ("down_sampling_rate",)
    return replace(settings, **{field: getattr(DEFAULTS, field) for field in idle})


def test_every_field_has_one_label():
    assert [field for field, _ in TileSettings.labels().items()] == [field.name for field in fields(TileSettings)]
    others = [label for _, label in (*UpscaleSettings.labels().items(), *X4Settings.labels().items())]
    assert len({*LABELS.values(), *others}) == len(LABELS) + len(others)


def test_labels_stand_in_pictures_and_never_change():
    assert TileSettings(second_pass=True).to_infotext() == {
        "Tile ControlNet weight": "1.0",
        "Tile ControlNet start": "0.0",
        "Tile ControlNet end": "1.0",
        "Tile ControlNet preprocessor": "tile_resample",
        "Tile ControlNet down-sampling rate": "1.0",
        "Tile ControlNet control mode": "Balanced",
        "Tile ControlNet second pass": "True",
        "Tile ControlNet second denoising strength": "0.8",
        "Tile ControlNet second steps": "20",
        "Tile ControlNet second scheduler": "simple",
    }


@pytest.mark.parametrize("label", LABELS.values())
def test_the_webui_can_read_the_labels(label):
    """The grammar of a label in modules/infotext_utils.py."""
    assert re.fullmatch(r"\w[\w \-/]+", label)


@given(any_settings)
def test_infotext_brings_back_what_matters(settings):
    assert TileSettings.from_infotext({"Steps": "20", **settings.to_infotext()}) == what_matters(settings)


@given(any_settings)
def test_dict_and_back(settings):
    assert TileSettings.from_dict(asdict(settings)) == settings


@pytest.mark.parametrize("second_pass", [False, True])
def test_the_second_pass_is_in_the_infotext_only_where_there_is_one(second_pass):
    shown = TileSettings(second_pass=second_pass).to_infotext()
    assert all((LABELS[field] in shown) is second_pass for field in SECOND)
    assert shown["Tile ControlNet second pass"] == str(second_pass)


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("weight", -0.01, "0 to 2"),
        ("weight", 2.5, "0 to 2"),
        ("weight", float("nan"), "0 to 2"),
        ("weight", "1", "0 to 2"),
        ("weight", True, "0 to 2"),
        ("start", -1, "0 to 1"),
        ("end", 1.5, "0 to 1"),
        ("preprocessor", "tile", "none, tile_resample"),
        ("preprocessor", None, "none, tile_resample"),
        ("down_sampling_rate", 0.5, "1 to 8"),
        ("control_mode", "balanced", "Balanced, My prompt"),
        ("second_pass", 1, "True or False"),
        ("second_denoising_strength", 1.1, "0 to 1"),
        ("second_steps", 0, "1 to 1000"),
        ("second_steps", 2.0, "1 to 1000"),
        ("second_scheduler", "Simple", ", automatic"),
    ],
)
def test_bad_settings_say_what_is_allowed(field, value, allowed):
    with pytest.raises(ValueError, match=rf"^{field} is {re.escape(repr(value))}; .*{allowed}"):
        TileSettings.from_dict({field: value})


@pytest.mark.parametrize(("start", "end"), [(0.5, 0.5), (0.8, 0.2), (1, 1.0), (0, 0)])
def test_the_control_must_begin_before_it_ends(start, end):
    with pytest.raises(ValueError, match=f"start is {start} and end is {end}; start must be smaller"):
        TileSettings(start=start, end=end)


def test_unknown_settings_are_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=r"\['wieght'\]") as error:
        TileSettings.from_dict({"wieght": 1, "start": 0})
    assert all(field in str(error.value) for field in LABELS)


@pytest.mark.parametrize(
    ("label", "value"),
    [
        ("Tile ControlNet weight", "heavy"),
        ("Tile ControlNet weight", "3"),
        ("Tile ControlNet second pass", "maybe"),
        ("Tile ControlNet second steps", "2.5"),
        ("Tile ControlNet preprocessor", "canny"),
    ],
)
def test_bad_infotext_names_its_label(label, value):
    with pytest.raises(ValueError, match=f"^{label}: "):
        TileSettings.from_infotext({label: value})


def test_numbers_and_switches_may_arrive_as_text_or_as_they_are():
    texts = {"Tile ControlNet weight": " 0.5 ", "Tile ControlNet second pass": "true", "Tile ControlNet end": "1"}
    values = {"Tile ControlNet weight": 0.5, "Tile ControlNet second pass": True, "Tile ControlNet end": 1}
    assert TileSettings.from_infotext(texts) == TileSettings.from_infotext(values)
    assert TileSettings.from_infotext(texts) == TileSettings(weight=0.5, second_pass=True)


def test_settings_do_not_change():
    with pytest.raises(FrozenInstanceError):
        DEFAULTS.weight = 2
