"""The accordion of the x4 upscaler in the browser, against a real WebUI that has one in its models."""

import numpy as np
import pytest

from tests.live.browser import Accordion, Page

PASTED = {
    "x4 prompt": "a lighthouse, at dusk",
    "x4 negative prompt": "fog",
    "x4 noise level": "100",
    "x4 guidance scale": "5.5",
    "x4 steps": "2",
    "x4 sampler": "Euler a",
    "x4 scheduler": "karras",
    "x4 seed": "12",
    "x4 tile size": "128",
    "x4 tile overlap": "16",
    "x4 decoder tile size": "64",
}
TEXT = (
    'x4 upscaler prompt: "a lighthouse, at dusk", x4 upscaler negative prompt: fog, x4 upscaler noise level: 100, '
    "x4 upscaler guidance scale: 5.5, x4 upscaler steps: 2, x4 upscaler sampler: Euler a, "
    "x4 upscaler scheduler: karras, x4 upscaler seed: 12, x4 upscaler colour guard: False, "
    "x4 upscaler tile size: 128, x4 upscaler tile overlap: 16, x4 upscaler decoder tile size: 64"
)
FIRST = (
    "a lighthouse\nSteps: 4, Sampler: Euler, CFG scale: 3, Seed: 9, Size: 128x128, Denoising strength: 0.4, "
    "Script: Latent Upscale, Latent upscale method: lanczos, Latent upscale scheduler: karras, "
    "Latent upscale exact steps: True, Latent upscale keep statistics: False, Latent upscale matched noise: False"
)


class X4Accordion(Accordion):
    def __init__(self, page: Page) -> None:
        super().__init__(page, "x4")

    def open(self) -> None:
        super().open("x4 steps")

    def number(self, label: str, value: float) -> None:
        field = self.page.labelled(label)
        field.fill(str(value))
        field.press("Tab")


@pytest.fixture
def accordion(page, x4_model) -> X4Accordion:
    return X4Accordion(page)


def test_a_picture_comes_out_four_times_larger(accordion, page, webui, picture, x4_model):
    accordion.open()
    accordion.number("x4 steps", 2)
    page.generate()
    assert page.results[-1].size == (4 * page.edge, 4 * page.edge)
    assert f"x4 upscaler model: {x4_model}, x4 upscaler noise level: 20" in page.infotext
    made = np.asarray(page.results[-1].convert("RGB")).astype(int)
    given = {"x4": True, "x4_steps": 2, "x4_model": x4_model}
    webui.same(made, page.over_api(webui, picture, given))


def test_a_pasted_infotext_sets_every_control_and_its_absence_switches_it_off(accordion, page, x4_model):
    text = f"{FIRST}, x4 upscaler model: {x4_model}, {TEXT}"
    page.paste(text)
    accordion.is_on(True)
    assert page.labelled("x4 model").input_value() == x4_model
    shown = {label: page.labelled(label).input_value() for label in PASTED}
    assert shown == PASTED
    assert not page.labelled("x4 colour guard").is_checked()
    page.generate()
    assert page.results[-1].size == (512, 512)
    assert text.split("Script: ")[1] in page.infotext
    size = [page.page.locator(f"#img2img_{side} input").first.input_value() for side in ("width", "height")]
    assert size == ["128", "128"]
    page.paste(FIRST)
    accordion.is_on(False)
    page.generate()
    assert page.results[-1].size == (128, 128)


def test_the_last_generation_is_pasted_with_its_pass(accordion, page):
    """The host keeps the text of the last generation, written before its pictures, for an empty prompt."""
    accordion.open()
    accordion.number("x4 steps", 3)
    page.generate()
    accordion.head.locator("input").uncheck()
    page.paste("")
    accordion.is_on(True)
    assert page.labelled("x4 steps").input_value() == "3"


def test_models_can_be_looked_for_again(accordion, page, x4_model):
    accordion.open()
    page.panel.locator("[id$=latent_upscale_x4_refresh]:visible").click()
    page.choose("x4 model", x4_model)
    assert page.labelled("x4 model").input_value() == x4_model


def test_what_is_wrong_is_said(accordion, page):
    accordion.open()
    accordion.number("x4 tile size", 32)
    accordion.number("x4 tile overlap", 64)
    page.generate()
    said = "x4 tile overlap is 64 and x4 tile size is 32; x4 tile overlap must not be larger than x4 tile size"
    assert said in page.said


def test_a_tile_that_is_too_small_cannot_be_chosen(accordion, page):
    accordion.open()
    accordion.number("x4 tile size", 8)
    if page.labelled("x4 tile size").input_value() not in {"0", "32"}:  # Gradio 4 leaves what was typed
        page.generate()
        assert "x4 tile size is 8" in page.said


def test_the_settings_page_names_folder_and_memory(page):
    section = page.settings()
    for label in ("Further x4 upscaler, or folder with x4 upscalers", "Keep the x4 upscaler in the computer's memory"):
        assert section.get_by_label(label).first.is_visible()
