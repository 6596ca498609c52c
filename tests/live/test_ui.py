"""What a person does in the browser, against a real WebUI, with playwright and chromium."""

import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lib_latent_upscale.catalogue import CATALOGUE
from lib_latent_upscale.options import rows

SETTINGS = {"Upscale method": "lanczos", "Scheduler": "karras", "Exact steps": False, "Keep statistics": True}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser tests need playwright")
    with playwright.sync_playwright() as running:
        try:
            browser = running.chromium.launch(
                executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=["--no-sandbox"]
            )
        except playwright.Error as error:
            pytest.skip(f"no chromium: {error}; name it in CHROMIUM")
        yield browser
        browser.close()


class Page:
    """The img2img tab, for people: by labels."""

    def __init__(self, page: Any, url: str) -> None:
        self.page = page
        self._queued: list[Any] = []
        # playwright marks its handler, which the method of a list does not allow
        page.on("websocket", lambda socket: self._queued.append(socket))  # noqa: PLW0108
        page.goto(url)
        self.open_img2img()

    @property
    def panel(self) -> Any:
        return self.page.locator("#img2img_script_container")

    def tab(self, name: str) -> None:
        self.page.locator("#tabs > .tab-nav button").filter(
            has_text=re.compile(f"^ *{name} *$", re.IGNORECASE)
        ).first.click()

    def open_img2img(self) -> None:
        self.page.wait_for_selector("#img2img_script_container #script_list input", state="attached", timeout=60_000)
        # Forge sets sizes and samplers of both tabs once more after the page has come.
        self.page.wait_for_function(
            """() => {
                const height = opts[`${opts.forge_preset}_t2i_height`];
                const shown = document.querySelector('#txt2img_height input[type=number]').value;
                return Object.keys(opts).length > 0 && (!height || Number(shown) === height);
            }""",
            timeout=60_000,
        )
        self.tab("img2img")

    def settle(self) -> None:
        """Wait for what the host queues when its page has come; restarts of gradio 3 have hung that did not."""
        self.page.wait_for_load_state("networkidle")
        while not all(socket.is_closed() for socket in self._queued):
            self.page.wait_for_timeout(100)

    def labelled(self, label: str) -> Any:
        return self.panel.get_by_label(label, exact=True).locator("visible=true").first

    def choose(self, label: str, value: str) -> None:
        self.labelled(label).click()
        option = self.page.locator("ul.options li:visible, ul[role=listbox] li:visible")
        option.filter(has_text=re.compile(f"^[ ✓]*{re.escape(value)} *$")).first.click()

    def number(self, elem_id: str, value: float) -> None:
        field = self.page.locator(f"#{elem_id} input[type=number]").first
        field.fill(str(value))
        field.press("Tab")

    def upload(self, picture: Image.Image) -> None:
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        files = [{"name": "small.png", "mimeType": "image/png", "buffer": buffer.getvalue()}]
        self.page.locator("#img2img_image input[type=file]").set_input_files(files)
        self.page.wait_for_selector("#img2img_image img")

    def paste(self, infotext: str) -> None:
        self.page.locator("#img2img_prompt textarea").fill(infotext)
        self.page.locator("#img2img_tools #paste, #img2img_tools button").first.click()

    def generate(self) -> None:
        """Press the button and wait until other pictures, or an error, are there."""
        shown = """() => [...document.querySelectorAll('#img2img_gallery img')].map(image => image.src).join()
            + (document.querySelector('#html_log_img2img :is(.error, .comments)')?.innerText ?? '')"""
        before = self.page.evaluate(shown)
        self.page.locator("#img2img_generate").click()
        self.page.wait_for_function(f"before => ({shown})() !== before", arg=before, timeout=120_000)
        self.page.wait_for_selector("#img2img_interrupt", state="hidden", timeout=120_000)

    @property
    def infotext(self) -> str:
        return self.page.locator("#html_info_img2img").last.inner_text()

    @property
    def results(self) -> list[Image.Image]:
        sources = self.page.locator("#img2img_gallery .thumbnails img, #img2img_gallery .grid-container img")
        addresses = sources.evaluate_all("found => found.map(image => image.src)")
        addresses = addresses or [self.page.locator("#img2img_gallery img").first.get_attribute("src")]
        return [Image.open(io.BytesIO(self.page.request.get(address).body())) for address in addresses]

    @property
    def drawing(self) -> str:
        return self.panel.locator("svg[aria-label^=Sigmas]").inner_html()

    def drawn(self, text: str) -> None:
        self.panel.locator("svg[aria-label^=Sigmas] text").filter(has_text=text).first.wait_for(timeout=20_000)


class Accordion:
    """An accordion of the script's panel with a checkbox in its head."""

    def __init__(self, page: Page, name: str) -> None:
        self.page = page
        self.name = name
        self.head = page.panel.locator(f"[id$=latent_upscale_{name}] > .label-wrap:visible")

    def open(self, control: str) -> None:
        """Switch it on, and wait for one of its controls."""
        self.page.choose("Script", "Latent Upscale")
        self.head.click()  # opened, it is on
        self.page.labelled(control).wait_for()

    def is_on(self, wanted: bool) -> None:
        self.page.page.wait_for_function(
            "([name, wanted]) => [...document.querySelectorAll(`[id$=latent_upscale_${name}] > .label-wrap input`)]"
            ".some(box => box.offsetParent && box.checked === wanted)",
            arg=[self.name, wanted],
        )


@pytest.fixture
def page(browser, webui, picture) -> Iterator[Page]:
    tab = browser.new_page(viewport={"width": 1400, "height": 1800})
    tab.set_default_timeout(15_000)
    page = Page(tab, webui.url)
    page.upload(picture)
    page.number("img2img_width", 128)
    page.number("img2img_height", 128)
    page.number("img2img_steps", 4)
    page.number("img2img_seed", 7)
    yield page
    tab.close()


def test_pick_the_script_and_generate(page, webui, picture):
    page.choose("Script", "Latent Upscale")
    assert page.labelled("Upscale method").input_value() == "nearest-exact"
    assert page.labelled("Scheduler").input_value() == "simple"
    page.generate()
    assert "Latent upscale method: nearest-exact, Latent upscale scheduler: simple" in page.infotext
    assert page.results[-1].size == (128, 128)
    sampler = re.search(r"Sampler: ([^,]+)", page.infotext).group(1)
    changes = {"sampler_name": sampler, "steps": 4, "cfg_scale": 7, "denoising_strength": 0.75, "prompt": ""}
    made = np.asarray(page.results[-1].convert("RGB")).astype(int)
    np.testing.assert_array_equal(made, webui.ours(picture, **changes).pixels)


def test_a_pasted_infotext_sets_every_control(page):
    infotext = (
        "a lighthouse\nSteps: 5, Sampler: Euler, CFG scale: 3, Seed: 9, Size: 128x128, Denoising strength: 0.4, "
        "Script: Latent Upscale, Latent upscale method: lanczos, Latent upscale scheduler: karras, "
        "Latent upscale exact steps: False, Latent upscale keep statistics: True, Latent upscale matched noise: True"
    )
    page.paste(infotext)
    page.labelled("Upscale method").wait_for()
    assert page.labelled("Script").input_value() == "Latent Upscale"
    assert page.labelled("Upscale method").input_value() == "lanczos"
    assert page.labelled("Scheduler").input_value() == "karras"
    switches = [page.labelled(label).is_checked() for label in ("Exact steps", "Keep statistics", "Matched noise")]
    assert switches == [False, True, True]
    page.generate()
    written = page.infotext
    assert infotext.split("Script: ")[1] in written
    page.page.locator("#img2img_prompt textarea").fill("")
    page.generate()
    assert "Latent upscale method: lanczos" in page.infotext


def test_the_drawing_follows_the_controls(page):
    page.choose("Script", "Latent Upscale")
    page.drawn("Latent Upscale: simple, 4 of 5 steps run")
    page.number("img2img_steps", 6)
    page.drawn("Latent Upscale: simple, 6 of 8 steps run")
    page.drawn("5 of 6 steps run")  # what the host would run by default
    page.number("img2img_denoising_strength", 0.3)
    page.drawn("Latent Upscale: simple, 6 of 20 steps run")
    page.choose("Scheduler", "exponential")
    page.drawn("Latent Upscale: exponential, 6 of 20 steps run")
    page.labelled("Exact steps").uncheck()
    page.drawn("Latent Upscale: exponential, 2 of 6 steps run")


def test_an_xyz_grid(page):
    page.choose("Script", "X/Y/Z plot")
    page.choose("X type", "[Latent Upscale] Method")
    page.panel.locator("#xyz_grid_fill_x_tool_button").click()
    tokens = page.panel.locator(".token")
    tokens.first.wait_for()
    assert "nearest-exact" in " ".join(tokens.all_inner_texts())
    page.generate()
    grid = next(result for result in page.results if result.width >= 9 * 128)
    assert "Script: X/Y/Z plot" in grid.info["parameters"]
    assert "X Type: [Latent Upscale] Method" in grid.info["parameters"]


def test_a_wrong_value_is_said(page):
    page.choose("Script", "Latent Upscale")
    page.number("img2img_denoising_strength", 0.01)
    page.page.get_by_label("Sampling method", exact=True).locator("visible=true").first.click()
    page.page.locator("ul.options li:visible").filter(has_text=re.compile("^[ ✓]*DDIM *$")).first.click()
    page.number("img2img_steps", 20)
    page.generate()
    said = page.page.locator("#html_log_img2img").last.inner_text()
    assert "need 2000 timesteps of DDIM" in said


def test_the_settings_page_has_the_defaults(page):
    page.tab("Settings")
    page.page.locator("#settings button").filter(has_text=re.compile("^ *Latent Upscale *$")).click()
    section = page.page.locator("#settings_latent_upscale")
    for label in ("Default upscale method", "Default scheduler", "Exact steps by default"):
        assert section.get_by_label(label).first.is_visible()


@pytest.mark.parametrize("reloads", [int(os.environ.get("LATENT_UPSCALE_RELOADS", "3"))])
def test_reloading_the_ui_registers_everything_once(page, webui, picture, reloads):
    made = webui.ours(picture).pixels
    for _ in range(reloads):
        page.settle()
        page.page.get_by_role("link", name="Reload UI").click()
        page.page.wait_for_function("() => !document.querySelector('#img2img_script_container')", timeout=30_000)
        page.open_img2img()
    scripts = webui.call("/sdapi/v1/scripts")["img2img"]
    assert sorted(name for name in scripts if "latent upscale" in name) == [
        "latent upscale",
        "latent upscale companion",
    ]
    grid = next(s for s in webui.call("/sdapi/v1/script-info") if s["name"] == "x/y/z plot" and s["is_img2img"])
    axes = sum((row.axis is not None) for kind in CATALOGUE for row in rows(kind).values())
    axes += sum(bool(kind.SWITCH) for kind in CATALOGUE)
    assert sum("[Latent Upscale]" in label for label in grid["args"][0]["choices"]) == axes
    np.testing.assert_array_equal(webui.ours(picture).pixels, made)


def test_the_batch_tab(page, picture, tmp_path):
    for name, size in (("one", (64, 64)), ("two", (96, 64))):
        picture.resize(size).save(tmp_path / f"{name}.png")
    page.choose("Script", "Latent Upscale")
    page.page.locator("#mode_img2img .tab-nav button").filter(has_text=re.compile("^ *Batch *$")).click()
    upload = page.page.locator("#img2img_batch_upload")
    if upload.count():
        upload.locator("input[type=file]").set_input_files(sorted(str(path) for path in Path(tmp_path).iterdir()))
        upload.get_by_text("two").first.wait_for()
    else:  # reForge takes a folder
        page.page.locator("#img2img_batch_input_dir textarea").fill(str(tmp_path))
    page.generate()
    assert [result.size for result in page.results][-2:] == [(128, 128)] * 2
    assert "Latent upscale method" in page.infotext
