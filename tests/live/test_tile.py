"""Tile ControlNet in a real WebUI; it needs a ControlNet, and a tile model that fits the checkpoint.

A randomly initialised model of full size is enough. Pictures are small and of one step: on a CPU a call takes some
seconds, and memory for both models is needed.
"""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from lib_latent_upscale.tile_controlnet import TILE_MODEL_LABEL, TileSettings
from tests.live.test_api import parameters, refused, square_mask

FAST = {"steps": 1, "cfg_scale": 1}


@pytest.fixture(scope="module")
def model(webui) -> str:
    """The tile model that the panel offers first, after "automatic"."""
    info = next(s for s in webui.call("/sdapi/v1/script-info") if s["name"] == "latent upscale")
    offered = next((arg["choices"] for arg in info["args"] if arg["label"] == "Tile model"), [])
    if len(offered) < 2:
        pytest.skip("the WebUI has no ControlNet, or no tile model that fits the checkpoint")
    return offered[1]


@pytest.fixture(scope="module")
def made(webui, picture, model) -> Any:
    """Makes a picture, each only once."""
    known: dict[str, Any] = {}

    def make(given: dict[str, Any], **changes: Any) -> Any:
        key = repr((given, sorted(changes.items())))
        if key not in known:
            known[key] = webui.ours(picture, given, **{**FAST, **changes})
        return known[key]

    make({})  # the first picture after a start may differ in its last bits
    known.clear()
    return make


def tile(**given: Any) -> dict[str, Any]:
    return {"tile_controlnet": True, **{f"tile_controlnet_{name}": value for name, value in given.items()}}


SECOND = {"second_pass": True, "second_steps": 1, "second_denoising_strength": 0.5}


def distance(first: Any, second: Any) -> float:
    return float(np.abs(first.pixels - second.pixels).mean())


def test_the_picture_follows_the_weight(made):
    plain, half, whole = made({}), made(tile(weight=0.5)), made(tile())
    assert 0.1 < distance(plain, half) < distance(plain, whole)


def test_without_weight_it_is_the_picture_without(made):
    np.testing.assert_array_equal(made(tile(weight=0)).pixels, made({}).pixels)


@pytest.mark.parametrize("count", [1, 3])
def test_units_of_the_person_work_beside_it(webui, made, model, count):
    """Three are all the slots that ControlNet has by default."""
    unit = {"enabled": True, "module": "none", "model": model, "weight": 0.6, "image": _blue(), "pixel_perfect": True}
    own = {"alwayson_scripts": {"controlnet": {"args": [unit] * count}}}
    alone, both = made({}, **own), made(tile(), **own)
    assert distance(made({}), alone) > 0.1
    assert distance(both, alone) > 0.1
    assert distance(both, made(tile())) > 0.1
    assert f"ControlNet {count - 1}: " in both.infotext
    assert f"ControlNet {count}: " not in both.infotext


def _blue() -> str:
    from tests.live.conftest import encoded

    return encoded(Image.new("RGB", (64, 64), (20, 60, 200)))


def test_the_infotext_makes_it_again(webui, picture, made, model):
    written = parameters(made(tile(weight=0.5)).infotext)
    assert written[TILE_MODEL_LABEL] == model
    assert TileSettings.from_infotext(written) == TileSettings(weight=0.5)
    assert "ControlNet 0" not in written
    again = webui.ours(picture, tile(weight=0.5, model=written[TILE_MODEL_LABEL]), **FAST)
    np.testing.assert_array_equal(again.pixels, made(tile(weight=0.5)).pixels)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (tile(model="no such"), "tile_controlnet_model is 'no such'; choose one of: "),
        (tile(weight=3), "tile_controlnet_weight is 3; a number from 0 to 2"),
        ({"tile_controlnet_weight": 1}, "only with tile_controlnet"),
    ],
    ids=str,
)
def test_bad_values_are_refused(webui, picture, model, given, said):
    error = refused(webui.ours, picture, given)
    assert error.status == 422
    assert said in error.message


@pytest.mark.parametrize("inverted", [0, 1])
@pytest.mark.parametrize("only_masked", [False, True])
def test_it_acts_in_the_masked_part(made, inverted, only_masked):
    box = (16, 16, 48, 48)
    changes = {"mask_blur": 0, "inpainting_fill": 1, "inpaint_full_res": only_masked}
    changes |= {"inpainting_mask_invert": inverted, "mask": square_mask((64, 64), box)}
    apart = np.abs(made(tile(), **changes).pixels - made({}, **changes).pixels)
    inside, outside = apart[40:88, 40:88], apart[:16]
    assert (outside if inverted else inside).mean() > 0.1
    assert (inside if inverted else outside).max() == 0


class TestSecondPass:
    def test_it_goes_on_from_the_first_picture(self, made, picture):
        second = made(tile(**SECOND))
        assert second.pictures[0].size == (128, 128)
        assert distance(second, made({})) > 1
        written = parameters(second.infotext)
        assert (written["Steps"], written["Denoising strength"]) == ("1", "0.5")
        assert TileSettings.from_infotext(written) == TileSettings(**SECOND)

    def test_every_picture_of_a_batch_can_be_made_alone(self, made):
        together = made(tile(**SECOND), n_iter=2)
        for seed, one in zip((7, 8), together.pictures[-2:], strict=True):
            alone = made(tile(**SECOND), seed=seed)
            assert np.abs(np.asarray(one).astype(int) - alone.pixels).max() <= 1

    def test_the_unmasked_part_is_the_enlarged_original(self, made, picture):
        changes = {"mask_blur": 0, "inpainting_fill": 1, "mask": square_mask((64, 64), (16, 16, 48, 48))}
        result = made(tile(**SECOND), **changes, inpaint_full_res=False).pixels
        original = np.asarray(picture.resize((128, 128), Image.Resampling.LANCZOS)).astype(int)
        assert np.abs(result - original)[:24].max() <= 2
        assert np.abs(result - original)[40:88, 40:88].mean() > 5


def test_pictures_without_it_stay_the_same(webui, picture, model):
    before = webui.warm(picture, **FAST).pixels
    webui.ours(picture, tile(), **{**FAST, "seed": 99})
    refused(webui.ours, picture, tile(model="no such"))
    webui.warm(picture, **FAST)
    np.testing.assert_array_equal(webui.host(picture, **FAST).pixels, before)
