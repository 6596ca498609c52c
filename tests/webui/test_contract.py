"""What users' pictures, calls, scripts and habits rely on, as it was in version 0.1: it may grow, never change.

`tests/contract.json` was read out of that version's running code. A new option goes to the end of the API's order, and
a new name to any place in a list of choices; nothing that is in the file may go or take another meaning.
"""

import argparse
import json
from pathlib import Path

import pytest

from lib_latent_upscale.catalogue import NAMES, POSITIONS
from lib_latent_upscale.comparison.settings import CompareSettings
from lib_latent_upscale.settings import UpscaleSettings
from lib_latent_upscale.standalone.commands.cli import build_parser
from lib_latent_upscale.tile_settings import TileSettings
from lib_latent_upscale.x4_upscaler import X4Settings

CONTRACT = json.loads((Path(__file__).parents[1] / "contract.json").read_text(encoding="utf-8"))
FULL = {
    "upscale": UpscaleSettings("nearest-exact"),
    "tile": TileSettings(second_pass=True),
    "x4": X4Settings(prompt="a", negative_prompt="b"),
}


def holds(new, old):
    """Whether all of `old` is in `new`, in its order."""
    rest = iter(new)
    return all(one in rest for one in old)


@pytest.mark.parametrize("kind", list(FULL))
def test_labels_of_the_infotext_stay(kind):
    written = FULL[kind].to_infotext()
    assert CONTRACT["written"][kind].items() <= written.items()
    assert set(CONTRACT["infotext"][kind].values()) <= set(written)
    assert holds(list(written), list(CONTRACT["written"][kind]))


@pytest.mark.parametrize("kind", list(FULL))
def test_an_infotext_of_then_is_read_as_then(kind):
    read = type(FULL[kind]).from_infotext(CONTRACT["written"][kind])
    assert read == FULL[kind]


def test_labels_of_a_comparison_stay(webui):
    asked = CompareSettings(
        compare=True,
        compare_methods=["area"],
        compare_schedulers=["karras"],
        compare_difference=True,
        compare_variants=[{"method": "area"}],
    )
    assert list(asked.to_infotext()) == list(CONTRACT["infotext"]["compare"].values())


def test_positions_and_names_of_the_api_stay():
    assert list(POSITIONS)[: len(CONTRACT["positions"])] == CONTRACT["positions"]
    assert set(CONTRACT["names"]) <= set(NAMES)


def test_controls_stay(webui):
    """Their order is that of the API; ui-config.json keeps a user's changes under label and kind."""
    for now, then in zip(webui.script.ui(True), CONTRACT["controls"], strict=False):
        assert (type(now).__name__, now.label, now.elem_id) == (then["kind"], then["label"], then["elem_id"])
        assert now.value == then["value"]
        assert holds(getattr(now, "choices", ()), then.get("choices", ()))
        for end in ("minimum", "maximum"):
            assert getattr(now, end, None) == then.get(end)


def test_axes_stay(webui):
    axes = {axis.label: axis for axis in webui.axes}
    for then in CONTRACT["axes"]:
        assert holds(axes[then["label"]].choices(), then["choices"])


def test_names_of_settings_stay(webui):
    for name, default in CONTRACT["settings"].items():
        assert getattr(webui.options, name) == default


def test_flags_stay():
    actions = build_parser()._actions
    commands = next(action for action in actions if isinstance(action, argparse._SubParsersAction)).choices
    for name, flags in CONTRACT["flags"].items():
        now = {flag: action.default for action in commands[name]._actions for flag in action.option_strings}
        assert flags.items() <= now.items(), name
