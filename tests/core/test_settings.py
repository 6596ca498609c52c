"""Settings: what is allowed, and the way into a picture's infotext and back."""

from dataclasses import FrozenInstanceError, asdict, fields

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib_latent_upscale.interpolation import INTERPOLATIONS
from lib_latent_upscale.schedules import SCHEDULES, Limits, scheduled_steps
from lib_latent_upscale.settings import AUTOMATIC, UpscaleSettings

any_settings = st.builds(
    UpscaleSettings,
    method=st.sampled_from(list(INTERPOLATIONS)),
    scheduler=st.sampled_from([AUTOMATIC, *SCHEDULES]),
    exact_steps=st.booleans(),
    keep_statistics=st.booleans(),
    matched_noise=st.booleans(),
)
BOOLS = ["exact_steps", "keep_statistics", "matched_noise"]
LABELS = UpscaleSettings.labels()


def test_every_field_has_one_label():
    assert [field for field, _ in UpscaleSettings.labels().items()] == [field.name for field in fields(UpscaleSettings)]
    assert len(set(LABELS.values())) == len(LABELS)


def test_labels_stand_in_pictures_and_never_change():
    assert UpscaleSettings("nearest-exact").to_infotext() == {
        "Latent upscale method": "nearest-exact",
        "Latent upscale scheduler": "simple",
        "Latent upscale exact steps": "True",
        "Latent upscale keep statistics": "False",
        "Latent upscale matched noise": "False",
    }


@given(any_settings)
def test_infotext_and_back(settings):
    assert UpscaleSettings.from_infotext(settings.to_infotext()) == settings


@given(any_settings)
def test_dict_and_back(settings):
    assert UpscaleSettings.from_dict(asdict(settings)) == settings


@given(any_settings, st.dictionaries(st.text(), st.text()))
def test_infotext_of_other_programs_does_not_matter(settings, others):
    infotext = {**others, "Steps": "20", "Sampler": "Euler a", **settings.to_infotext()}
    assert UpscaleSettings.from_infotext(infotext) == settings


@given(any_settings, st.sets(st.sampled_from(list(LABELS))))
def test_absent_labels_take_the_default(settings, absent):
    infotext = settings.to_infotext()
    for field in absent:
        infotext.pop(LABELS[field], None)  # starting noise is not written where it changes nothing
    found = UpscaleSettings.from_infotext(infotext)
    for field in LABELS:
        assert getattr(found, field) == getattr(UpscaleSettings() if field in absent else settings, field)


@pytest.mark.parametrize(("text", "value"), [("True", True), ("False", False), (" true ", True), (False, False)])
@pytest.mark.parametrize("field", BOOLS)
def test_truth_arrives_as_text(field, text, value):
    assert getattr(UpscaleSettings.from_infotext({LABELS[field]: text}), field) is value


@pytest.mark.parametrize("field", list(LABELS))
@pytest.mark.parametrize("value", ["trilinear", "1", "", 1, 0.5, None])
def test_a_bad_value_in_infotext_names_its_label(field, value):
    with pytest.raises(ValueError, match=f"^{LABELS[field]}: {field} is {value!r}; choose"):
        UpscaleSettings.from_infotext({LABELS[field]: value})


@pytest.mark.parametrize("field", ["method", "scheduler"])
@pytest.mark.parametrize("value", [7, None, True, "", "Nearest", ["nearest"]])
def test_a_name_must_be_a_known_name(field, value):
    with pytest.raises(ValueError, match=field) as error:
        UpscaleSettings.from_dict({field: value})
    known = INTERPOLATIONS if field == "method" else [AUTOMATIC, *SCHEDULES]
    assert repr(value) in str(error.value)
    assert all(name in str(error.value) for name in known)


@pytest.mark.parametrize("field", BOOLS)
@pytest.mark.parametrize("value", [1, 0, None, "True", "no", [True]])
def test_a_switch_must_be_true_or_false(field, value):
    with pytest.raises(ValueError, match=f"{field} is .*choose True or False"):
        UpscaleSettings.from_dict({field: value})


def test_unknown_settings_are_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="'interpolation'") as error:
        UpscaleSettings.from_dict({"interpolation": "area", "method": "area"})
    assert all(field in str(error.value) for field in LABELS)


def test_automatic_is_no_schedule_of_ours():
    assert AUTOMATIC not in SCHEDULES
    assert UpscaleSettings(scheduler=AUTOMATIC).scheduler == "automatic"


def test_settings_do_not_change():
    with pytest.raises(FrozenInstanceError):
        UpscaleSettings().method = "area"


SD1 = 0.02916716, 14.6146
"""The ends of SD 1.x's table of sigmas."""


@pytest.mark.parametrize("start", ["continuous", "matched", "matched noise"])
@pytest.mark.parametrize("own_end", [None, 10.0, 20.0])
@pytest.mark.parametrize("scheduler", list(SCHEDULES))
def test_a_start_of_ones_own_at_full_strength_whatever_the_end(scheduler, own_end, start):
    """Where a host cuts its own schedule, and where ours is run, with samplers that leave out a sigma, too."""
    chosen = {"matched_noise": True} if start == "matched noise" else {"starting_noise": start}
    settings, table = UpscaleSettings("area", scheduler, **chosen), torch.linspace(*SD1, 1000, dtype=torch.float64)
    limits = Limits(sigma_max=own_end)
    asked = settings.plan(4, 1.0, table, limits=limits).run
    total = scheduled_steps(4, 1.0)
    assert torch.equal(settings.host_sigmas(total, 4, 1.0, table, limits=limits)[-5:], asked)
    skipping = settings.host_sigmas(total + 1, 4, 1.0, table, limits=limits)
    assert torch.equal(
        skipping[-6:][[0, 1, 2, 3, 5]], settings.plan(4, 1.0, table, discard_penultimate=True, limits=limits).run
    )
    largest = SD1[1] if start != "continuous" else limits.sigmas(scheduler, 1000, table)[0].item()
    assert asked[0].item() == pytest.approx(largest, rel=1e-4)


@pytest.mark.parametrize("start", ["schedule", "continuous", "matched"])
def test_as_many_steps_as_there_are_with_a_sampler_that_leaves_one_out(start):
    settings, table = UpscaleSettings(starting_noise=start), torch.linspace(*SD1, 1000)
    total = scheduled_steps(1000, 1.0)
    assert len(settings.host_sigmas(total + 1, 1000, 1.0, table)) == total + 2


@pytest.mark.parametrize("chosen", [{}, {"exact_steps": False}, {"matched_noise": True, "scheduler": "karras"}])
@pytest.mark.parametrize("steps", [2, 3, 4, 8, 20])
def test_the_strengths_that_start_at_the_same_sigma(steps, chosen):
    """Just inside its ends the first sigma is the same one, just outside it is another."""
    settings, table = UpscaleSettings(**chosen), torch.linspace(*SD1, 1000, dtype=torch.float64)

    def first(strength: float) -> float:
        return settings.plan(steps, strength, table).run[0].item()

    for percent in range(19, 100, 8):
        strength = percent / 100
        low, high = settings.same_start(steps, strength)
        assert low <= strength <= high
        assert first(max(low, 0.01) + 1e-6) == first(strength) == first(high - 1e-6)
        wide = high - low > 0.03  # a narrower one may share one of the model's timesteps with its neighbour
        assert not (wide and high < 1) or first(high + 1e-6) > first(strength)
        assert not (wide and low > 0) or first(low - 1e-6) < first(strength)


@pytest.mark.parametrize("start", ["continuous", "matched"])
def test_a_start_that_follows_the_strength_stays_nowhere(start):
    assert UpscaleSettings(starting_noise=start).same_start(4, 0.75) == (0.75, 0.75)
