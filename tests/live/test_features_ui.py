"""Features of the img2img tab that go on working with the script, in the browser, against a real WebUI."""

import io
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from tests.live.browser import SHOWN, Page
from tests.live.calls import MASKED, check_masked, need_whole_when_interrupted, options, square_mask

STYLE = "latent upscale live test"
ROUNDING = 2
"""Of 255: Forge's attention on a CPU ("sub quadratic") sums in parts whose size depends on the memory that is free."""


class FeaturePage(Page):
    """More of the tab."""

    def prompt(self, text: str) -> None:
        self.page.locator("#img2img_prompt textarea").fill(text)

    def mode(self, name: str) -> None:
        """One of the tabs over the picture."""
        self.page.locator("#mode_img2img .tab-nav button").filter(has_text=re.compile(f"^ *{name} *$")).click()

    def put(self, place: str, picture: Image.Image) -> None:
        buffer = io.BytesIO()
        infotext = PngImagePlugin.PngInfo()
        if "parameters" in picture.info:
            infotext.add_text("parameters", picture.info["parameters"])
        picture.save(buffer, "PNG", pnginfo=infotext)
        file = {"name": "picture.png", "mimeType": "image/png", "buffer": buffer.getvalue()}
        self.page.locator(f"#{place} input[type=file]").set_input_files([file])

    def menu(self, entry: str) -> None:
        """An entry of the menu that the right mouse button opens over "Generate" or, while that runs, "Interrupt"."""
        # In one go, because one of the two may take the place of the other at any moment.
        self.page.evaluate(
            """() => {
                const buttons = ['interrupt', 'generate'].map(name => document.getElementById(`img2img_${name}`));
                const button = buttons.find(one => one.offsetParent);
                button.scrollIntoView({block: 'center'});
                const place = button.getBoundingClientRect();
                const where = {clientX: place.x + 9, clientY: place.y + 9, bubbles: true, cancelable: true};
                button.dispatchEvent(new MouseEvent('contextmenu', where));
            }"""
        )
        self.page.locator("#context-menu").get_by_text(entry, exact=True).click()

    def close_popup(self) -> None:
        """Beside it: what closes it lies under the whole of it."""
        self.page.locator(".global-popup-close").click(position={"x": 9, "y": 9})

    def compare(self) -> None:
        self.panel.locator("[id$=latent_upscale_compare] > .label-wrap:visible").click()  # opened, it is on

    def start(self, webui: Any, step: int = 0) -> str:
        """Press the button and wait until so many steps have run; what was shown before."""
        before = self.page.evaluate(SHOWN)
        self.page.locator("#img2img_generate").click()
        self.page.locator("#img2img_interrupt").wait_for()
        state = {"job": "", "sampling_step": 0}
        while not state["job"] or state["sampling_step"] < step:
            self.page.wait_for_timeout(50)
            state = webui.call("/sdapi/v1/progress?skip_current_image=true")["state"]
        return before

    def end(self) -> None:
        """Wait until nothing runs."""
        for button in ("interrupting", "interrupt"):
            self.page.wait_for_selector(f"#img2img_{button}", state="hidden", timeout=300_000)

    def reload(self) -> None:
        self.page.wait_for_function("() => !document.querySelector('#img2img_script_container')", timeout=60_000)
        self.open_img2img()

    @property
    def pixels(self) -> np.ndarray:
        return np.asarray(self.results[-1].convert("RGB")).astype(int)


@pytest.fixture
def page(browser, webui, picture) -> Iterator[FeaturePage]:
    tab = browser.new_page(viewport={"width": 1400, "height": 1800})
    tab.set_default_timeout(60_000)
    page = FeaturePage(tab, webui.url)
    page.prepare(picture, steps=4, seed=7, cfg_scale=2, denoising_strength=0.5)
    page.prompt("a lighthouse")
    page.choose("Script", "Latent Upscale")
    yield page
    tab.close()


@pytest.fixture
def style(page) -> Iterator[str]:
    """A style that is made in the dialog of styles, and deleted there."""
    page.page.locator("#img2img_styles_edit_button").click()
    name = page.page.locator("#img2img_styles_edit_select input")
    name.fill(STYLE)
    name.press("Enter")
    page.page.locator("#img2img_edit_style_prompt textarea").fill("stormy {prompt}")
    buttons = page.page.locator("#img2img_styles_dialog")
    save, delete = (buttons.get_by_role("button", name=name, exact=True) for name in ("Save", "Delete"))
    save.click()
    delete.click(trial=True)
    page.close_popup()
    yield STYLE
    page.page.once("dialog", lambda dialog: dialog.accept())  # playwright says no by itself, and the style would stay
    page.page.locator("#img2img_styles_edit_button").click()
    delete.click()
    page.close_popup()


def test_a_style(page, webui, picture, style):
    page.number("img2img_cfg_scale", 15)  # a small model follows its prompt only a little
    page.page.locator("#img2img_styles input").click()
    page.page.locator("ul.options li:visible").filter(has_text=style).first.click()
    page.page.keyboard.press("Escape")
    page.generate()
    assert page.infotext.startswith("stormy a lighthouse\n")
    expected = page.over_api(webui, picture, prompt="stormy a lighthouse")
    assert np.abs(page.pixels - expected).max() <= ROUNDING
    named, without = (
        np.abs(page.over_api(webui, picture, **changes) - expected) for changes in ({"styles": [style]}, {})
    )
    assert named.max() <= ROUNDING
    assert named.mean() < without.mean()  # of a model that hardly follows its prompt, not by much


@pytest.mark.parametrize("compare", [False, True], ids=["alone", "comparing"])
def test_generate_forever(page, webui, picture, compare):
    before = webui.warm(picture).pixels
    page.number("img2img_seed", -1)
    if compare:
        page.compare()
    page.menu("Generate forever")
    seeds: set[str] = set()
    deadline = time.monotonic() + 300
    while len(seeds) < 3 and time.monotonic() < deadline:
        seeds |= set(re.findall(r"Seed: (\d+), .*Latent upscale method: ", page.infotext))
        page.page.wait_for_timeout(100)
    page.menu("Cancel generate forever")
    page.end()
    page.page.wait_for_timeout(1500)  # it would have begun again
    assert not page.page.locator("#img2img_interrupt").is_visible()
    assert len(seeds) >= 3
    last = re.search(r"Seed: (\d+)", page.infotext).group(1)
    webui.same(page.pixels, page.over_api(webui, picture, seed=int(last)))
    webui.same(webui.host(picture).pixels, before)


@pytest.mark.parametrize("compare", [False, True], ids=["alone", "comparing"])
@pytest.mark.parametrize("button", ["interrupt", "skip"])
def test_interrupt_and_skip(page, webui, picture, button, compare):
    before = webui.warm(picture).pixels
    for field, value in (("steps", 30), ("width", 256), ("height", 256), ("batch_count", 2)):
        page.number(f"img2img_{field}", value)
    if compare:
        page.compare()
    shown = page.start(webui, step=2)
    page.page.locator(f"#img2img_{button}").click()
    page.end()
    page.changed(shown)
    assert page.page.locator("#html_log_img2img .error").count() == 0
    webui.same(webui.host(picture).pixels, before)
    need_whole_when_interrupted(webui, picture, min((one.size for one in page.results), key=min))


def test_live_previews_show_while_it_runs(page, webui):
    for field, value in (("steps", 150), ("width", 256), ("height", 256)):
        page.number(f"img2img_{field}", value)
    wanted = {"live_previews_enable": True, "show_progress_every_n_steps": 1, "show_progress_type": "Approx cheap"}
    with options(webui, **wanted, live_preview_refresh_period=100):
        page.start(webui)
        preview = page.page.locator("#img2img_gallery_container .livePreview img, .livePreview img").first
        try:
            preview.wait_for(timeout=60_000)
            width, height = preview.evaluate("image => [image.naturalWidth, image.naturalHeight]")
        finally:
            page.page.locator("#img2img_interrupt").click()
            page.end()
    assert width == height >= 32


def test_png_info_sends_every_setting(page, webui, picture):
    asked = {"method": "lanczos", "scheduler": "karras", "exact_steps": False, "keep_statistics": True}
    made = webui.ours(picture, asked, steps=5, seed=9, width=160, height=96).pictures[0]
    page.tab("PNG Info")
    page.put("pnginfo_image", made)
    page.page.locator("#tab_pnginfo").get_by_text("Latent upscale method: lanczos").first.wait_for()
    page.page.locator("#tab_pnginfo #img2img_tab").click()
    page.page.wait_for_function(
        "() => [...document.querySelectorAll('#img2img_script_container input')].some(one => one.value === 'lanczos')"
    )
    page.tab("img2img")
    page.generate()
    assert page.infotext.split("Script: ")[1].split(", Version")[0] in made.info["parameters"]
    again = webui.ours(made, asked, steps=5, seed=9, width=160, height=96).pixels
    webui.same(page.pixels, again)


def test_a_result_is_sent_to_img2img(page, webui, picture):
    """The host sends the picture alone; what is set stays, and the next generation enlarges the result."""
    page.choose("Upscale method", "bislerp")
    page.generate()
    first = page.results[-1].convert("RGB")
    before = page.page.locator("#img2img_image img").first.get_attribute("src")
    page.page.locator("#img2img_send_to_img2img").click()
    page.page.wait_for_function(
        "before => (document.querySelector('#img2img_image img')?.src ?? before) !== before", arg=before
    )
    page.page.wait_for_timeout(2000)  # the host sends the size, too, and Forge does it a moment later
    larger = {"width": page.edge * 3 // 2, "height": page.edge * 3 // 2}
    for field, value in larger.items():
        page.number(f"img2img_{field}", value)
    page.generate()
    assert page.labelled("Upscale method").input_value() == "bislerp"
    expected = page.over_api(webui, first, ["bislerp"], **larger)
    assert np.abs(page.pixels - expected).max() <= ROUNDING


def test_defaults_from_the_settings_page(page, webui, picture):
    info = next(one for one in webui.call("/sdapi/v1/script-info") if one["name"] == "latent upscale")
    kept = {"latent_upscale_method": info["args"][0]["value"], "latent_upscale_exact_steps": info["args"][2]["value"]}
    section = page.settings()
    section.get_by_label("Default upscale method").first.click()
    page.page.locator("ul.options li:visible").filter(has_text=re.compile("^[ ✓]*lanczos *$")).first.click()
    section.get_by_label("Exact steps by default").uncheck()
    try:
        page.page.locator("#settings_submit").click()
        page.page.locator("#settings_result").get_by_text(re.compile("settings? changed")).wait_for(timeout=60_000)
        page.settle()
        page.page.locator("#settings_restart_gradio").click()
        page.reload()
        page.choose("Script", "Latent Upscale")
        assert page.labelled("Upscale method").input_value() == "lanczos"
        assert not page.labelled("Exact steps").is_checked()
        assert page.labelled("Scheduler").input_value() == "simple"
        written = webui.ours(picture, {}).infotext
        assert "Latent upscale method: lanczos" in written
        assert "Latent upscale exact steps: False" in written
    finally:
        webui.call("/sdapi/v1/options", kept)
        page.settle()
        page.page.get_by_role("link", name="Reload UI").click()
        page.reload()


@pytest.mark.parametrize("area", ["Whole picture", "Only masked"])
@pytest.mark.parametrize("inverted", [False, True], ids=["masked", "not masked"])
def test_inpaint_upload(page, webui, picture, area, inverted):
    mask = square_mask((64, 64), MASKED)
    page.mode("Inpaint upload")
    page.put("img_inpaint_base", picture)
    page.put("img_inpaint_mask", ImageOps.invert(mask) if inverted else mask)
    page.page.wait_for_selector("#img_inpaint_base img")
    page.page.wait_for_selector("#img_inpaint_mask img")
    page.pick("img2img_inpaint_full_res", area)
    page.pick("img2img_mask_mode", "Inpaint not masked" if inverted else "Inpaint masked")
    page.number("img2img_denoising_strength", 0.9)
    page.number("img2img_mask_blur", 1)
    page.generate()
    check_masked(page.pixels, picture, (page.edge, page.edge), MASKED, fade=4)


@pytest.mark.parametrize("area", ["Whole picture", "Only masked"])
def test_the_batch_tab_with_masks(page, webui, picture, area, tmp_path):
    """Folders can be named only where the WebUI runs on this machine."""
    if not Path(webui.checkpoints()[0]["filename"]).is_file():
        pytest.skip("the WebUI is not on this machine")
    sources = {"one": picture, "two": ImageOps.flip(picture)}
    for folder in ("in", "masks", "out"):
        (tmp_path / folder).mkdir()
    for name, source in sources.items():
        source.save(tmp_path / "in" / f"{name}.png")
        square_mask((64, 64), MASKED).save(tmp_path / "masks" / f"{name}.png")
    page.mode("Inpaint upload")  # the Batch tab uses the area that is chosen there
    page.pick("img2img_inpaint_full_res", area)
    page.mode("Batch")
    source = page.page.locator("#img2img_batch_source .tab-nav button").filter(has_text="From directory")
    if source.count():  # reForge has nothing else
        source.click()
    for field, folder in (("input", "in"), ("output", "out"), ("inpaint_mask", "masks")):
        page.page.locator(f"#img2img_batch_{field}_dir textarea").fill(str(tmp_path / folder))
    page.number("img2img_denoising_strength", 0.9)
    page.page.wait_for_timeout(2000)  # the host learns of the tab by an event, which must not come after the button's
    page.generate()
    page.end()
    files = sorted((tmp_path / "out").rglob("*.png"))  # with the pictures' names or, in Forge, with numbers
    for file, source in zip(files, sources.values(), strict=True):
        made = np.asarray(Image.open(file).convert("RGB")).astype(int)
        check_masked(made, source, (page.edge, page.edge), MASKED, fade=16)


def test_a_sampler_that_ignores_sigmas_is_said_below_the_result(page):
    page.choose("Scheduler", "karras")
    page.sampler("DDIM")
    page.generate()
    assert "DDIM ignores sigmas; its own timesteps ran instead of karras" in page.said


def test_batch_count_and_size(page, webui, picture):
    page.number("img2img_batch_count", 2)
    page.number("img2img_batch_size", 2)
    page.generate()
    for seed, made in zip(range(7, 11), page.results[-4:], strict=True):
        pixels = np.asarray(made.convert("RGB")).astype(int)
        assert np.abs(pixels - page.over_api(webui, picture, seed=seed)).max() <= 1
