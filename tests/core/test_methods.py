"""Methods: which picture is encoded, what is done to its latents, and what is said where a network is missing."""

import pytest
import torch

from lib_latent_upscale.interpolation import INTERPOLATIONS, interpolate_latent
from lib_latent_upscale.learned import FAMILIES, restore_latent, upscale_latent, weights_hash
from lib_latent_upscale.methods import METHODS, method_named, resolved_method, same_method, weights_of
from lib_latent_upscale.settings import UpscaleSettings


@pytest.fixture
def small():
    return torch.randn(1, 4, 6, 5)


@pytest.fixture
def large():
    return torch.randn(1, 4, 12, 10)


@pytest.mark.parametrize("method", INTERPOLATIONS)
def test_an_interpolation_is_the_function_itself(method, small):
    settings = UpscaleSettings(method, keep_statistics=True)
    expected = interpolate_latent(small, (12, 10), method, keep_statistics=True)
    torch.testing.assert_close(settings.enlarge(small, (12, 10)), expected, rtol=0, atol=0)
    assert not settings.resizes_picture


def test_pixels_leaves_the_latents_of_the_resized_picture_as_they_are(large):
    settings = UpscaleSettings("pixels")
    assert settings.resizes_picture
    assert settings.enlarge(large, (12, 10), source=(6, 5)) is large


def test_learned_restores_the_latents_of_the_resized_picture_at_the_factor_that_it_was_resized_by(large):
    settings = UpscaleSettings("learned")
    assert settings.resizes_picture
    restored = settings.enlarge(large, (12, 10), source=(6, 5), family="sd1")
    torch.testing.assert_close(restored, restore_latent(large, 2.0, "sd1"), rtol=0, atol=0)
    broken = settings.enlarge(large, (12, 10), source=(4.8, 8.333333), family="sd1")
    torch.testing.assert_close(broken, restore_latent(large, 3**0.5, "sd1"), rtol=1e-4, atol=1e-4)


def test_learned_latent_enlarges_the_small_latents(small):
    settings = UpscaleSettings("learned-latent")
    assert not settings.resizes_picture
    result = settings.enlarge(small, (11, 13), family="sd1")
    torch.testing.assert_close(result, upscale_latent(small, (11, 13), "sd1"), rtol=0, atol=0)


@pytest.mark.parametrize("size", [(32, 40), (6, 21), (3, 5), (4, 40)])
def test_beyond_its_reach_learned_latent_leaves_the_rest_to_interpolation(small, size):
    """Small masked regions are enlarged more than fourfold, and a picture can be made smaller."""
    reached = [max(side, min(asked, 4 * side)) for side, asked in zip((6, 5), size, strict=True)]
    expected = interpolate_latent(upscale_latent(small, tuple(reached), "sd1"), size, "bicubic-antialiased")
    result = UpscaleSettings("learned-latent").enlarge(small, size, family="sd1")
    torch.testing.assert_close(result, expected, rtol=0, atol=0)


@pytest.mark.parametrize("method", [name for name, row in METHODS.items() if row.network])
def test_latents_that_no_network_knows_are_refused_with_those_that_are_known(method, large):
    said = rf"method is '{method}'; it knows the latents of SD 1.x and 2.x.*, not this model's: choose another method"
    with pytest.raises(ValueError, match=said):
        UpscaleSettings(method).enlarge(large, (12, 10), family=None)
    with pytest.raises(ValueError, match="choose another"):
        weights_of(method, None)


def test_a_family_without_a_network_is_called_by_its_name(monkeypatch):
    monkeypatch.setattr("lib_latent_upscale.methods.knows", lambda _kind, family: family == "sd1")
    with pytest.raises(ValueError, match=r"knows the latents of SD 1.x and 2.x, not those of Flux.1: choose another"):
        weights_of("learned", "flux1")


@pytest.mark.parametrize(
    ("family", "factor", "method"),
    [
        ("sd1", 2.0, "learned"),
        ("sd1", 1.01, "learned"),
        ("sd1", 1.0, "pixels"),
        ("sd1", 0.5, "pixels"),
        (None, 2.0, "pixels"),
        (None, 4.0, "pixels"),
    ],
)
def test_automatic_is_learned_where_a_network_knows_the_latents(family, factor, method):
    settings = UpscaleSettings("automatic", keep_statistics=True)
    ran = settings.resolved(family=family, factor=factor)
    assert ran == UpscaleSettings(method, keep_statistics=True)
    assert ran.resolved(family=None, factor=9.0) == ran, "only automatic is another"


def test_automatic_follows_the_weights_that_are_there(monkeypatch):
    monkeypatch.setattr("lib_latent_upscale.methods.knows", lambda kind, family: (kind, family) == ("restore", "flux1"))
    assert resolved_method("automatic", "flux1", 2.0) == "learned"
    assert resolved_method("automatic", "sd1", 2.0) == "pixels"


def test_automatic_itself_enlarges_nothing(small):
    with pytest.raises(ValueError, match="says which one that is here"):
        UpscaleSettings("automatic").enlarge(small, (12, 10), family="sd1")


def test_only_learned_methods_have_weights_to_name():
    assert weights_of("learned", "sd1") == weights_hash("restore", "sd1")
    assert weights_of("learned-latent", "sd1") == weights_hash("enlarge", "sd1")
    assert weights_of("pixels", None) == weights_of("bicubic", "sd1") == ""


def test_an_unknown_method_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'cubic'; choose one of: nearest, .*, pixels, learned, learned-latent"):
        method_named("cubic")


def test_a_learned_method_is_the_same_as_itself_only():
    assert same_method("learned", "learned", (8, 8), (16, 16))
    assert not same_method("learned", "pixels", (8, 8), (8, 8))
    assert same_method("nearest", "area", (8, 8), (16, 16))


def test_every_method_has_a_line_for_people_who_choose():
    assert all(method_named(name).summary for name in [*METHODS, *INTERPOLATIONS])
    assert all(one.title for one in FAMILIES.values())
