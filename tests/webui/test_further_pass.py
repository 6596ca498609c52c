"""A further pass of the WebUI is two files and a row in two tables: what a contributor does, done to a copy."""

import pytest

from tests.webui.copied import copy_to, seen_in

SETTINGS = """
from dataclasses import dataclass
from typing import ClassVar

from lib_latent_upscale.options import Settings, option


@dataclass(frozen=True)
class MirrorSettings(Settings):
    HEADING: ClassVar[str] = "Mirror"
    NAME: ClassVar[str] = "Mirror"
    SWITCH: ClassVar[str] = "mirror"
    MODEL: ClassVar[str] = "Mirror model"
    MODEL_LABEL: ClassVar[str] = "Mirror model"
    PREFIX: ClassVar[str] = "mirror_"
    ELEMENTS: ClassVar[str] = "mirror_"

    times: int = option(1, low=1, high=9, label="Mirror times", infotext="Mirror times", tip="how often")
"""
PASS = """
from functools import partial

from PIL import ImageOps

from lib_latent_upscale.mirror_settings import MirrorSettings
from lib_latent_upscale.webui.host.options import default_settings
from lib_latent_upscale.webui.passes.base import Outcome, Pass
from lib_latent_upscale.webui.ui.fields import make_controls, make_pass_panel, rest


class MirrorPass(Pass):
    NAME = "mirror"
    SETTINGS = MirrorSettings

    def __init__(self, p, values, kept):
        self._settings = MirrorSettings.from_api(values, default_settings(MirrorSettings))
        self._model = values.get("mirror_model") or "glass"

    @classmethod
    def panel(cls, elem_id):
        shown, layout = default_settings(MirrorSettings), rest(MirrorSettings, ())
        controls = partial(make_controls, shown, elem_id, layout)
        return make_pass_panel(MirrorSettings, elem_id, "Mirrors.", lambda refresh: ["glass"], controls)

    @property
    def infotext(self):
        return self._settings.with_model(self._model)

    def finish(self, picture):
        for _ in range(self._settings.times):
            picture = ImageOps.mirror(picture)
        return Outcome(picture, self.infotext)
"""
ROWS = {
    "catalogue.py": (
        "from lib_latent_upscale.options import",
        "from lib_latent_upscale.mirror_settings import MirrorSettings\n",
        "TileSettings, X4Settings)",
        "TileSettings, X4Settings, MirrorSettings)",
    ),
    "webui/request.py": (
        "from lib_latent_upscale.webui.passes.tile import",
        "from lib_latent_upscale.webui.passes.mirror import MirrorPass\n",
        "(TilePass, X4Pass)",
        "(TilePass, X4Pass, MirrorPass)",
    ),
}

SCRIPT = """
from pathlib import Path
import numpy as np
from lib_latent_upscale.catalogue import CATALOGUE, POSITIONS
from tools.document_options import document
seen |= {"positions": POSITIONS[-3:], "document": document()}
picture = Image.fromarray(np.random.default_rng(1).integers(0, 255, (64, 64, 3), dtype=np.uint8))
with outer.double.installed() as host:
    webui = outer.WebUI(host)
    controls = webui.script.ui(True)
    seen["controls"] = {control.elem_id: control.label for control in controls[-3:]}
    seen["axes"] = [axis.label for axis in webui.axes]
    seen["settings"] = list(webui.options.registered)
    pasted = {control.elem_id: read for control, read in webui.script.infotext_fields}
    def run(**given):
        done = webui.run(webui.process(picture), given)
        return np.asarray(done.images[0]), dict(done.infotexts[0])
    plain, written = run()
    seen["without"] = [label for label in written if label.startswith("Mirror")]
    made, written = run(mirror=True, mirror_times=3)
    seen["mirrored"] = bool((made == plain[:, ::-1]).all())
    seen["written"] = {label: value for label, value in written.items() if label.startswith("Mirror")}
    seen["pasted"] = [
        pasted["script_latent_upscale_mirror"](written),
        pasted["script_latent_upscale_mirror_times"](written).value,
        pasted["script_latent_upscale_mirror"]({"Latent upscale method": "area"}),
    ]
    for given in ({"mirror_times": 3}, {"mirror": True, "mirror_times": 10}):
        try:
            run(**given)
        except ValueError as error:
            seen.setdefault("refused", []).append(str(error))
    seen["default"] = run(mirror=True)[1]["Mirror times"]
    variants = sys.modules["lib_latent_upscale.webui.compare.variants"]
    request = sys.modules["lib_latent_upscale.webui.request"].Request.parse([{"mirror": True, "compare": True}])
    names = request.passes(webui.process(picture), {}).names
    seen["compared"] = variants.make_variants(request.settings, request.comparison, "normal", names)[-1].name
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("copy")
    package = copy_to(folder)
    (package / "mirror_settings.py").write_text(SETTINGS, encoding="utf-8")
    (package / "webui" / "passes" / "mirror.py").write_text(PASS, encoding="utf-8")
    for name, (before, line, rows, more) in ROWS.items():
        text = (package / name).read_text(encoding="utf-8")
        assert (text.count(before), text.count(rows)) == (1, 1)
        (package / name).write_text(text.replace(before, line + before).replace(rows, more), encoding="utf-8")
    return seen_in(folder, SCRIPT)


def test_its_controls_come_last(seen):
    assert seen["positions"] == ["mirror", "mirror_model", "mirror_times"]
    assert seen["controls"] == {
        "script_latent_upscale_mirror": "Mirror",
        "script_latent_upscale_mirror_model": "Mirror model",
        "script_latent_upscale_mirror_times": "Mirror times",
    }


def test_it_runs_where_it_is_switched_on_and_is_written_down(seen):
    assert seen["mirrored"]
    assert seen["written"] == {"Mirror model": "glass", "Mirror times": "3"}
    assert seen["default"] == "1"
    assert seen["without"] == []


def test_a_pasted_infotext_sets_it(seen):
    assert seen["pasted"] == [True, 3, False]


def test_what_is_not_allowed_is_refused(seen):
    assert seen["refused"] == [
        "Latent Upscale: mirror_times: only with mirror, which is True or False",
        "Latent Upscale: mirror_times is 10; an integer from 1 to 9 is needed",
    ]


def test_it_is_an_axis_and_a_setting_and_one_more_variant_of_a_comparison(seen):
    assert {"[Latent Upscale] Mirror", "[Latent Upscale] Mirror times"} <= set(seen["axes"])
    assert "latent_upscale_mirror_times" in seen["settings"]
    assert seen["compared"] == "Latent Upscale + mirror"


def test_it_is_documented_as_the_webuis_alone(seen):
    assert "| Mirror | `mirror` |  | on, off | off | X | whether it runs at all |" in seen["document"]
    assert "| Mirror times | `mirror_times` |  | 1 to 9 | 1 | S X | how often |" in seen["document"]
