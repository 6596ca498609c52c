"""The img2img tab of a WebUI in a browser, as users see it."""

import io
import json
import re
from typing import Any

import numpy as np
from PIL import Image

PICTURES = "#img2img_gallery img:not(.livePreview *)"
"""Results. A preview that is loaded late stays in Forge's gallery after the end."""

ENTRIES = "ul.options li:visible, ul[role=listbox] li:visible"
"""Of the menu that is open."""

SHOWN = f"""() => [...document.querySelectorAll('{PICTURES}')].map(image => image.src).join()
    + (document.querySelector('#html_log_img2img :is(.error, .comments)')?.innerText ?? '')"""
"""Script for the pictures' addresses and what is written below them."""


class Page:
    """The img2img tab as users see it: by labels."""

    def __init__(self, page: Any, url: str) -> None:
        self.page = page
        self._queued: list[Any] = []
        # playwright marks its handler, which the method of a list does not allow
        page.on("websocket", lambda socket: self._queued.append(socket))  # noqa: PLW0108
        page.goto(url, timeout=120_000)
        self.open_img2img()
        least = page.locator("#img2img_width input[type=range]").get_attribute("min")
        self.edge = max(128, int(float(least)))
        """Of the results that tests ask for, in pixels: some pages make no small ones (ersatzForge's from 256 on)."""

    @property
    def panel(self) -> Any:
        return self.page.locator("#img2img_script_container")

    def tab(self, name: str) -> None:
        self.page.locator("#tabs > .tab-nav button").filter(
            has_text=re.compile(f"^ *{name} *$", re.IGNORECASE)
        ).first.click()

    def open_img2img(self) -> None:
        self.page.wait_for_selector("#img2img_script_container #script_list input", state="attached", timeout=60_000)
        # Forge sets sizes and samplers of both tabs once more after the page has come; ersatzForge does not.
        self.page.wait_for_function(
            """() => {
                const height = !opts.preset_codes_explanation && opts[`${opts.forge_preset}_t2i_height`];
                const shown = document.querySelector('#txt2img_height input[type=number]').value;
                return Object.keys(opts).length > 0 && (!height || Number(shown) === height);
            }""",
            timeout=60_000,
        )
        self.tab("img2img")

    def settings(self) -> Any:
        """The script's section of the settings page, opened."""
        self.tab("Settings")
        self.page.locator("#settings button").filter(has_text=re.compile("^ *Latent Upscale *$")).click()
        return self.page.locator("#settings_latent_upscale")

    def settle(self) -> None:
        """Wait for what the host queues when its page has come; restarts of gradio 3 have hung that did not.

        Gradio 4 holds a connection open, so its page is never idle.
        """
        if self.page.evaluate("() => gradio_config.version.startsWith('3')"):
            self.page.wait_for_load_state("networkidle")
        while not all(socket.is_closed() for socket in self._queued):
            self.page.wait_for_timeout(100)

    def all_labelled(self, label: str) -> Any:
        """All visible controls with the label; some hosts' Gradio 4 calls the number beside a slider otherwise."""
        pattern = re.compile(rf"^\s*(number input for )?{re.escape(label)}\s*$")
        return self.panel.get_by_label(pattern).locator("visible=true")

    def labelled(self, label: str) -> Any:
        return self.all_labelled(label).first

    def choose(self, label: str, value: str) -> None:
        self.labelled(label).click()
        self._click_option(value)

    def _click_option(self, value: str) -> None:
        """An entry of the menu that is open."""
        self.page.locator(ENTRIES).filter(has_text=re.compile(f"^[ ✓]*{re.escape(value)} *$")).first.click()

    def number(self, elem_id: str, value: float) -> None:
        field = self.page.locator(f"#{elem_id} input[type=number]").first
        field.fill(str(value))
        field.press("Tab")

    def pick(self, elem_id: str, value: str) -> None:
        """Choose from buttons or from a menu: hosts differ, in the letters of their labels, too."""
        control = self.page.locator(f"#{elem_id}")
        first = control.locator("input").first
        first.wait_for()
        if first.get_attribute("type") == "radio":
            control.get_by_label(value, exact=True).check()
            return
        first.click()
        self._click_option(value)

    def sampler(self, name: str) -> None:
        self.pick("img2img_sampling", name)

    def upload(self, picture: Image.Image) -> None:
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        files = [{"name": "small.png", "mimeType": "image/png", "buffer": buffer.getvalue()}]
        self.page.locator("#img2img_image input[type=file]").set_input_files(files)
        self.page.wait_for_selector("#img2img_image img")

    def prepare(self, picture: Image.Image, **fields: float) -> None:
        """Upload a picture and fill in the tab's numbers; the result will be a square of `edge`."""
        self.upload(picture)
        for name, value in {"width": self.edge, "height": self.edge, **fields}.items():
            self.number(f"img2img_{name}", value)

    @property
    def asked(self) -> dict[str, Any]:
        """What the tab's controls ask for, by the names that the API has for them."""
        numbers = ("width", "height", "steps", "seed", "cfg_scale", "denoising_strength")
        fields = {name: self.page.locator(f"#img2img_{name} input[type=number]").first for name in numbers}
        return {
            "prompt": self.page.locator("#img2img_prompt textarea").input_value(),
            "sampler_name": self.page.locator("#img2img_sampling input").first.input_value(),
            **{name: json.loads(field.input_value()) for name, field in fields.items()},
        }

    def over_api(self, webui: Any, picture: Image.Image, given: Any = ({},), **changes: Any) -> np.ndarray:
        """The pixels that a call of the API makes from what the tab asks for, with these arguments of the script."""
        return webui.ours(picture, given, **{**self.asked, **changes}).pixels

    def paste(self, infotext: str) -> None:
        self.page.locator("#img2img_prompt textarea").fill(infotext)
        self.page.locator("#tab_img2img #paste, #img2img_tools button").first.click()

    def generate(self) -> None:
        """Press the button and wait until other pictures, or an error, are there."""
        before = self.page.evaluate(SHOWN)
        self.page.locator("#img2img_generate").click()
        self.changed(before)
        self.page.wait_for_selector("#img2img_interrupt", state="hidden", timeout=120_000)

    def changed(self, before: str) -> None:
        """Wait until other pictures, or an error, are there than those that `SHOWN` found."""
        self.page.wait_for_function(f"before => ({SHOWN})() !== before", arg=before, timeout=120_000)

    @property
    def infotext(self) -> str:
        return self.page.locator("#html_info_img2img").last.inner_text()

    @property
    def said(self) -> str:
        """What is written below the result: notes and errors."""
        return self.page.locator("#html_log_img2img").last.inner_text()

    @property
    def results(self) -> list[Image.Image]:
        sources = self.page.locator("#img2img_gallery .thumbnails img, #img2img_gallery .grid-container img")
        addresses = sources.evaluate_all("found => found.map(image => image.src)")
        addresses = addresses or [self.page.locator(PICTURES).first.get_attribute("src")]
        return [Image.open(io.BytesIO(self.page.request.get(address).body())) for address in addresses]

    def drawn(self, *texts: str) -> None:
        """Wait for a line of the plot's legend with all of these in it."""
        line = self.panel.locator("figure:has(svg[aria-label^=Sigmas]) figcaption div")
        for text in texts:
            line = line.filter(has_text=text)
        line.first.wait_for(timeout=60_000)


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
