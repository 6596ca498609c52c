"""Scripts of the page, run by Node on one that has nothing but what the host's has."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "javascript" / "latent_upscale_size.js"
PAGE = """
const page = %s, line = {offsetParent: page.hidden ? null : true, textContent: ""};
const elements = {
    '[id$="latent_upscale_size"]': line,
    '[id$="latent_upscale_x4-checkbox"] input': {checked: page.x4},
    '#img2img_scale': {offsetParent: page.scale ? true : null},
    '#img2img_scale input[type="number"]': {value: page.scale},
    '#img2img_width input[type="number"]': {value: page.width},
    '#img2img_height input[type="number"]': {value: page.height},
};
const gradioApp = () => ({querySelector: (selector) => elements[selector]});
const onAfterUiUpdate = (show) => show();
const addEventListener = () => {};
const watched = [];
class IntersectionObserver {
    constructor(seen) { this.observe = (element) => watched.push([element, seen]); }
}
%s
%s
if (page.hidden) {
    line.offsetParent = true;
    for (const [element, seen] of watched) if (element === line) seen();
}
console.log(line.textContent);
"""
KNOWN = "const currentImg2imgSourceResolution = (_w, _h, scale) => [...page.picture, scale];"


SLIDER_PAGE = """
const container = {parentNode: {querySelector: () => null}};
const elements = {
    "#img2img_gallery_container": container,
    "#generation_info_img2img textarea": {value: JSON.stringify(%s)},
};
const gradioApp = () => ({querySelector: (selector) => elements[selector], querySelectorAll: () => []});
const onAfterUiUpdate = (update) => update();
%s
"""


def run(program):
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs Node")
    done = subprocess.run([node, "-e", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def shown(*, known=True, **page):
    page = {"picture": [512, 768], "width": 1024, "height": 1536, "scale": 0, "x4": False, "hidden": False, **page}
    program = PAGE % (json.dumps(page), KNOWN if known else "", SCRIPT.read_text())
    return run(program)


def test_size_and_factor_after_the_x4_upscaler_too():
    assert shown() == "Result: 1024 x 1536 pixels, 2 times each side."
    assert shown(x4=True).endswith("; after the x4 upscaler 4096 x 6144, 8 times each side.")
    assert shown(scale=1.5) == "Result: 768 x 1152 pixels, 1.5 times each side."
    assert "2 times as wide, 1.33 times as high" in shown(height=1024)


def test_a_panel_that_comes_into_sight_without_a_change_of_the_page_has_the_line():
    assert shown(hidden=True) == shown()


@pytest.mark.parametrize("page", [{"picture": [0, 0]}, {"known": False}])
def test_without_a_picture_the_size_stands_alone(page):
    assert shown(**page) == "Result: 1024 x 1536 pixels."


@pytest.mark.parametrize("info", [None, {}, {"extra_generation_params": {"Script": "Latent Upscale"}}])
def test_the_slider_bears_with_results_that_are_no_comparison(info):
    run(SLIDER_PAGE % (json.dumps(info), SCRIPT.with_name("latent_upscale_slider.js").read_text()))
