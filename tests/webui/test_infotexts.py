"""Infotexts that a real WebUI wrote before new options came set the same controls for ever."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

WRITTEN = json.loads(Path(__file__).with_name("infotexts_1.json").read_text("utf-8"))
SWITCHES = {"True": True, "False": False}
PART = re.compile(r'(?P<label>[\w \-/]+): (?P<value>"(?:[^"\\]|\\.)*"|[^,]*)(?:, |$)')


def parsed(infotext: str) -> dict[str, str]:
    """As a host does it: quoted where a value has a comma or a colon."""
    parts = {part["label"]: part["value"] for part in PART.finditer(infotext)}
    return {label: json.loads(value) if value.startswith('"') else value for label, value in parts.items()}


def pasted(webui: Any, infotext: str) -> dict[str, Any]:
    """What each control gets, by the end of its id; None: it stays as it is."""
    given = parsed(infotext)
    values = {
        control.elem_id.removeprefix("script_latent_upscale_"): source(given) if callable(source) else given.get(source)
        for control, source in webui.script.infotext_fields
    }
    plain = {name: getattr(value, "value", value) for name, value in values.items()}
    return {name: SWITCHES.get(value, value) if isinstance(value, str) else value for name, value in plain.items()}


@pytest.mark.parametrize("written", WRITTEN, ids=lambda written: json.dumps(written["call"])[:60])
def test_every_control_gets_what_was_written(webui, written):
    webui.script.ui(True)
    got = pasted(webui, written["infotext"])
    assert {name: got.get(name) for name in written["controls"]} == written["controls"]
