"""What a user does in the browser, against a real WebUI, with playwright and chromium."""

import os
import re
from pathlib import Path

import numpy as np
import pytest

from lib_latent_upscale.catalogue import CATALOGUE
from lib_latent_upscale.options import rows
from tests.live.calls import options

SETTINGS = {"Upscale method": "lanczos", "Scheduler": "karras", "Exact steps": False, "Keep statistics": True}


def test_pick_the_script_and_generate(page, webui, picture):
    page.choose("Script", "Latent Upscale")
    assert page.labelled("Upscale method").input_value() == "automatic"
    assert page.labelled("Scheduler").input_value() == "simple"
    page.panel.get_by_text(
        f"Result: {page.edge} x {page.edge} pixels, {page.edge // 64} times each side."
    ).first.wait_for()
    page.generate()
    assert re.search("Latent upscale method: [^,]+, Latent upscale scheduler: simple", page.infotext)
    assert page.results[-1].size == (page.edge, page.edge)
    made = np.asarray(page.results[-1].convert("RGB")).astype(int)
    webui.same(made, page.over_api(webui, picture))


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


def test_the_drawing_follows_the_controls(page, webui):
    page.choose("Script", "Latent Upscale")
    page.drawn("Latent Upscale: simple, 4 of 5 steps run")
    page.number("img2img_steps", 6)
    page.drawn("Latent Upscale: simple, 6 of 8 steps run")
    always_exact = "img2img_fix_steps" not in webui.call("/sdapi/v1/options")
    page.drawn("default: ", "6 of 8 steps run" if always_exact else "5 of 6 steps run")
    page.number("img2img_denoising_strength", 0.3)
    page.drawn("Latent Upscale: simple, 6 of 20 steps run")
    page.choose("Scheduler", "exponential")
    page.drawn("Latent Upscale: exponential, 6 of 20 steps run")
    page.labelled("Exact steps").uncheck()
    page.drawn("Latent Upscale: exponential, " + ("6 of 20 steps run" if always_exact else "2 of 6 steps run"))


def test_an_xyz_grid(page, webui):
    page.choose("Script", "X/Y/Z plot")
    page.choose("X type", "[Latent Upscale] Method")
    page.panel.locator("#xyz_grid_fill_x_tool_button").click()
    tokens = page.panel.locator(".token")
    tokens.first.wait_for()
    assert "nearest-exact" in " ".join(tokens.all_inner_texts())
    with options(webui, grid_save=True):  # only then hosts write the parameters into it
        page.generate()
    grid = next(result for result in page.results if result.width * result.height >= 9 * page.edge**2)
    # a JPEG in some hosts, which holds it in EXIF
    written = grid.info.get("parameters") or grid.getexif().get_ifd(0x8769)[0x9286][8:].decode("utf-16-be")
    assert "Script: X/Y/Z plot" in written
    assert "X Type: [Latent Upscale] Method" in written


def test_a_wrong_value_is_said(page):
    page.choose("Script", "Latent Upscale")
    page.number("img2img_denoising_strength", 0.01)
    page.sampler("DDIM")
    page.number("img2img_steps", 20)
    page.generate()
    assert "need 2000 timesteps of DDIM" in page.said


def test_the_settings_page_has_the_defaults(page):
    section = page.settings()
    for label in ("Default upscale method", "Default scheduler", "Exact steps by default"):
        assert section.get_by_label(label).first.is_visible()


@pytest.mark.parametrize("reloads", [int(os.environ.get("LATENT_UPSCALE_RELOADS", "3"))])
def test_reloading_the_ui_registers_everything_once(page, webui, picture, reloads):
    made = webui.ours(picture).pixels
    for _ in range(reloads):
        page.settle()
        page.page.get_by_role("link", name="Reload UI").click()
        page.page.wait_for_function("() => !document.querySelector('#img2img_script_container')", timeout=60_000)
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
    webui.same(webui.ours(picture).pixels, made)


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
    assert [result.size for result in page.results][-2:] == [(page.edge, page.edge)] * 2
    assert "Latent upscale method" in page.infotext
