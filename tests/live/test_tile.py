"""Tile ControlNet in a real WebUI; it needs a ControlNet, and a tile model that fits the checkpoint.

A randomly initialised model of full size is enough. Pictures are small and of one step: on a CPU a call takes some
seconds, and memory for both models is needed.
"""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from lib_latent_upscale.tile_settings import TileSettings
from tests.live.calls import TILE_FAST, control_file, encoded, parameters, refused, square_mask, tile


@pytest.fixture(scope="module")
def made(webui, picture, tile_model) -> Any:
    """Makes a picture, each only once."""
    known: dict[str, Any] = {}

    def make(given: dict[str, Any], **changes: Any) -> Any:
        key = repr((given, sorted(changes.items())))
        if key not in known:
            known[key] = webui.ours(picture, given, **{**TILE_FAST, **changes})
        return known[key]

    make({})  # the first picture after a start may differ in its last bits
    known.clear()
    return make


SECOND = {"second_pass": True, "second_steps": 1, "second_denoising_strength": 0.5}


def distance(first: Any, second: Any) -> float:
    return float(np.abs(first.pixels - second.pixels).mean())


def test_the_picture_follows_the_weight(made):
    plain, half, whole = made({}), made(tile(weight=0.5)), made(tile())
    assert 0.1 < distance(plain, half) < distance(plain, whole)


def test_without_weight_it_is_the_picture_without(webui, made):
    webui.same(made(tile(weight=0)).pixels, made({}).pixels)


@pytest.mark.parametrize("count", [1, 3])
def test_units_of_the_person_work_beside_it(webui, made, tile_model, count):
    """Three are all the slots that ControlNet has by default."""
    nothing = next(name for name in webui.call("/controlnet/module_list")["module_list"] if name.lower() == "none")
    name = next(name for name in webui.call("/controlnet/model_list")["model_list"] if name.startswith(tile_model))
    unit = {"enabled": True, "module": nothing, "model": name, "weight": 0.6, "image": _blue(), "pixel_perfect": True}
    own = {"alwayson_scripts": {"controlnet": {"args": [unit] * count}}}
    alone, both = made({}, **own), made(tile(), **own)
    assert distance(made({}), alone) > 0.1
    assert distance(both, alone) > 0.1
    assert distance(both, made(tile())) > 0.1
    assert f"ControlNet {count - 1}: " in both.infotext
    assert f"ControlNet {count}: " not in both.infotext


def _blue() -> str:
    return encoded(Image.new("RGB", (64, 64), (20, 60, 200)))


def test_the_infotext_makes_it_again(webui, picture, made, tile_model):
    written = parameters(made(tile(weight=0.5)).infotext)
    assert written[TileSettings.MODEL_LABEL] == tile_model
    assert TileSettings.from_infotext(written) == TileSettings(weight=0.5)
    assert "ControlNet 0" not in written
    again = webui.ours(picture, tile(weight=0.5, model=written[TileSettings.MODEL_LABEL]), **TILE_FAST)
    webui.same(again.pixels, made(tile(weight=0.5)).pixels)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (tile(model="no such"), "tile_controlnet_model is 'no such'; choose one of: "),
        (tile(weight=3), "tile_controlnet_weight is 3; a number from 0 to 2"),
        ({"tile_controlnet_weight": 1}, "only with tile_controlnet"),
    ],
    ids=str,
)
def test_bad_values_are_refused(webui, picture, tile_model, given, said):
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


class TestComparison:
    def test_the_pass_is_one_more_variant(self, webui, picture, made, tile_model):
        before = webui.warm(picture, **TILE_FAST).pixels
        result = webui.ours(picture, {**tile(), "compare": True}, **TILE_FAST)
        record = result.info["extra_generation_params"]["Latent upscale comparison"]
        shown = [one["name"] for one in record["pictures"]]
        assert shown[-4:] == [
            "WebUI, latent upscale",
            "WebUI, Just resize",
            "Latent Upscale",
            "Latent Upscale + tile ControlNet",
        ]
        *others, last = record["comparisons"][0]["variants"]
        assert last["passes"] == ["tile ControlNet"]
        assert f"{TileSettings.MODEL_LABEL}: {tile_model}" in last["parameters"]
        assert not any(TileSettings.MODEL_LABEL in one["parameters"] for one in others)
        for index, alone in ((-4, before), (-2, made({}).pixels), (-1, made(tile()).pixels)):
            webui.same(np.asarray(result.pictures[index].convert("RGB")), alone)
        webui.warm(picture, **TILE_FAST)
        webui.same(webui.host(picture, **TILE_FAST).pixels, before)
        webui.same(webui.ours(picture, {}, **TILE_FAST).pixels, made({}).pixels)

    def test_a_second_pass_is_one_too(self, webui, picture, made):
        result = webui.ours(picture, {**tile(**SECOND), "compare": True}, **TILE_FAST)
        webui.same(np.asarray(result.pictures[-2].convert("RGB")), made({}).pixels)
        webui.same(np.asarray(result.pictures[-1].convert("RGB")), made(tile(**SECOND)).pixels)


class TestFiles:
    """Files beside the tile model, in the folder that the WebUI names."""

    def test_one_put_there_just_now_is_found(self, webui, picture, made, put_tile):
        result = webui.ours(picture, tile(model=put_tile("just_now_tile").stem), **TILE_FAST)
        assert parameters(result.infotext)[TileSettings.MODEL_LABEL] == "just_now_tile"
        webui.same(result.pixels, made(tile()).pixels)

    def test_one_that_has_gone_is_refused(self, webui, picture, put_tile):
        file = put_tile("gone_tile")
        webui.ours(picture, tile(model="gone_tile"), **TILE_FAST)
        file.unlink()
        error = refused(webui.ours, picture, tile(model="gone_tile"))
        assert error.status == 422
        assert "gone_tile" in error.message

    @pytest.mark.parametrize(("text_width", "family"), [(1024, "SD 2.x"), (2048, "SDXL")])
    def test_one_of_another_family_is_refused(self, webui, picture, put_tile, text_width, family):
        put_tile("other_family_tile", control_file(text_width))
        error = refused(webui.ours, picture, tile(model="other_family_tile"))
        assert error.status == 422
        assert f"other_family_tile is made for {family}, but the checkpoint" in error.message
        assert "A tile model of that family is needed" in error.message

    @pytest.mark.parametrize("content", [b"", b"<!doctype html>", control_file(768)[:-1000]], ids=len)
    def test_a_damaged_one_is_refused(self, webui, picture, put_tile, content):
        put_tile("damaged_tile", content)
        error = refused(webui.ours, picture, tile(model="damaged_tile"))
        assert error.status == 422
        assert "damaged_tile cannot be loaded: damaged_tile.safetensors" in error.message

    def test_one_that_controlnet_cannot_load_makes_no_picture(self, webui, picture, made, tile_model, strange_tile):
        """The WebUI swallows what ControlNet says, and would go on without it."""
        error = refused(webui.ours, picture, tile(model=strange_tile.stem), **TILE_FAST)
        assert "ControlNet has not taken the tile unit with a_strange_tile" in error.message
        assert "No picture was made" in error.message
        webui.same(webui.ours(picture, {}, **TILE_FAST).pixels, made({}).pixels)
        webui.same(webui.ours(picture, tile(model=tile_model), **TILE_FAST).pixels, made(tile(model=tile_model)).pixels)

    def test_in_a_second_pass_the_first_picture_is_kept(self, webui, picture, made, strange_tile):
        kept = webui.ours(picture, tile(model=strange_tile.stem, **SECOND), **TILE_FAST)
        assert "the second pass failed: Latent Upscale: ControlNet has not taken the tile unit" in kept.infotext
        assert TileSettings.MODEL_LABEL not in kept.infotext
        webui.same(kept.pixels, made({}).pixels)


def test_pictures_without_it_stay_the_same(webui, picture, tile_model):
    before = webui.warm(picture, **TILE_FAST).pixels
    webui.ours(picture, tile(), **{**TILE_FAST, "seed": 99})
    refused(webui.ours, picture, tile(model="no such"))
    webui.warm(picture, **TILE_FAST)
    webui.same(webui.host(picture, **TILE_FAST).pixels, before)
