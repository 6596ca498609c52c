"""Our methods in txt2img's Hires. fix, over the API and in the browser of a real WebUI."""

import io
import json
import re
from functools import partial
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.live.browser import ENTRIES, Page
from tests.live.calls import check_each_alone, parameters, refused
from tests.live.conftest import Result, decoded

TITLE = "Latent Upscale: "
SAME = {"Latent": TITLE + "bilinear", "Latent (antialiased)": TITLE + "bilinear-antialiased"}
"""What of ours makes the pictures of the host's own."""
UPSCALERS = ("bilinear", "bislerp", "lanczos", "bicubic-antialiased (keep statistics)", "learned", "learned-latent")


def body(upscaler: str, **changes: Any) -> dict[str, Any]:
    asked = {
        "prompt": "a lighthouse",
        "sampler_name": "Euler",
        "steps": 3,
        "seed": 7,
        "cfg_scale": 2,
        "width": 64,
        "height": 128,
        "denoising_strength": 0.6,
        "enable_hr": True,
        "hr_scale": 2,
        "hr_upscaler": upscaler,
        "hr_second_pass_steps": 3,
        "hr_additional_modules": [],
    }
    return {**asked, **changes}


def made(webui: Any, upscaler: str, **changes: Any) -> Result:
    answer = webui.call("/sdapi/v1/txt2img", body(upscaler, **changes))
    return Result([decoded(text) for text in answer["images"]], json.loads(answer["info"]))


def offered(webui: Any) -> list[str]:
    return [mode["name"] for mode in webui.call("/sdapi/v1/latent-upscale-modes")]


@pytest.fixture(scope="module")
def own(webui) -> str:
    """The host's first one; ersatzForge has no plain "Latent", Neo none at all, but upscalers of pictures."""
    first = offered(webui)[0]
    if not first.startswith(TITLE):
        return first
    known = [upscaler["name"] for upscaler in webui.call("/sdapi/v1/upscalers")]
    return "Lanczos" if "Lanczos" in known else known[0]


def upscaler_in(infotext: str) -> str:
    """ersatzForge writes "HiRes"."""
    return parameters(infotext.replace("HiRes", "Hires"))["Hires upscaler"].strip('"')


def test_they_are_offered_once_each(webui):
    names = offered(webui)
    assert {TITLE + name for name in UPSCALERS} < set(names)
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", UPSCALERS)
class TestEach:
    def test_a_picture_of_its_own_comes_out(self, webui, own, name):
        picture = made(webui, TITLE + name)
        assert picture.pictures[-1].size == (128, 256)
        assert upscaler_in(picture.infotext) == TITLE + name
        assert ("Latent upscale weights" in parameters(picture.infotext)) == name.startswith("learned")
        if name != "bilinear":  # antialiasing changes nothing when latents grow
            assert (picture.pixels != made(webui, own).pixels).any()

    def test_the_same_call_gives_the_same_picture(self, webui, name):
        first = made(webui, TITLE + name)
        made(webui, TITLE + "area", seed=3, hr_scale=1.5)
        webui.same(made(webui, TITLE + name).pixels, first.pixels)

    def test_each_picture_of_a_batch_can_be_made_alone(self, webui, name):
        check_each_alone(partial(made, webui, TITLE + name))


def test_one_of_them_is_the_hosts_own(webui, own):
    if own not in SAME:
        pytest.skip("this WebUI has no latent upscaler of its own")
    webui.same(made(webui, SAME[own]).pixels, made(webui, own).pixels)


@pytest.mark.parametrize("size", [{"hr_scale": 1.7}, {"hr_resize_x": 200, "hr_resize_y": 136}])
def test_any_size_has_the_hosts_size(webui, own, size):
    expected = made(webui, own, **size).pictures[-1].size
    for name in ("lanczos", "learned"):
        assert made(webui, TITLE + name, **size).pictures[-1].size == expected


def test_the_hosts_own_go_on_as_before(webui, own):
    made(webui, own)
    before = made(webui, own).pixels
    made(webui, TITLE + "lanczos", seed=99)
    webui.same(made(webui, own).pixels, before)


def test_an_unknown_one_is_the_hosts_own_error(webui):
    def call(upscaler: str) -> str:
        return refused(made, webui, upscaler).message.replace(upscaler, "it")

    assert call(TITLE + "no such") == call("no such")


def test_the_hosts_axis_compares_them(webui, own):
    scripts = webui.call("/sdapi/v1/script-info")
    info = next(script for script in scripts if script["name"] == "x/y/z plot" and not script["is_img2img"])
    labels = [label.replace("HiRes", "Hires") for label in info["args"][0]["choices"]]
    names = [TITLE + "lanczos", TITLE + "nearest-exact (keep statistics)", own]
    args = [labels.index("Hires upscaler"), ",".join(names), names]
    args += [labels.index("Nothing"), "", [""]] * 2
    wanted = {"Draw legend": False, "Include Sub Images": True, "Use text inputs instead of dropdowns": True}
    args += [wanted.get(control["label"], control["value"]) for control in info["args"][9:]]
    result = made(webui, own, script_name="x/y/z plot", script_args=args)
    cells = [np.asarray(one.convert("RGB")).astype(int) for one in result.pictures[-3:]]
    for name, cell in zip(names, cells, strict=True):
        webui.same(cell, made(webui, name).pixels)
    assert [upscaler_in(text) for text in result.info["infotexts"][-3:]] == names


class TestInTheBrowser:
    @pytest.fixture
    def page(self, webui: Any, browser: Any) -> Any:
        page = browser.new_page(viewport={"width": 1500, "height": 1400})
        Page(page, webui.url).tab("txt2img")
        yield page
        page.close()

    def pasted(self, page: Any, infotext: str) -> None:
        page.locator("#txt2img_prompt textarea").fill(infotext)
        page.locator("#tab_txt2img #paste, #txt2img_tools button").first.click()

    def generated(self, page: Any) -> tuple[np.ndarray, str]:
        page.locator("#txt2img_generate").click()
        page.wait_for_selector("#txt2img_gallery img", timeout=120_000)
        page.wait_for_selector("#txt2img_interrupt", state="hidden", timeout=120_000)
        source = page.locator("#txt2img_gallery img").first.get_attribute("src").split("?")[0]
        picture = Image.open(io.BytesIO(page.request.get(source).body()))
        return np.asarray(picture.convert("RGB")).astype(int), page.locator("#html_info_txt2img").last.inner_text()

    def test_a_picture_is_pasted_and_made_again(self, webui, page):
        result = made(webui, TITLE + "lanczos (keep statistics)")
        self.pasted(page, result.infotext)
        shown = page.locator("#txt2img_hr_upscaler input").first
        page.wait_for_function(
            "wanted => document.querySelector('#txt2img_hr_upscaler input').value === wanted",
            arg=TITLE + "lanczos (keep statistics)",
            timeout=60_000,
        )
        assert shown.input_value() == TITLE + "lanczos (keep statistics)"
        pixels, written = self.generated(page)
        assert re.search("(?i)Hires upscaler: .?Latent Upscale: lanczos .keep statistics.", written)
        webui.same(pixels, result.pixels)

    def test_the_menu_offers_them(self, page):
        self.pasted(page, "a\nSteps: 2, Size: 64x64, Denoising strength: 0.5, Hires upscale: 2, Hires upscaler: Latent")
        field = page.locator("#txt2img_hr_upscaler input").first
        field.wait_for(state="visible", timeout=60_000)
        field.click()
        field.fill(TITLE + "bis")
        page.locator(ENTRIES).filter(has_text=re.compile(f"^[ ✓]*{TITLE}bislerp *$")).first.click()
        assert field.input_value() == TITLE + "bislerp"
