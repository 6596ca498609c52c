"""An option is one field: whatever shows options shows a new one, in a copy of the package with one more in each class.

And docs/options.md says what the options say.
"""

import os
import re
import subprocess
import sys

import pytest

from tests.webui.copied import ROOT, copy_to, seen_in

FIELDS = {
    "settings.py": 'sharpen: float = option(0.5, low=0, high=2, label="Sharpen", infotext="L sharpen", tip="edges")',
    "tile_settings.py": 'hush: bool = option(False, label="Tile hush", infotext="T hush", tip="less noise")',
    "x4_settings.py": 'mood: str = option("dry", choices=["dry", "wet"], label="x4 mood", infotext="x4 m", tip="rain")',
    "comparison/settings.py": 'compare_twice: bool = option(False, label="Twice", infotext="C twice", tip="again")',
}
OPTION = re.compile(r"^    \w+: .* = option\($.*?^    \)$", re.MULTILINE | re.DOTALL)
NEW = ["sharpen", "compare_twice", "tile_controlnet_hush", "x4_mood"]

SCRIPT = """
import argparse
from lib_latent_upscale.catalogue import CATALOGUE, POSITIONS
from lib_latent_upscale.standalone.commands import app, cli, common
from tools.document_options import document
seen |= {"positions": POSITIONS[-4:], "document": document(), "infotext": {}}
for kind in CATALOGUE:
    seen["infotext"] |= kind().to_infotext()
commands = next(a for a in cli.build_parser()._actions if isinstance(a, argparse._SubParsersAction)).choices
seen["flags"] = [flag for action in commands["upscale"]._actions for flag in action.option_strings]
asked = commands["upscale"].parse_args(["in.png", "--sharpen", "1.5", "--tile-controlnet", "m", "--controlnet-hush"])
seen["asked"] = [common.upscale_settings(asked).sharpen, common.tile_overrides(asked)["tile"].hush]
with outer.double.installed() as host:
    webui = outer.WebUI(host)
    controls = webui.script.ui(True)
    seen["controls"] = {control.elem_id: [type(control).__name__, control.label] for control in controls[-4:]}
    seen["axes"] = [axis.label for axis in webui.axes]
    seen["settings"] = list(webui.options.registered)
    pasted = {control.label: key for control, key in webui.script.infotext_fields}
    seen["pasted"] = pasted["x4 mood"]({"x4 upscaler model": "m", "x4 m": "wet"}).value
    p = webui.process(Image.new("RGB", (64, 64)))
    seen["written"] = webui.run(p, {"sharpen": 2}).infotexts[0]["L sharpen"]
import gradio
with gradio.Blocks():
    seen["page"] = list(app._controls(gradio))
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("copy")
    package = copy_to(folder)
    for name, field in FIELDS.items():
        path = package / name
        text = path.read_text(encoding="utf-8")
        *_, last = OPTION.finditer(text)
        path.write_text(f"{text[: last.end()]}\n    {field}{text[last.end() :]}", encoding="utf-8")
    return seen_in(folder, SCRIPT)


def test_it_has_a_control_at_the_end_of_the_apis_order(seen):
    assert seen["positions"] == NEW
    assert seen["controls"] == {
        "script_latent_upscale_sharpen": ["Slider", "Sharpen"],
        "script_latent_upscale_compare_twice": ["Checkbox", "Twice"],
        "script_latent_upscale_tile_hush": ["Checkbox", "Tile hush"],
        "script_latent_upscale_x4_mood": ["Dropdown", "x4 mood"],
    }


def test_it_goes_into_the_infotext_and_comes_back(seen):
    assert {"L sharpen": "0.5", "T hush": "False", "x4 m": "dry"}.items() <= seen["infotext"].items()
    assert seen["written"] == "2.0"
    assert seen["pasted"] == "wet"


def test_it_is_an_axis_and_a_setting(seen):
    assert {f"[Latent Upscale] {label}" for label in ("Sharpen", "Tile hush", "x4 mood")} <= set(seen["axes"])
    names = {"sharpen", "compare_twice", "tile_hush", "x4_mood"}
    assert {f"latent_upscale_{name}" for name in names} <= set(seen["settings"])


def test_it_is_a_flag_and_on_the_page(seen):
    assert {"--sharpen", "--controlnet-hush", "--x4-mood"} <= set(seen["flags"])
    assert seen["asked"] == [1.5, True]
    assert {"sharpen", "x4_mood"} <= set(seen["page"])


def test_it_is_documented(seen):
    assert "| Sharpen | `sharpen` | `--sharpen` | 0 to 2 | 0.5 | S X | edges |" in seen["document"]
    assert "| x4 mood | `x4_mood` | `--x4-mood` | dry, wet | dry | S X | rain |" in seen["document"]


def test_the_documentation_is_not_stale():
    done = subprocess.run(
        [sys.executable, "-c", "from tools.document_options import document; print(document(), end='')"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        check=True,
    )
    written = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    assert done.stdout.decode().replace("\r\n", "\n") == written, "run python -m tools.document_options"
