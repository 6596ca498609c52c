"""Method automatic in the WebUI: what ran is what the infotext says, so that the picture can be made again."""

from types import SimpleNamespace

import pytest
import torch

SD1, SDXL = SimpleNamespace(is_sd1=True), SimpleNamespace(is_sdxl=True)


@pytest.mark.parametrize(
    ("model", "strength", "size", "ran"),
    [
        (SD1, 0.7, 128, "learned"),
        (SDXL, 0.3, 128, "learned"),
        (SD1, 0.7, 64, "pixels"),
        (SimpleNamespace(), 0.3, 128, "pixels"),
        (SimpleNamespace(), 0.9, 128, "pixels"),
    ],
)
def test_what_a_call_without_a_method_ran_stands_in_the_infotext_and_makes_the_same_picture(
    webui, picture, model, strength, size, ran
):
    values = {"sd_model": model, "denoising_strength": strength, "width": size, "height": size}
    first = webui.run(webui.process(picture, **values), {})
    written = first.infotexts[0]
    assert written["Latent upscale method"] == ran
    assert ("Latent upscale weights" in written) == (ran == "learned")
    again = webui.run(webui.process(picture, **values), {"method": written["Latent upscale method"]})
    assert torch.equal(first.latents[0], again.latents[0])
    assert again.infotexts[0] == written


def test_a_checkpoint_that_is_loaded_late_counts(webui, picture):
    p = webui.process(picture, sd_model=SimpleNamespace(), denoising_strength=0.3)
    processing = webui.modules["modules.processing"]
    processing.ways = type(processing.ways)(loads=lambda: setattr(p, "sd_model", SD1))
    assert webui.run(p, {"method": "automatic"}).infotexts[0]["Latent upscale method"] == "learned"


def test_a_processing_object_that_is_used_again_chooses_again(webui, picture):
    """The Batch tab and scripts that loop."""
    p = webui.process(picture, sd_model=SD1)
    first = webui.run(p, {"method": "automatic"}).infotexts[0]
    p.sd_model, p.denoising_strength, p.script_args = SimpleNamespace(), 0.9, list(webui.arguments)
    second = webui.run(p, {"method": "automatic"}).infotexts[0]
    assert first["Latent upscale method"] == "learned"
    assert second["Latent upscale method"] == "pixels"
    assert "Latent upscale weights" not in second


def test_it_is_in_the_menu_and_on_the_axis(webui):
    menu = next(one for one in webui.script.ui(True) if one.label == "Upscale method")
    assert "automatic" in menu.choices
    (axis,) = [axis for axis in webui.axes if axis.label == "[Latent Upscale] Method"]
    assert "automatic" in axis.choices()
