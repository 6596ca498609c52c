"""Writes docs/options.md, the documentation of all options, from the options themselves.

    python -m tools.document_options

A test fails while the file says something else than the options do.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lib_latent_upscale.catalogue import CATALOGUE, POSITIONS
from lib_latent_upscale.options import Option, Settings, rows
from lib_latent_upscale.schedules import SCHEDULES, described
from lib_latent_upscale.settings import AUTOMATIC
from lib_latent_upscale.standalone.commands.flags import flags
from lib_latent_upscale.standalone.files.settings import FileSettings, ShapeSettings

PATH = Path(__file__).parents[1] / "docs" / "options.md"

_HEAD = """# Options

*Written by `python -m tools.document_options` from the options themselves; do not edit.*

One table for each part. **WebUI** is the label of the control, **API** the name in `script_args`, where that is a
dictionary, **command** the flag of `latent-upscale upscale` and `compare`. S: the default can be changed under
*Settings*, *Latent Upscale*. X: X/Y/Z plot has an axis for it, with or without the script itself.
"""


def document() -> str:
    """The whole file."""
    parts = (line for kind in CATALOGUE for line in _part(kind))
    return "\n".join([_HEAD, *parts, *_command_only(), *_order(), *_schedulers()]) + "\n"


def _part(kind: type[Settings]) -> Iterator[str]:
    yield f"## {kind.HEADING}\n"
    yield "| WebUI | API | command | values | default | | what it does |"
    yield "|---|---|---|---|---|---|---|"
    flag = kind.MODEL_FLAG
    if kind.SWITCH:
        yield f"| {kind.NAME} | `{kind.SWITCH}` | {_code(flag)} | on, off | off | X | whether it runs at all |"
        model = flag and f"{flag} MODEL"
        yield f"| {kind.MODEL} | `{kind.api_name('model')}` | {_code(model)} | a model | | | which one |"
    known = flags(kind) if flag or not kind.SWITCH else {}  # a pass without a flag is the WebUI's alone
    for name, row in rows(kind).items():
        yield (
            f"| {row.label if row.control else ''} | `{kind.api_name(name)}` | {_code(known.get(name))} "
            f"| {row.allowed.text} | {_plain(row)} | {_marks(row)} | {row.tip} |"
        )
    yield ""


def _code(text: str | None) -> str:
    return f"`{text}`" if text else ""


def _command_only() -> Iterator[str]:
    for kind in (FileSettings, ShapeSettings):
        yield f"## {kind.HEADING} (command only)\n"
        yield "| command | values | default | what it does |"
        yield "|---|---|---|---|"
        known = flags(kind)
        for name, row in rows(kind).items():
            yield f"| `{known[name]}` | {row.allowed.text} | {_plain(row)} | {row.tip} |"
        yield ""


def _marks(row: Option) -> str:
    return " ".join(mark for mark, there in (("S", row.setting), ("X", row.axis is not None)) if there)


def _plain(row: Option) -> str:
    value: Any = row.default
    if isinstance(value, bool):
        return "on" if value else "off"
    if value in ("", ()):
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _order() -> Iterator[str]:
    yield "## Order\n"
    yield "`script_args` may also be a list of values in this order, or the beginning of one:\n"
    yield ", ".join(f"`{name}`" for name in POSITIONS)
    yield ""


def _schedulers() -> Iterator[str]:
    yield "## Schedulers\n"
    yield from (f"- {described(name)}" for name in (*SCHEDULES, AUTOMATIC))


if __name__ == "__main__":
    PATH.write_text(document(), encoding="utf-8")
