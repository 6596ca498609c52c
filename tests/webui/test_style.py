"""Whatever is written in our colours can be read in the host's light and dark theme."""

import re
from pathlib import Path

import pytest

from lib_latent_upscale import plot

CSS = (Path(__file__).resolve().parents[2] / "style.css").read_text()
PANEL = "var(--block-background-fill)"
THEMES = {
    "light": {
        "--body-text-color": "#1f2937",
        "--body-text-color-subdued": "#9ca3af",
        "--block-background-fill": "#fff",
        "--input-background-fill": "#fff",
    },
    "dark": {
        "--body-text-color": "#f3f4f6",
        "--body-text-color-subdued": "#9ca3af",
        "--block-background-fill": "#1f2937",
        "--input-background-fill": "#374151",
    },
}
"""Of Gradio's default theme, which the host uses."""
READABLE, VISIBLE = 4.5, 3.0
"""The least contrast of text and of lines: WCAG 2.1, 1.4.3 and 1.4.11."""


def rgb(colour, theme):
    """A colour over white where it lets something through: pictures may be white."""
    variable = re.fullmatch(r"var\((.+)\)", colour)
    if variable:
        return rgb(theme[variable[1]], theme)
    mixed = re.fullmatch(r"rgb\((\d+) (\d+) (\d+) / (\d+)%\)", colour)
    if mixed:
        share = int(mixed[4]) / 100
        return [share * int(mixed[part]) + (1 - share) * 255 for part in (1, 2, 3)]
    digits = colour.removeprefix("#")
    digits = "".join(2 * one for one in digits) if len(digits) == 3 else digits
    return [int(digits[start : start + 2], 16) for start in (0, 2, 4)]


def luminance(colour):
    parts = [part / 255 for part in colour]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(first, second, theme):
    high, low = sorted((luminance(rgb(one, theme)) for one in (first, second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def texts():
    """(selector, colour, background) of every rule that colours text."""
    plain = re.sub(r"/\*.*?\*/", "", CSS, flags=re.DOTALL)
    for selector, body in re.findall(r"([^{}]+)\{([^{}]*)\}", plain):
        values = dict(re.findall(r"([\w-]+):\s*([^;]+);", body))
        if values.get("color", "inherit") != "inherit":
            yield selector.strip(), values["color"], values.get("background", PANEL)
        assert "opacity" not in values, f"{selector}: text that is seen through has less contrast than its colour"


@pytest.mark.parametrize("theme", THEMES)
def test_text_can_be_read(theme):
    found = {selector: contrast(colour, behind, THEMES[theme]) for selector, colour, behind in texts()}
    assert len(found) > 5
    assert min(found.values()) >= READABLE, found


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("colour", [plot._OURS, plot._HOSTS])
def test_the_drawings_lines_can_be_seen(theme, colour):
    assert contrast(colour, PANEL, THEMES[theme]) >= VISIBLE


def test_the_measure_is_that_of_the_standard():
    assert contrast("#000", "#fff", {}) == pytest.approx(21)
    assert contrast("#777", "#fff", {}) == pytest.approx(4.48, abs=0.005)
