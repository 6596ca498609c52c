"""Dead-leaves pictures: occluding shapes with power-law sizes, the training data of the demo model.

The occlusion statistics of such pictures resemble those of photographs (Lee, Mumford and Huang 2001), and networks
that are trained on them restore photographs nearly as well as networks trained on photographs (Achddou, Gousseau and
Ladjal 2021). Nothing but a seed goes in, so nobody's licence comes with it.
"""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Floats = NDArray[np.float32]
SUPERSAMPLING = 2


def coloured_noise(rng: np.random.Generator, size: int, exponent: float) -> Floats:
    """A (size, size) field in 0..1 whose amplitude spectrum falls with frequency to the power of ``exponent``."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    frequency[0, 0] = 1
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) / frequency**exponent
    field = np.fft.irfft2(spectrum, s=(size, size))
    return np.clip((field - field.mean()) / (3.5 * field.std() + 1e-9) + 0.5, 0, 1).astype(np.float32)


def ramp(rng: np.random.Generator, size: int) -> Floats:
    """A linear gradient from 0 to 1 in a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    field = x * np.cos(angle) + y * np.sin(angle)
    return ((field - field.min()) / np.ptp(field)).astype(np.float32)


def stripes(rng: np.random.Generator, size: int) -> Floats:
    """Sine or hard stripes of a random period, bent a little."""
    period = np.exp(rng.uniform(np.log(6), np.log(size / 3)))
    bend = coloured_noise(rng, size, 2.0) * rng.uniform(0, 4)
    wave = np.sin(2 * np.pi * (ramp(rng, size) * size / period + bend))
    return (0.5 + 0.5 * (np.sign(wave) if rng.random() < 0.4 else wave)).astype(np.float32)


def texture_fields(rng: np.random.Generator, size: int) -> list[Floats]:
    """What the shapes of one picture are filled with; smooth fields are the more frequent, as in photographs."""
    return [
        np.full((size, size), 0.5, np.float32),
        ramp(rng, size),
        ramp(rng, size),
        stripes(rng, size),
        *(coloured_noise(rng, size, exponent) for exponent in rng.uniform(0.3, 2.2, 4)),
    ]


def palette(rng: np.random.Generator) -> Floats:
    """Some base colours, (n, 3) in 0..255: hues in one or two families, from grey to vivid."""
    anchors = rng.uniform(0, 1, rng.integers(1, 4))
    saturation, count = rng.beta(1.2, 2.2), rng.integers(3, 10)
    colours = [
        colorsys.hsv_to_rgb(
            (rng.choice(anchors) + rng.normal(0, 0.06)) % 1,
            float(np.clip(saturation + rng.normal(0, 0.2), 0, 1)),
            rng.beta(1.2, 1.2),
        )
        for _ in range(count)
    ]
    return 255 * np.array(colours, np.float32)


def contour(rng: np.random.Generator, radius: float) -> NDArray[np.float64]:
    """The corners (n, 2) of a shape around the origin: ellipse, polygon, blob or bar."""
    kind = rng.choice(4, p=[0.3, 0.25, 0.25, 0.2])
    count = 40 if kind in (0, 2) else int(rng.integers(3, 8))
    angle = np.sort(rng.uniform(0, 2 * np.pi, count)) if kind == 1 else np.linspace(0, 2 * np.pi, count, endpoint=False)
    distance = np.ones(count)
    if kind == 2:
        waves = rng.normal(0, 0.35, 4) / np.arange(1, 5)
        distance += sum(w * np.cos(k * angle + rng.uniform(0, 6)) for k, w in enumerate(waves, 2))
    points = radius * distance[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    if kind == 3:
        points = radius * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], float) * [1, rng.uniform(0.03, 0.6)]
    squeeze, turn = rng.uniform(0.3, 1), rng.uniform(0, 2 * np.pi)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return (points * [1, squeeze]) @ rotation


def draw_mask(
    rng: np.random.Generator, points: NDArray[np.float64], size: tuple[int, int], radius: float
) -> Image.Image:
    """A shape's coverage: filled, or only its outline (lines and arcs), its edge sharp or out of focus."""
    mask = Image.new("L", size)
    corners = [tuple(p) for p in points]
    if rng.random() < 0.12:
        start = int(rng.integers(0, max(len(corners) - 3, 1)))
        ImageDraw.Draw(mask).line(
            corners[start:], fill=255, width=int(1 + radius * rng.uniform(0.01, 0.15)), joint="curve"
        )
    else:
        ImageDraw.Draw(mask).polygon(corners, fill=255)
    return mask.filter(ImageFilter.GaussianBlur(radius * rng.uniform(0.02, 0.3))) if rng.random() < 0.15 else mask


def paste_shape(rng: np.random.Generator, canvas: Floats, radius: float, fields: list[Floats], colours: Floats) -> None:
    """Lay one textured shape over ``canvas`` (h, w, 3)."""
    side = canvas.shape[0]
    points = contour(rng, radius) + rng.uniform(0, side, 2)
    margin = 2 + int(radius * 0.3)
    left, top = np.clip(np.floor(points.min(0)).astype(int) - margin, 0, side)
    right, bottom = np.clip(np.ceil(points.max(0)).astype(int) + margin, 0, side)
    if right - left < 1 or bottom - top < 1:
        return
    mask = draw_mask(rng, points - [left, top], (right - left, bottom - top), radius)
    alpha = np.asarray(mask, np.float32)[..., None] / 255 * (rng.uniform(0.4, 1) if rng.random() < 0.1 else 1)
    field = fields[rng.integers(len(fields))]
    dy, dx = rng.integers(0, side - (bottom - top) + 1), rng.integers(0, side - (right - left) + 1)
    weight = field[dy : dy + bottom - top, dx : dx + right - left, None] - 0.5
    base = colours[rng.integers(len(colours))] + rng.normal(0, 12, 3)
    other = colours[rng.integers(len(colours))] if rng.random() < 0.3 else base * rng.uniform(0.3, 1.7)
    region = canvas[top:bottom, left:right]
    region += alpha * (base + weight * (other - base) * rng.uniform(0.3, 2) - region)


def dead_leaves(rng: np.random.Generator, size: int = 256) -> NDArray[np.uint8]:
    """One picture, (size, size, 3).

    Radii r follow r**-3 from a few pixels to 60 % of the side; large shapes tend to lie behind small ones.
    """
    side = size * SUPERSAMPLING
    fields, colours = texture_fields(rng, side), palette(rng)
    canvas = np.empty((side, side, 3), np.float32)
    low, high = np.exp(rng.uniform(np.log(0.012), np.log(0.08))) * side, 0.6 * side
    u = rng.uniform(0, 1, rng.integers(30, 300))
    radii = np.sqrt(1 / (u / high**2 + (1 - u) / low**2))
    canvas[:] = colours[0] + (fields[1][..., None] - 0.5) * (colours[1] - colours[0])
    order = np.argsort(-radii * np.exp(rng.normal(0, 0.7, len(radii))))
    backdrop = rng.uniform(0.25, 0.6, rng.integers(3, 9)) * side
    for radius in [*backdrop, *radii[order]]:
        paste_shape(rng, canvas, float(radius), fields, colours)
    canvas *= 1 + rng.uniform(0, 0.5) * (coloured_noise(rng, side, 2.5)[..., None] - 0.5)
    picture = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8)).reduce(SUPERSAMPLING)
    if rng.random() < 0.2:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.5)))
    grain = rng.normal(0, rng.uniform(0, 5), (size, size, 1)) if rng.random() < 0.3 else 0
    return np.clip(np.asarray(picture, np.float32) + grain, 0, 255).astype(np.uint8)
