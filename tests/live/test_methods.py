"""Methods that are no interpolation of latents, and the noise that a start gets, against a real WebUI."""

from functools import partial
from typing import Any, ClassVar

import pytest

from lib_latent_upscale.settings import UpscaleSettings
from tests.live.calls import MASK_CHANGES, MASKED, check_each_alone, check_masked, parameters, square_mask

JUST_RESIZE = {"method": "pixels", "scheduler": "automatic", "exact_steps": False}
LEARNED = ("learned", "learned-latent")
WEIGHTS = "Latent upscale weights"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"sampler_name": "DPM++ 2M", "scheduler": "Karras"},
        {"width": 64, "height": 192, "denoising_strength": 0.9},
        {"resize_mode": 1, "width": 192},
        {"override_settings": {"img2img_fix_steps": True}},
    ],
    ids=str,
)
def test_pixels_with_the_hosts_settings_is_just_resize(webui, picture, changes):
    """For a crop, crop and resize."""
    own = webui.warm(picture, **{"resize_mode": 0, **changes}).pixels
    webui.same(webui.ours(picture, JUST_RESIZE, **changes).pixels, own)


@pytest.mark.parametrize("method", ["pixels", *LEARNED])
class TestEachMethod:
    def test_the_same_call_gives_the_same_picture(self, webui, picture, wide_picture, method):
        first = webui.ours(picture, {"method": method})
        webui.ours(wide_picture, {"method": method}, seed=3, width=192)
        again = webui.ours(picture, {"method": method})
        webui.same(again.pixels, first.pixels)
        assert again.infotext == first.infotext

    def test_it_is_a_picture_of_its_own(self, webui, picture, method):
        made = webui.ours(picture, {"method": method}).pixels
        assert made.std() > 5
        for other in ({"pixels", *LEARNED} - {method}) | {"nearest-exact"}:
            assert (webui.ours(picture, {"method": other}).pixels != made).any(), other

    @pytest.mark.parametrize("size", [(100, 92), (200, 128), (64, 64)])
    def test_any_size_comes_out_exactly(self, webui, picture, method, size):
        made = webui.ours(picture, {"method": method}, width=size[0], height=size[1])
        assert made.pictures[0].size == size

    def test_each_picture_of_a_batch_can_be_made_alone(self, webui, picture, method):
        check_each_alone(partial(webui.ours, picture, {"method": method}))

    @pytest.mark.parametrize("full_res", [False, True], ids=["whole picture", "only masked"])
    def test_masks(self, webui, picture, method, full_res):
        changes = {**MASK_CHANGES, "inpaint_full_res": full_res}
        made = webui.ours(picture, {"method": method}, mask=square_mask((64, 64), MASKED), **changes).pixels
        check_masked(made, picture, (128, 128), MASKED)

    def test_the_infotext_names_the_weights(self, webui, picture, method):
        written = parameters(webui.ours(picture, {"method": method}).infotext)
        assert written["Latent upscale method"] == method
        assert (WEIGHTS in written) == (method in LEARNED)

    def test_the_host_goes_on_as_before(self, webui, picture, method):
        before = webui.warm(picture).pixels
        webui.ours(picture, {"method": method}, seed=99)
        webui.same(webui.host(picture).pixels, before)


class TestStartingNoise:
    changes: ClassVar = {"steps": 3, "denoising_strength": 0.4}

    def made(self, webui: Any, picture: Any, start: str, scheduler: str) -> Any:
        return webui.ours(picture, {"starting_noise": start, "scheduler": scheduler}, **self.changes)

    @pytest.mark.parametrize("start", ["continuous", "matched"])
    def test_it_is_written_and_read(self, webui, picture, start):
        made = self.made(webui, picture, start, "karras")
        read = UpscaleSettings.from_infotext(parameters(made.infotext))
        assert (read.starting_noise, read.scheduler) == (start, "karras")
        assert (made.pixels != self.made(webui, picture, "schedule", "karras").pixels).any()

    def test_as_it_was_it_is_not_written(self, webui, picture):
        assert "starting noise" not in self.made(webui, picture, "schedule", "karras").infotext

    def test_matched_starts_every_scheduler_at_one_sigma(self, webui, picture):
        asked = {"compare": True, "starting_noise": "matched", "compare_schedulers": ["karras", "exponential", "beta"]}
        result = webui.ours(picture, asked, **self.changes)
        record = result.info["extra_generation_params"]["Latent upscale comparison"]["comparisons"][0]
        starts = [one["first_sigma"] for one in record["variants"] if one.get("starting_noise") == "matched"]
        assert len(starts) >= 4
        assert starts == pytest.approx(starts[:1] * len(starts), rel=1e-5)
