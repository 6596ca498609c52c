"""The grammar of infotext (a picture's `parameters`), as the WebUI writes and reads it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Infotext", "add_labels", "read_infotext", "write_infotext"]

_PARAMETER = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')
"""`Label: value`, the value quoted where it holds a comma, colon or line break."""
_FEWEST = 3
"""A last line with fewer labels belongs to the prompt."""
_NEGATIVE = "Negative prompt:"


@dataclass(frozen=True)
class Infotext:
    """The parts of an infotext."""

    prompt: str
    negative_prompt: str
    values: Mapping[str, str]
    """Values of the last line by their labels."""


def write_infotext(prompt: str, negative_prompt: str, values: Mapping[str, object]) -> str:
    """The text that the WebUI writes into a PNG's `parameters`."""
    negative = f"{_NEGATIVE} {negative_prompt}" if negative_prompt else ""
    return "\n".join(filter(None, (prompt, negative, _joined(values))))


def read_infotext(text: str) -> Infotext:
    """The parts of a text.

    Prompts come back line by line, except for one that holds a line starting with "Negative prompt:", as in the WebUI.
    """
    lines, last = _split(text)
    start = next((index for index, line in enumerate(lines) if line.startswith(_NEGATIVE)), len(lines))
    negative = "\n".join(lines[start:])[len(_NEGATIVE) :].removeprefix(" ")
    values = {label: _unquoted(value) for label, value in _PARAMETER.findall(last)}
    return Infotext("\n".join(lines[:start]), negative, values)


def add_labels(text: str, labels: Mapping[str, object]) -> str:
    """A text with `labels` at the end of its last line, in place of those that it has."""
    lines, last = _split(text)
    kept = _PARAMETER.sub(lambda match: "" if match[1] in labels else match[0], last).strip(", ")
    return "\n".join(filter(None, [*lines, ", ".join(filter(None, [kept, _joined(labels)]))]))


def _split(text: str) -> tuple[list[str], str]:
    """The lines of the prompts, and the line of the labels."""
    *lines, last = text.strip("\n").split("\n")
    return (lines, last) if len(_PARAMETER.findall(last)) >= _FEWEST else ([*lines, last], "")


def _joined(values: Mapping[str, object]) -> str:
    return ", ".join(f"{label}: {_quoted(value)}" for label, value in values.items())


def _quoted(value: object) -> str:
    text = str(value)
    plain = text == text.strip() and not any(mark in text for mark in ',\n:"')
    return text if plain else json.dumps(text, ensure_ascii=False)


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] == '"':
        try:
            return str(json.loads(text, strict=False))
        except json.JSONDecodeError:
            return text
    return text.strip()
