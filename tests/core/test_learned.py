"""Learned latent upscalers: any size, family and number format, and nothing silently else."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from lib_latent_upscale.interpolation import interpolate_latent
from lib_latent_upscale.learned import (
    FAMILIES,
    LATENTS,
    family_of,
    knows,
    restore_latent,
    upscale_latent,
    upscalers,
    weights_hash,
)
from lib_latent_upscale.learned.networks import Enlarge, Restore
from lib_latent_upscale.learned.upscalers import WEIGHTS, _network

ROOT = Path(__file__).resolve().parents[2]


def latent(family="sd1", height=12, width=10, batch=1, dtype=torch.float32):
    return torch.randn(batch, FAMILIES[family].channels, height, width, dtype=dtype)


RESTORED, ENLARGED = ([name for name in FAMILIES if knows(kind, name)] for kind in ("restore", "enlarge"))


class TestFamilies:
    @pytest.mark.parametrize("family", RESTORED)
    def test_restoring_keeps_the_shape_and_changes_something(self, family):
        given_latent = latent(family, batch=2)
        restored = restore_latent(given_latent, 2, family)
        assert restored.shape == given_latent.shape
        assert restored.isfinite().all()
        assert (restored - given_latent).abs().mean() > 0.01

    @pytest.mark.parametrize("family", ENLARGED)
    def test_enlarging_gives_exactly_the_asked_size(self, family):
        for size in [(24, 20), (13, 10), (48, 40), (17, 33)]:
            result = upscale_latent(latent(family), size, family)
            assert result.shape == (1, FAMILIES[family].channels, *size)
            assert result.isfinite().all()

    def test_the_weights_are_half_precision_and_named_by_what_they_are(self):
        paths = sorted(WEIGHTS.glob("*.safetensors"))
        named = [path.stem.split("-") for path in paths]
        assert len({weights_hash(kind, family) for kind, family in named}) == len(paths) > 0
        for path in paths:
            with safe_open(path, framework="pt") as file:
                assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}  # noqa: SIM118


def test_the_package_has_both_networks_of_every_family():
    assert RESTORED == ENLARGED == list(LATENTS)
    assert sum(path.stat().st_size for path in WEIGHTS.glob("*.safetensors")) < 16 * 2**20


def test_a_network_is_known_as_soon_as_its_weights_are_there(tmp_path, monkeypatch):
    monkeypatch.setattr(upscalers, "WEIGHTS", tmp_path)
    assert not knows("restore", "sd3")
    (tmp_path / "restore-sd3.safetensors").touch()
    assert knows("restore", "sd3")
    assert not knows("enlarge", "sd3")


@pytest.mark.parametrize("name", LATENTS)
def test_a_family_is_known_by_the_numbers_that_make_its_latents(name):
    one = LATENTS[name]
    assert family_of(one.scale, one.shift) == family_of(one.scale, one.shift, one.channels) == name
    assert family_of(one.scale, one.shift, 32) is None
    assert family_of(one.scale, one.shift + 0.1) is None
    assert family_of(1.0) is None


def test_all_weights_together_are_small_enough_to_come_with_the_package():
    assert sum(path.stat().st_size for path in WEIGHTS.glob("*.safetensors")) <= 16 * 2**20


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_number_formats_come_back_and_are_computed_as_precisely_as_float32(dtype):
    half = latent(dtype=dtype)
    for function, told in [(restore_latent, 2), (upscale_latent, (24, 20))]:
        result = function(half, told, "sd1")
        assert result.dtype == dtype
        torch.testing.assert_close(result, function(half.float(), told, "sd1").to(dtype), rtol=0, atol=0)


def test_what_is_not_enlarged_comes_back_as_it_is():
    given_latent = latent()
    for same in (restore_latent(given_latent, 1, "sd1"), upscale_latent(given_latent, (12, 10), "sd1")):
        torch.testing.assert_close(same, given_latent, rtol=0, atol=0)


def test_beyond_what_it_has_seen_it_restores_as_much_as_it_has_learned():
    given_latent = latent()
    four, eight = (restore_latent(given_latent, factor, "sd1") for factor in (4, 8))
    torch.testing.assert_close(four, eight, rtol=0, atol=0)
    assert (restore_latent(given_latent, 2, "sd1") - four).abs().max() > 0, "the factor is told"


def test_each_picture_of_a_batch_is_treated_alone():
    both = latent(batch=2)
    for function, told in [(restore_latent, 2), (upscale_latent, (24, 20))]:
        alone = torch.cat([function(one, told, "sd1") for one in both.split(1)])
        torch.testing.assert_close(function(both, told, "sd1"), alone, rtol=1e-4, atol=1e-5)


@given(st.integers(1, 9), st.integers(1, 9), st.floats(1, 4), st.floats(1, 4))
def test_every_size_within_the_factors_is_possible(height, width, down, across):
    size = (int(height * down), int(width * across))
    assert upscale_latent(latent(height=height, width=width), size, "sd1").shape[-2:] == size


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: restore_latent(latent(), 2, "sd4"), r"family is 'sd4'; choose one of: sd1"),
        (
            lambda: restore_latent(torch.randn(1, 16, 12, 10), 2, "sd1"),
            r"\(1, 16, 12, 10\).*SD 1.x and 2.x .*\(batch, 4, height",
        ),
        (lambda: restore_latent(latent()[0], 2, "sd1"), r"\(4, 12, 10\)"),
        (lambda: restore_latent(latent().int(), 2, "sd1"), r"int32"),
        (lambda: restore_latent(latent(), float("nan"), "sd1"), r"factor is nan"),
        (lambda: restore_latent(latent(), -1, "sd1"), r"factor is -1"),
        (lambda: upscale_latent(latent(), (11, 10), "sd1"), r"size is 11x10 cells for a latent of 12x10"),
        (lambda: upscale_latent(latent(), (49, 10), "sd1"), r"1 to 4 times as long"),
    ],
)
def test_what_it_cannot_do_is_refused_with_what_it_can(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("family", FAMILIES)
def test_an_untrained_network_changes_nothing_and_enlarges_bicubically(family):
    """So whatever it does was learned."""
    given_latent, channels = latent(family), FAMILIES[family].channels
    torch.testing.assert_close(Restore(channels)(given_latent, 2.0), given_latent)
    expected = interpolate_latent(given_latent, (24, 20), "bicubic")
    torch.testing.assert_close(Enlarge(channels)(given_latent, (24, 20)), expected)


def test_reading_the_weights_leaves_torchs_generator_as_it_was():
    """Else the first picture after a start would differ from the same one made again."""
    _network.cache_clear()
    before = torch.get_rng_state()
    restore_latent(torch.zeros(1, 4, 4, 4), 2, "sd1")
    assert torch.equal(torch.get_rng_state(), before)


def test_nothing_is_read_before_it_is_used():
    code = (
        "import sys; opened = []\n"
        "sys.addaudithook(lambda name, given: opened.append(str(given[0])) if name == 'open' else None)\n"
        "import lib_latent_upscale.learned\n"
        "print([name for name in opened if name.endswith('.safetensors')])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
