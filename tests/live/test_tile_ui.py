"""The accordion of tile ControlNet in the browser, against a real WebUI with a ControlNet and a tile model."""

import re
from typing import Any

import numpy as np
import pytest

from lib_latent_upscale.settings import AUTOMATIC
from lib_latent_upscale.tile_settings import TileSettings
from tests.live.browser import ENTRIES, Accordion, Page
from tests.live.calls import TILE_FAST, control_file, tile

PASTED = {
    "Tile weight": "0.65",
    "Tile start": "0.1",
    "Tile end": "0.9",
    "Tile preprocessor": "tile_colorfix",
    "Tile control mode": "Balanced",
    "Second pass denoising strength": "0.35",
    "Second pass steps": "1",
    "Second pass scheduler": "karras",
}
TEXT = (
    "Tile ControlNet weight: 0.65, Tile ControlNet start: 0.1, Tile ControlNet end: 0.9, "
    "Tile ControlNet preprocessor: tile_colorfix, Tile ControlNet control mode: Balanced, "
    "Tile ControlNet second pass: True, Tile ControlNet second denoising strength: 0.35, "
    "Tile ControlNet second steps: 1, Tile ControlNet second scheduler: karras"
)
FIRST = (
    "a lighthouse\nSteps: 1, Sampler: Euler, CFG scale: 1, Seed: 9, Size: 128x128, Denoising strength: 0.4, "
    "Script: Latent Upscale, Latent upscale method: lanczos, Latent upscale scheduler: karras, "
    "Latent upscale exact steps: True, Latent upscale keep statistics: False, Latent upscale matched noise: False"
)


class TileAccordion(Accordion):
    def __init__(self, page: Page) -> None:
        super().__init__(page, "tile")
        page.number("img2img_steps", TILE_FAST["steps"])
        page.number("img2img_cfg_scale", TILE_FAST["cfg_scale"])

    def open(self) -> None:
        super().open("Tile weight")

    @property
    def offered(self) -> list[str]:
        self.page.labelled("Tile model").click()
        shown = self.page.page.locator(ENTRIES)
        shown.first.wait_for()
        names = [re.sub(r"^[ ✓\n]*", "", text).strip() for text in shown.all_inner_texts()]
        self.page.page.keyboard.press("Tab")
        shown.first.wait_for(state="hidden")
        return names

    def refresh(self, wanted: str) -> None:
        """Look for models again, until this one is offered."""
        self.page.panel.locator("[id$=latent_upscale_tile_refresh]:visible").click()
        for _ in range(20):
            if wanted in self.offered:
                return
            self.page.page.wait_for_timeout(300)
        pytest.fail(f"{wanted} is not offered: {self.offered}")

    @property
    def error(self) -> str:
        return self.page.said


class Unit:
    """The first unit in ControlNet's own panel."""

    NUMBERS = ("control_weight_slider", "ending_control_step_slider")

    def __init__(self, page: Page) -> None:
        self.page = page

    def _input(self, name: str, kind: str = "") -> Any:
        return self.page.page.locator(f"[id^=img2img_controlnet][id$='-0_controlnet_{name}'] input{kind}").first

    @property
    def switch(self) -> Any:
        """Its checkbox, or that in the head of its accordion (ersatzForge)."""
        own = self._input("enable_checkbox")
        return own if own.count() else self.page.page.locator("#img2img_controlnet .input-accordion-checkbox").first

    @property
    def _numbers(self) -> list[Any]:
        """Forge and its forks have one slider for both ends, which is not among them."""
        inputs = [self._input(name, "[type=number]") for name in self.NUMBERS]
        return [one for one in inputs if one.count()]

    def set_up(self, model: str) -> None:
        self.page.page.locator("#img2img_controlnet #controlnet > .label-wrap").first.click()
        self.switch.check()
        self._input("model_dropdown").click()
        self.page.page.locator(ENTRIES).filter(has_text=model).first.click()
        for field, value in zip(self._numbers, ("0.6", "0.9"), strict=False):
            field.fill(value)
            field.press("Tab")

    @property
    def values(self) -> list[Any]:
        fields = [self._input("model_dropdown"), *self._numbers]
        return [self.switch.is_checked(), *(field.input_value() for field in fields)]


@pytest.fixture
def accordion(page, tile_model) -> TileAccordion:
    return TileAccordion(page)


def pixels(shown: Any) -> Any:
    return np.asarray(shown.convert("RGB")).astype(int)


def test_a_picture_with_the_chosen_model_comes_out(accordion, page, webui, picture, tile_model):
    accordion.open()
    page.choose("Tile model", tile_model)
    page.generate()
    assert page.results[-1].size == (page.edge, page.edge)
    assert f"{TileSettings.MODEL_LABEL}: {tile_model}, Tile ControlNet weight: 1" in page.infotext
    made = pixels(page.results[-1])
    webui.same(made, page.over_api(webui, picture, tile()))
    assert np.abs(made - page.over_api(webui, picture, {})).mean() > 0.1


def test_fitting_models_are_offered_and_looked_for_again(accordion, put_tile, tile_model):
    accordion.open()
    known = accordion.offered
    assert known[:2] == [AUTOMATIC, tile_model]
    put_tile("just_now_tile")
    put_tile("other_family_tile", control_file(2048))
    put_tile("damaged_tile", control_file(768)[:-1000])
    assert accordion.offered == known
    accordion.refresh("just_now_tile")
    assert sorted(accordion.offered) == sorted([*known, "just_now_tile"])


def test_controls_of_the_second_pass_appear_when_it_is_on(accordion, page):
    accordion.open()
    steps = page.all_labelled("Second pass steps")
    assert steps.count() == 0
    page.labelled("Tile ControlNet as a second pass").check()
    page.labelled("Second pass steps").wait_for()
    page.labelled("Tile ControlNet as a second pass").uncheck()
    steps.first.wait_for(state="hidden")


def test_a_pasted_infotext_sets_every_control_and_its_absence_switches_it_off(accordion, page, tile_model):
    text = f"{FIRST}, {TileSettings.MODEL_LABEL}: {tile_model}, {TEXT}"
    page.paste(text)
    accordion.is_on(True)
    page.labelled("Second pass steps").wait_for()
    assert page.labelled("Tile model").input_value() == tile_model
    shown = {label: page.labelled(label).input_value() for label in PASTED}
    assert shown == PASTED
    assert page.labelled("Tile ControlNet as a second pass").is_checked()
    page.generate()
    assert page.results[-1].size == (128, 128)
    assert text.split("Script: ")[1] in page.infotext
    page.paste(FIRST)
    accordion.is_on(False)
    page.generate()
    assert TileSettings.MODEL_LABEL not in page.infotext


def test_the_last_generation_is_pasted_with_its_pass(accordion, page):
    """The host keeps the text of the last generation, written before its pictures, for an empty prompt."""
    accordion.open()
    page.labelled("Tile weight").fill("0.45")
    page.labelled("Tile weight").press("Tab")
    page.generate()
    accordion.head.locator("input").uncheck()
    page.paste("")
    accordion.is_on(True)
    assert page.labelled("Tile weight").input_value() == "0.45"
    assert not Unit(page).switch.is_checked()


def test_a_unit_of_the_user_works_beside_it_and_keeps_its_values(accordion, page, webui, picture, tile_model):
    unit = Unit(page)
    unit.set_up(tile_model)
    before = unit.values
    assert before[0]
    assert before[1].startswith(tile_model)
    assert before[2:] in (["0.6", "0.9"], ["0.6"])
    page.choose("Script", "Latent Upscale")
    page.generate()
    alone = pixels(page.results[0])
    accordion.open()
    page.generate()
    both = pixels(page.results[0])
    assert unit.values == before
    assert "ControlNet 0: " in page.infotext
    assert "ControlNet 1: " not in page.infotext
    accordion.head.locator("input").uncheck()
    page.generate()
    webui.same(pixels(page.results[0]), alone)
    others = [page.over_api(webui, picture, given) for given in ({}, tile())]
    for other in (alone, *others):
        assert np.abs(both - other).mean() > 0.1


def test_it_counts_in_an_xyz_plot(accordion, page, webui, picture):
    accordion.open()
    page.choose("Script", "X/Y/Z plot")
    page.choose("X type", "[Latent Upscale] Method")
    page.panel.locator("#xyz_grid_fill_x_tool_button").click()
    page.panel.locator(".token").first.wait_for()
    while page.panel.locator(".token").count() > 2:
        page.panel.locator(".token .token-remove").last.click()
    page.labelled("Include Sub Images").check()
    page.generate()
    texts = {result.info["parameters"]: result for result in page.results if result.size == (page.edge, page.edge)}
    cells = {re.search("Latent upscale method: ([^,]+)", text).group(1): cell for text, cell in texts.items()}
    assert len(cells) == 2
    assert all(TileSettings.MODEL_LABEL in text for text in texts)
    for method, cell in cells.items():
        webui.same(pixels(cell), page.over_api(webui, picture, {"method": method, **tile()}))


class TestWhatIsWrongIsSaid:
    def test_a_wrong_value(self, accordion, page):
        accordion.open()
        page.labelled("Tile start").fill("1")
        page.labelled("Tile start").press("Tab")
        page.generate()
        assert "Tile start must be smaller than Tile end" in accordion.error

    def test_a_pasted_model_that_is_not_here(self, accordion, page, tile_model):
        page.paste(f"{FIRST}, {TileSettings.MODEL_LABEL}: somebodys_tile, {TEXT}")
        accordion.is_on(True)
        page.generate()
        assert f"Tile model is 'somebodys_tile'; choose one of: {tile_model}" in accordion.error
        assert "Put tile models" in accordion.error

    def test_a_model_that_has_gone(self, accordion, page, put_tile):
        accordion.open()
        file = put_tile("gone_tile")
        accordion.refresh(file.stem)
        page.choose("Tile model", file.stem)
        file.unlink()
        page.generate()
        assert "gone_tile" in accordion.error
        assert "No such file" in accordion.error

    def test_a_model_that_controlnet_cannot_load(self, accordion, page, strange_tile):
        accordion.open()
        accordion.refresh(strange_tile.stem)
        page.choose("Tile model", strange_tile.stem)
        page.generate()
        assert "ControlNet has not taken the tile unit with a_strange_tile" in accordion.error
