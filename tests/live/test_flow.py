"""A flow-matching checkpoint, SD 3 by its name ("sd3"), against a real WebUI; one with random numbers will do."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from lib_latent_upscale.learned import weights_hash
from lib_latent_upscale.schedules import SCHEDULES
from tests.live.calls import MASK_CHANGES, MASKED, check_masked, checkpoint, options, parameters, refused, square_mask
from tests.live.test_hires import SAME, TITLE, made
from tests.live.test_hires import own as own  # noqa: PLC0414

FIRST = {"simple": 0.75, "karras": 0.0555, "exponential": 0.0306, "beta": 0.7507}
"""First of 3 sigmas at denoising strength 0.5, where sigma is 3 t / (1 + 2 t) at each of the 1000 times t."""

PREVIEW = "show_progress_type"


@pytest.fixture(scope="module", autouse=True)
def flow(webui) -> Iterator[None]:
    """The checkpoint; v1.10.1 would download a network for its previews."""
    title = checkpoint(webui, "sd3")
    previews = {PREVIEW: "Approx cheap"} if PREVIEW in webui.call("/sdapi/v1/options") else {}
    with options(webui, sd_model_checkpoint=title, **previews):
        yield


def compared(webui: Any, picture: Any, **given: Any) -> dict[str, dict[str, Any]]:
    """What ran of a comparison of bicubic with several schedulers, by their names."""
    asked = {"compare": True, "method": "bicubic", "compare_schedulers": [*FIRST], **given}
    made = webui.ours(picture, asked)
    record = made.info["extra_generation_params"]["Latent upscale comparison"]["comparisons"][0]
    return {one["scheduler"]: one for one in record["variants"] if one["method"] == "bicubic"}


def test_all_steps_run_from_the_models_own_table(webui, picture):
    ran = compared(webui, picture)
    assert {name: one["steps_run"] for name, one in ran.items()} == dict.fromkeys(FIRST, 3)
    assert {name: one["first_sigma"] for name, one in ran.items()} == pytest.approx(FIRST, abs=1e-4)


def test_matched_noise_is_that_of_the_flow(webui, picture):
    ran = compared(webui, picture, starting_noise="matched")
    assert [one["first_sigma"] for one in ran.values()] == pytest.approx([0.75] * len(FIRST), abs=1e-3)


@pytest.mark.parametrize("scheduler", SCHEDULES)
def test_every_scheduler_makes_a_picture(webui, picture, scheduler):
    result = webui.ours(picture, {"scheduler": scheduler, "starting_noise": "continuous"})
    assert result.pixels.std() > 5
    assert "note" not in result.infotext


def test_the_learned_methods_are_those_for_its_latents(webui, picture):
    for method, kind in (("automatic", "restore"), ("learned-latent", "enlarge")):
        written = parameters(webui.ours(picture, {"method": method}).infotext)
        assert written["Latent upscale weights"] == weights_hash(kind, "sd3")


@pytest.mark.parametrize("size", [(100, 92), (120, 136), (64, 64)])
def test_any_size_comes_out_exactly(webui, picture, size):
    """The host's own becomes a multiple of 16."""
    result = webui.ours(picture, {}, width=size[0], height=size[1])
    assert result.pictures[0].size == size
    assert parameters(result.infotext)["Size"] == f"{size[0]}x{size[1]}"


@pytest.mark.parametrize("full_res", [False, True], ids=["whole picture", "only masked"])
@pytest.mark.parametrize("method", ["learned", "learned-latent", "bicubic", "pixels"])
def test_masks(webui, picture, method, full_res):
    changes = {**MASK_CHANGES, "inpaint_full_res": full_res}
    result = webui.ours(picture, {"method": method}, mask=square_mask((64, 64), MASKED), **changes)
    check_masked(result.pixels, picture, (128, 128), MASKED)


def test_each_picture_of_a_batch_can_be_made_alone(webui, picture):
    together = webui.ours(picture, {}, batch_size=2).pictures[-2:]
    for index, one in enumerate(together):
        alone = webui.ours(picture, {}, seed=7 + index).pixels
        assert np.abs(np.asarray(one.convert("RGB")).astype(int) - alone).max() <= 1


def test_extra_noise_is_said_to_spoil_it(webui, picture):
    webui.need_options(["img2img_extra_noise"])
    result = webui.ours(picture, {}, override_settings={"img2img_extra_noise": 0.1})
    assert "Extra noise spoils pictures of flow-matching models" in result.infotext


def test_a_tile_model_is_refused(webui, picture):
    said = refused(webui.ours, picture, {"tile_controlnet": True}).message
    if "no ControlNet" in said:
        pytest.skip("the WebUI has no ControlNet")
    assert "no U-Net of Stable Diffusion" in said or "there is none yet" in said


def test_hires_fix(webui, own):
    if own in SAME:
        webui.same(made(webui, SAME[own]).pixels, made(webui, own).pixels)
    written = parameters(made(webui, TITLE + "learned").infotext)
    assert written["Latent upscale weights"] == weights_hash("restore", "sd3")


def test_the_host_goes_on_as_before(webui, picture):
    before = webui.warm(picture).pixels
    webui.ours(picture, {}, seed=99)
    webui.same(webui.host(picture).pixels, before)
