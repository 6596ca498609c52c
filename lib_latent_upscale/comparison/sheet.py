"""One labelled picture of a comparison: every variant side by side, and the same places enlarged below each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from lib_latent_upscale.comparison.metrics import Box
from lib_latent_upscale.pictures import has_transparency

__all__ = ["Panel", "largest_size", "make_sheet", "on_paper"]

_PAPER, _INK, _SOFT = "#ffffff", "#16181d", "#5b6270"
_ACCENT = "#0b7a75"
_FRAMES = ("#ff7a1a", "#12a5e0", "#c13fd0", "#2fa84f")
"""Colours of the crops' frames, on the picture and around the enlarged crop."""
_TALLEST = 1.5
"""Pictures are shown with at most this ratio of height to width."""
_MOST_IN_A_ROW = 5
"""Panels."""
_BITMAP_HEIGHT = 11
"""Height in pixels of the only font in Pillow before 10.1."""

_Mask = Callable[[str, int], Image.Image]


@dataclass(frozen=True)
class Panel:
    """One column of the sheet."""

    name: str
    picture: Image.Image
    """Of any size; every panel's picture shows the same."""
    notes: Sequence[str] = ()
    """Lines under the name."""
    highlight: bool = False
    """Whether the name stands out."""


@dataclass(frozen=True)
class _Style:
    column: int
    """Width of a column in pixels."""
    text: int
    """Height of a line of notes."""
    gap: int
    font: Path | None

    @property
    def title(self) -> int:
        return round(self.text * 1.5)

    @property
    def name(self) -> int:
        return round(self.text * 1.4)


def make_sheet(
    panels: Sequence[Panel],
    crops: Sequence[Box],
    *,
    title: str = "",
    footer: str = "",
    column_width: int = 460,
    font: Path | None = None,
) -> Image.Image:
    """Draw the sheet, RGB.

    Args:
        panels: the pictures in order; more than fit are continued in further rows of about the same length.
        crops: boxes in pixels of the largest picture, shown enlarged below each picture.
        title, footer: a line above and below.
        column_width: pixels.
        font: a TrueType file; by default Pillow's own font.
    """
    style = _Style(column_width, max(column_width // 20, 12), column_width // 20, font)
    whole = largest_size(panels)
    columns = math.ceil(len(panels) / math.ceil(len(panels) / _MOST_IN_A_ROW))
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    width = columns * (style.column + style.gap) + style.gap
    head = _paragraph([(title, style.title, _INK)], width - 2 * style.gap, style) if title else None
    foot = _paragraph([(footer, style.text, _SOFT)], width - 2 * style.gap, style) if footer else None
    blocks = [
        block for block in (head, *(_draw_row(row, crops, whole, style) for row in rows), foot) if block is not None
    ]
    sheet = Image.new("RGB", (width, sum(block.height + style.gap for block in blocks) + style.gap), _PAPER)
    top = style.gap
    for block in blocks:
        sheet.paste(block, (style.gap, top))
        top += block.height + style.gap
    return sheet


def largest_size(panels: Sequence[Panel]) -> tuple[int, int]:
    """(width, height) of the largest picture."""
    return max((panel.picture.size for panel in panels), key=lambda size: size[0] * size[1])


def _draw_row(panels: Sequence[Panel], crops: Sequence[Box], whole: tuple[int, int], style: _Style) -> Image.Image:
    """Panels side by side, with their crops at the same height."""
    labels = [_label(panel, style) for panel in panels]
    height = max(label.height for label in labels)
    columns = []
    for panel, label in zip(panels, labels, strict=True):
        details = [_crop(panel.picture, box, whole, frame, style) for box, frame in zip(crops, _FRAMES, strict=False)]
        columns.append(
            _stack([_whole_picture(panel.picture, crops, whole, style), _taller(label, height), *details], style)
        )
    return _beside(columns, style)


def _label(panel: Panel, style: _Style) -> Image.Image:
    lines = [(panel.name, style.name, _ACCENT if panel.highlight else _INK)]
    return _paragraph([*lines, *((note, style.text, _SOFT) for note in panel.notes)], style.column, style)


def _taller(image: Image.Image, height: int) -> Image.Image:
    taller = Image.new("RGB", (image.width, height), _PAPER)
    taller.paste(image)
    return taller


def _stack(parts: Sequence[Image.Image], style: _Style) -> Image.Image:
    gap = style.gap // 2
    column = Image.new("RGB", (style.column, sum(part.height + gap for part in parts) - gap), _PAPER)
    top = 0
    for part in parts:
        column.paste(part, ((style.column - part.width) // 2, top))
        top += part.height + gap
    return column


def _beside(columns: Sequence[Image.Image], style: _Style) -> Image.Image:
    row = Image.new("RGB", (len(columns) * (style.column + style.gap), max(part.height for part in columns)), _PAPER)
    for index, part in enumerate(columns):
        row.paste(part, (index * (style.column + style.gap), 0))
    return row


def _shown(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture at `size` (width, height): enlarged with visible pixels (nearest), or shrunk with Lanczos."""
    enlarges = size[0] > image.width
    return on_paper(image).resize(size, Image.Resampling.NEAREST if enlarges else Image.Resampling.LANCZOS)


def on_paper(image: Image.Image) -> Image.Image:
    """The picture as RGB, on the colour of the paper if it is transparent."""
    if not has_transparency(image):
        return image.convert("RGB")
    paper = Image.new("RGBA", image.size, _PAPER)
    return Image.alpha_composite(paper, image.convert("RGBA")).convert("RGB")


def _whole_picture(picture: Image.Image, crops: Sequence[Box], whole: tuple[int, int], style: _Style) -> Image.Image:
    scale = min(style.column / whole[0], style.column * _TALLEST / whole[1])
    shown = _shown(picture, (max(round(whole[0] * scale), 1), max(round(whole[1] * scale), 1)))
    draw = ImageDraw.Draw(shown)
    for box, frame in zip(crops, _FRAMES, strict=False):
        left, top, right, bottom = (round(edge * scale) for edge in box)
        draw.rectangle((left, top, right - 1, bottom - 1), outline=frame, width=max(style.column // 150, 2))
    return shown


def _crop(picture: Image.Image, box: Box, whole: tuple[int, int], frame: str, style: _Style) -> Image.Image:
    across, down = picture.width / whole[0], picture.height / whole[1]
    region = (box[0] * across, box[1] * down, box[2] * across, box[3] * down)
    border = max(style.column // 110, 2)
    inner = style.column - 2 * border
    height = round(inner * (box[3] - box[1]) / (box[2] - box[0]))
    enlarged = on_paper(picture).resize((inner, height), Image.Resampling.NEAREST, box=region)
    framed = Image.new("RGB", (style.column, height + 2 * border), frame)
    framed.paste(enlarged, (border, border))
    return framed


def _paragraph(lines: Sequence[tuple[str, int, str]], width: int, style: _Style) -> Image.Image:
    """Lines of (text, height, colour), wrapped to `width`; sizes in pixels."""
    mask = _mask_maker(style.font)
    broken = [(part, height, colour) for text, height, colour in lines for part in _broken(text, height, width, mask)]
    block = Image.new("RGB", (width, sum(round(height * 1.3) for _, height, _ in broken)), _PAPER)
    top = 0
    for text, height, colour in broken:
        block.paste(colour, (0, top), mask(text, height))
        if height > style.text:  # Pillow's own font has no bold version
            block.paste(colour, (1, top), mask(text, height))
        top += round(height * 1.3)
    return block


def _broken(text: str, height: int, width: int, mask: _Mask) -> list[str]:
    lines: list[str] = []
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and mask(longer, height).width <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _mask_maker(font: Path | None) -> _Mask:
    """A function (text, line height) -> grey mask of the text; Pillow before 10.1 has only a bitmap font."""
    if font is not None:
        return partial(_text_mask, lambda size: ImageFont.truetype(str(font), size))
    try:
        ImageFont.load_default(size=12)
    except TypeError:
        return _bitmap_mask
    return partial(_text_mask, lambda size: ImageFont.load_default(size=size))


def _text_mask(load: Callable[[int], Any], text: str, height: int) -> Image.Image:
    font = load(height)
    left, _, right, _ = font.getbbox(text or " ")
    mask = Image.new("L", (max(round(right - min(left, 0)), 1) + 1, round(height * 1.3)))
    ImageDraw.Draw(mask).text((0, 0), text, fill=255, font=font)
    return mask


def _bitmap_mask(text: str, height: int) -> Image.Image:
    font = ImageFont.load_default()
    text = text.encode("latin-1", "replace").decode("latin-1")
    mask = Image.new("L", (max(round(font.getlength(text)), 1), _BITMAP_HEIGHT + 3))
    ImageDraw.Draw(mask).text((0, 0), text, fill=255, font=font)
    scale = height / _BITMAP_HEIGHT
    return mask.resize((max(round(mask.width * scale), 1), round(mask.height * scale)), Image.Resampling.BICUBIC)
