"""A flow-matching checkpoint against a real WebUI; one with random numbers will do. Its name says which it is."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from math import e, exp
from typing import Any

import pytest
from scipy.stats import beta

from lib_latent_upscale.learned import weights_hash
from lib_latent_upscale.schedules import SCHEDULES
from tests.live.calls import (
    MASK_CHANGES,
    MASKED,
    check_each_alone,
    check_masked,
    options,
    parameters,
    refused,
    square_mask,
)
from tests.live.test_hires import SAME, TITLE, made
from tests.live.test_hires import own as own  # noqa: PLC0414

SCHEDULERS = ("simple", "karras", "exponential", "beta")


@dataclass(frozen=True)
class Flow:
    """Models with the same latents and sigmas: each time t in (0, 1] has `shift * t / (1 + (shift - 1) * t)`."""

    latents: str
    """Name of their family, for which the learned methods have weights."""
    shift: float
    times: int

    def sigma(self, t: float) -> float:
        return self.shift * t / (1 + (self.shift - 1) * t)

    def first(self) -> dict[str, float]:
        """First of 3 sigmas at denoising strength 0.5, the fourth of 6, by scheduler."""
        least = self.sigma(1 / self.times)
        place = round(beta.ppf(0.5, 0.6, 0.6) * (self.times - 1))
        karras = (1 + 3 / 5 * (least ** (1 / 7) - 1)) ** 7
        return {
            "simple": self.sigma(0.5),
            "karras": karras,
            "exponential": least ** (3 / 5),
            "beta": self.sigma((place + 1) / self.times),
        }


FLOWS = {
    "sd3": Flow("sd3", 3, 1000),
    "schnell": Flow("flux1", e, 10000),
    "flux1": Flow("flux1", exp(1.15), 10000),
    "chroma": Flow("flux1", e, 10000),
    "lumina": Flow("flux1", 6, 1000),
    "zimage": Flow("flux1", 3, 1000),
}
"""By a part of the checkpoint's name, the first that it has; shifts and times as v1.10.1 and ersatzForge have them."""

SIMPLE = {"scheduler": "Simple"}
"""For the host's own pictures: with "Automatic", ersatzForge's of Flux.1 are black."""

PREVIEW = "show_progress_type"


@pytest.fixture(scope="module", autouse=True)
def flow(webui) -> Iterator[Flow]:
    """The checkpoint that is loaded, or else the first of them; v1.10.1 would download a network for its previews."""
    loaded = webui.call("/sdapi/v1/options")
    title = chosen(webui, loaded["sd_model_checkpoint"])
    previews = {PREVIEW: "Approx cheap"} if PREVIEW in loaded else {}
    with options(webui, sd_model_checkpoint=title, **previews):
        yield FLOWS[part_of(title)]


def part_of(title: str) -> str | None:
    return next((part for part in FLOWS if part in title.lower()), None)


def chosen(webui: Any, loaded: str) -> str:
    titles = [loaded, *(model["title"] for model in webui.checkpoints())]
    named = [title for title in titles if part_of(title)]
    return named[0] if named else pytest.skip(f"no checkpoint of the WebUI is called {' or '.join(FLOWS)}")


def compared(webui: Any, picture: Any, **given: Any) -> dict[str, dict[str, Any]]:
    """What ran of a comparison of bicubic with several schedulers, by their names."""
    asked = {"compare": True, "method": "bicubic", "compare_schedulers": [*SCHEDULERS], **given}
    made = webui.ours(picture, asked)
    record = made.info["extra_generation_params"]["Latent upscale comparison"]["comparisons"][0]
    return {one["scheduler"]: one for one in record["variants"] if one["method"] == "bicubic"}


def test_all_steps_run_from_the_models_own_table(webui, picture, flow):
    ran = compared(webui, picture)
    assert {name: one["steps_run"] for name, one in ran.items()} == dict.fromkeys(SCHEDULERS, 3)
    assert {name: one["first_sigma"] for name, one in ran.items()} == pytest.approx(flow.first(), abs=1e-4)


def test_matched_noise_is_that_of_the_flow(webui, picture, flow):
    ran = compared(webui, picture, starting_noise="matched")
    assert [one["first_sigma"] for one in ran.values()] == pytest.approx([flow.sigma(0.5)] * len(SCHEDULERS), abs=1e-3)


@pytest.mark.parametrize("scheduler", SCHEDULES)
def test_every_scheduler_makes_a_picture(webui, picture, scheduler):
    result = webui.ours(picture, {"scheduler": scheduler, "starting_noise": "continuous"})
    assert result.pixels.std() > 5
    assert "note" not in result.infotext


def test_the_learned_methods_are_those_for_its_latents(webui, picture, flow):
    for method, kind in (("automatic", "restore"), ("learned-latent", "enlarge")):
        written = parameters(webui.ours(picture, {"method": method}).infotext)
        assert written["Latent upscale weights"] == weights_hash(kind, flow.latents)


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
    check_each_alone(partial(webui.ours, picture, {}))


def test_extra_noise_is_said_to_spoil_it(webui, picture):
    webui.need_options(["img2img_extra_noise"])
    result = webui.ours(picture, {}, override_settings={"img2img_extra_noise": 0.1})
    assert "Extra noise spoils pictures of flow-matching models" in result.infotext


def test_a_tile_model_is_refused(webui, picture):
    said = refused(webui.ours, picture, {"tile_controlnet": True}).message
    if "no ControlNet" in said:
        pytest.skip("the WebUI has no ControlNet")
    assert "no U-Net of Stable Diffusion" in said or "there is none yet" in said


def test_hires_fix(webui, own, flow):
    if own in SAME:
        expected = made(webui, own, **SIMPLE).pixels
        assert expected.std() > 5
        webui.same(made(webui, SAME[own], **SIMPLE).pixels, expected)
    written = parameters(made(webui, TITLE + "learned").infotext)
    assert written["Latent upscale weights"] == weights_hash("restore", flow.latents)


def test_the_host_goes_on_as_before(webui, picture):
    before = webui.warm(picture, **SIMPLE).pixels
    assert before.std() > 5
    webui.ours(picture, {}, seed=99)
    webui.same(webui.host(picture, **SIMPLE).pixels, before)
