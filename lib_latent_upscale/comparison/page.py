"""A comparison as one HTML file: a slider between any two pictures, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Sequence
from pathlib import Path
from string import Template

from PIL import Image

from lib_latent_upscale.comparison.sheet import Panel, largest_size, on_paper

__all__ = ["make_page"]

_TEMPLATE = Path(__file__).with_name("page.html")


def _data_address(image: Image.Image) -> str:
    """The picture as a data: URL, a JPEG of quality 95 with full colour resolution and the profile."""
    buffer = io.BytesIO()
    on_paper(image).save(buffer, "JPEG", quality=95, subsampling=0, icc_profile=image.info.get("icc_profile"))
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _options(panels: Sequence[Panel], chosen: int) -> str:
    return "".join(
        f'<option value="{index}"{" selected" if index == chosen else ""}>{html.escape(panel.name)}</option>'
        for index, panel in enumerate(panels)
    )


def _row(panel: Panel) -> str:
    return (
        f"<tr><th>{html.escape(panel.name)}</th><td>{'<br>'.join(html.escape(note) for note in panel.notes)}</td></tr>"
    )


def make_page(
    panels: Sequence[Panel], *, title: str = "", footer: str = "", chosen: tuple[int, int] | None = None
) -> str:
    """The text of the HTML file.

    Args:
        panels: the pictures; all show the same, at any size.
        title, footer: lines above and below.
        chosen: indices of the panels shown at first, left and right; by default the last two.
    """
    left, right = chosen or (max(len(panels) - 2, 0), len(panels) - 1)
    width, height = largest_size(panels)
    pictures = [{"name": panel.name, "data": _data_address(panel.picture)} for panel in panels]
    # "</" would end the element that holds the JSON.
    data = json.dumps(pictures).replace("</", "<\\/")
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        tab=html.escape(title or "Comparison"),
        title=html.escape(title),
        left=_options(panels, left),
        right=_options(panels, right),
        width=width,
        height=height,
        rows="".join(_row(panel) for panel in panels),
        footer=html.escape(footer),
        pictures=data,
    )
