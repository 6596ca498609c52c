"""The comparison and its slider in the browser, against a real WebUI."""

import io
import re
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from tests.live.browser import Accordion, Page

METHOD, SCHEDULER = "bislerp", "karras"


class ComparePage(Page):
    @property
    def thumbnails(self):
        return self.page.locator("#img2img_gallery .thumbnails button")

    @property
    def results(self) -> list[Image.Image]:
        addresses = self.thumbnails.locator("img").evaluate_all("found => found.map(image => image.src)")
        return [Image.open(io.BytesIO(self.page.request.get(address).body())) for address in addresses]

    @property
    def slider(self):
        return self.page.locator("#latent_upscale_slider")

    @property
    def range(self):
        return self.slider.get_by_role("slider")

    @property
    def stage(self):
        return self.slider.locator(".latent-upscale-stage")

    def side(self, name):
        return self.slider.get_by_label(f"{name} picture", exact=True)

    def chosen(self, name):
        return self.side(name).locator("option:checked").inner_text()

    def add(self, name: str, value: str) -> None:
        self.panel.locator(f"[id$=compare_{name}] input").click()
        self.page.locator("ul.options li:visible").filter(has_text=re.compile(f"^[ ✓]*{value} *$")).first.click()
        self.page.keyboard.press("Escape")

    @property
    def switch(self):
        """The checkbox in the accordion's head."""
        return self.panel.locator("[id$=latent_upscale_compare] > .label-wrap input[type=checkbox]:visible").first

    def tokens(self, name: str) -> list[str]:
        return [text.split()[0] for text in self.panel.locator(f"[id$=compare_{name}] .token").all_inner_texts()]

    def compare(self) -> None:
        self.choose("Script", "Latent Upscale")
        self.panel.locator("[id$=latent_upscale_compare] > .label-wrap:visible").click()  # opened, it is on
        self.add("methods", METHOD)
        self.add("schedulers", SCHEDULER)
        self.generate()
        self.slider.wait_for()

    def cut(self) -> float:
        """Where the right picture begins, in percent, as the browser lays it out."""
        box = self.stage.bounding_box()
        line = self.stage.locator("i").bounding_box()
        return (line["x"] + line["width"] / 2 - box["x"]) / box["width"] * 100

    def seen(self) -> np.ndarray:
        """The stage as it is on the screen."""
        return np.asarray(Image.open(io.BytesIO(self.stage.screenshot())).convert("RGB")).astype(int)

    def paste(self, infotext: str, *, compares: bool) -> None:
        """Paste and wait until the comparison is on, or off."""
        super().paste(infotext)
        Accordion(self, "compare").is_on(compares)


@pytest.fixture(scope="module")
def page(browser, webui, picture) -> Iterator[ComparePage]:
    """One page, on which a comparison has run."""
    tab = browser.new_page(viewport={"width": 1400, "height": 1800}, has_touch=True)
    tab.set_default_timeout(60_000)
    tab.errors = []
    tab.on("pageerror", lambda error: tab.errors.append(str(error)))
    page = ComparePage(tab, webui.url)
    page.prepare(picture, steps=4, seed=7)
    assert page.slider.count() == 0
    page.compare()
    yield page
    assert tab.errors == []
    tab.close()


def test_every_picture_comes_back(page):
    hosts = ["WebUI, latent upscale", "WebUI, Just resize"]
    names = ["Picture resized", *hosts, "Latent Upscale", f"{METHOD} + {SCHEDULER}"]
    assert page.side("Left").locator("option").all_inner_texts() == names
    assert [one.size for one in page.results[1:]] == [(page.edge, page.edge)] * 5
    assert "sharpness 1.00 (picture resized: 1)" in page.said
    assert "Latent upscale compare: True" in page.infotext


def test_the_default_is_left_and_ours_right(page):
    assert (page.chosen("Left"), page.chosen("Right")) == ("WebUI, latent upscale", "Latent Upscale")
    assert "bilinear + automatic" in page.slider.inner_text()
    assert re.search(r"automatic \(.+\) \+ simple, exact steps", page.slider.inner_text())


def test_the_line_follows_the_mouse(page):
    box = page.stage.bounding_box()
    for share in (0.25, 0.8):
        page.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.page.mouse.down()
        page.page.mouse.move(box["x"] + box["width"] * share, box["y"] + box["height"] / 2, steps=4)
        page.page.mouse.up()
        assert page.cut() == pytest.approx(share * 100, abs=1)
    page.page.mouse.move(box["x"], box["y"])
    assert page.cut() == pytest.approx(80, abs=1)


def test_the_line_follows_a_finger(page):
    page.stage.tap(position={"x": page.stage.bounding_box()["width"] * 0.3, "y": 40})
    assert page.cut() == pytest.approx(30, abs=1)


def test_the_line_follows_the_keyboard(page):
    page.range.focus()
    page.page.keyboard.press("Home")
    assert page.cut() == pytest.approx(0, abs=0.5)
    for _ in range(20):
        page.page.keyboard.press("ArrowRight")
    assert page.cut() == pytest.approx(10, abs=0.5)


def test_each_side_shows_its_picture(page):
    """At either end only one of them is seen; the browser enlarges each pixel of it."""
    results = dict(zip(page.side("Left").locator("option").all_inner_texts(), page.results[1:], strict=True))
    for key, name in (("Home", page.chosen("Right")), ("End", page.chosen("Left"))):
        page.range.focus()
        page.page.keyboard.press(key)
        seen = page.seen()
        side = seen.shape[0]
        centres = ((np.arange(page.edge) + 0.5) * side / page.edge).astype(int)
        inner = slice(page.edge // 5, page.edge * 4 // 5)  # beside names and line
        shown = seen[np.ix_(centres, centres)][inner, inner]
        assert np.abs(shown - np.asarray(results[name].convert("RGB")).astype(int)[inner, inner]).mean() < 6


def test_other_pictures_can_be_chosen_and_swapped(page):
    page.side("Left").select_option(label="Picture resized")
    page.side("Right").select_option(label=f"{METHOD} + {SCHEDULER}")
    assert "Lanczos, no model" in page.slider.inner_text()
    page.slider.get_by_role("button", name="Swap left and right").click()
    assert (page.chosen("Left"), page.chosen("Right")) == (f"{METHOD} + {SCHEDULER}", "Picture resized")


def test_difference(page):
    """The same picture on both sides is black; two pictures are not."""
    button = page.slider.get_by_role("button", name="Difference")
    page.side("Left").select_option(label="WebUI, latent upscale")
    page.side("Right").select_option(label="WebUI, latent upscale")
    button.click()
    middle = (slice(100, -100), slice(100, -100))
    assert page.seen()[middle].max() == 0
    page.side("Right").select_option(label="Picture resized")
    assert page.seen()[middle].mean() > 20
    button.click()
    assert page.seen()[middle].mean() > 20


def test_zoom(page):
    zoom = page.slider.locator("select").last
    ratio = page.page.evaluate("window.devicePixelRatio")
    for name, scale in (("100 %", 1), ("400 %", 4)):
        zoom.select_option(label=name)
        assert page.stage.bounding_box()["width"] == pytest.approx(page.edge * scale / ratio, abs=1)
    zoom.select_option(label="Fit")


def test_the_handle_is_where_the_line_is_at_any_zoom(page):
    page.page.set_viewport_size({"width": 900, "height": 1800})
    page.slider.locator("select").last.select_option(label="400 %")
    for value in ("25", "75"):
        page.range.fill(value)
        page.page.wait_for_timeout(500)  # a window that is still changing moves both
        thumb, line = page.range.bounding_box(), page.stage.locator("i").bounding_box()
        at = float(page.range.input_value())
        assert line["x"] == pytest.approx(thumb["x"] + thumb["width"] * at / 100, abs=10)
    page.slider.locator("select").last.select_option(label="Fit")
    page.page.set_viewport_size({"width": 1400, "height": 1800})


def test_a_picture_can_be_selected_in_the_gallery(page, webui, picture):
    """So its own parameters are shown, with which it can be made again alone."""
    page.side("Right").select_option(label=f"{METHOD} + {SCHEDULER}")
    page.slider.get_by_role("button", name="Select in gallery").last.click()
    page.page.locator("#html_info_img2img").get_by_text(f"Latent upscale method: {METHOD}").wait_for()
    assert "compare" not in page.infotext
    assert page.page.locator("#img2img_gallery .thumbnails .selected").count() == 1


def test_the_gallery_works_as_ever(page):
    assert page.thumbnails.count() == 6
    page.thumbnails.nth(2).click()
    page.page.locator("#html_info_img2img").get_by_text("Latent upscale scheduler: automatic").wait_for()
    page.page.locator("#img2img_gallery .preview img").first.click()
    page.page.locator("#lightboxModal").wait_for()
    page.page.keyboard.press("ArrowRight")
    page.page.wait_for_function("() => document.activeElement.id === 'lightboxModal'")  # the host's, a moment later
    page.page.wait_for_timeout(300)
    page.page.keyboard.press("Escape")
    page.page.locator("#lightboxModal").wait_for(state="hidden")
    assert page.page.evaluate("selected_gallery_index()") == 3


def test_it_can_be_folded(page):
    page.slider.locator("summary").click()
    page.stage.wait_for(state="hidden")
    page.slider.locator("summary").click()
    page.stage.wait_for()


def test_a_pasted_sheet_sets_the_comparison_and_a_pasted_picture_takes_it_away(page):
    page.thumbnails.first.click()
    page.page.locator("#html_info_img2img").get_by_text("Latent upscale compare: True").wait_for()
    sheet = page.infotext
    page.thumbnails.last.click()
    page.page.locator("#html_info_img2img").get_by_text(f"Latent upscale method: {METHOD}").wait_for()
    single = page.infotext
    page.add("methods", "area")
    page.paste(single, compares=False)
    assert page.labelled("Upscale method").input_value() == METHOD
    page.paste(sheet, compares=True)
    assert page.labelled("Upscale method").input_value() == "automatic"
    assert (page.tokens("methods"), page.tokens("schedulers")) == ([METHOD], [SCHEDULER])


def test_a_plain_generation_takes_the_slider_away_and_the_next_comparison_brings_it_back(page):
    before = page.thumbnails.locator("img").last.get_attribute("src")
    page.switch.uncheck()
    page.generate()
    page.slider.wait_for(state="hidden")
    page.switch.check()
    page.generate()
    page.slider.wait_for()
    assert page.stage.locator("img").first.get_attribute("src") != before
    assert page.chosen("Right") == "Latent Upscale"
