"""Everything that decides what a generation looks like, and its form in a picture's `parameters` text."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lib_latent_upscale.errors import InputError, SizeError
from lib_latent_upscale.options import Text
from lib_latent_upscale.samplers import GENERATION_SAMPLERS, SAMPLERS
from lib_latent_upscale.schedules import MAX_STEPS, StepPlan
from lib_latent_upscale.settings import UpscaleSettings
from lib_latent_upscale.tile_settings import TILE_MODEL_LABEL, TileSettings
from lib_latent_upscale.x4_upscaler import X4_MODEL_LABEL, X4Settings

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "LARGEST_SIDE",
    "SMALLEST_SIDE",
    "GenerationSettings",
    "add_labels",
    "check_size",
    "parse_parameters",
    "read_x4",
    "write_parameters",
    "x4_labels",
]

SMALLEST_SIDE = 16
"""Pixels; two values of a latent, the least that an interpolation can work with."""
LARGEST_SIDE = 8192
"""Pixels; a latent of 1024x1024."""
LARGEST_SEED = 2**32 - 1
LARGEST_CFG_SCALE = 100.0

SCRIPT = "Latent Upscale"
"""The WebUI selects the script of this name when the text is pasted."""

PARAMETER = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')
"""`Label: value`, the value quoted where it holds a comma, colon or line break: the WebUI's grammar."""


def _check_range(name: str, value: float, lowest: float, highest: float) -> None:
    if not lowest <= value <= highest:  # also catches nan
        raise InputError(f"{name} {value} is out of range: allowed is {lowest} to {highest}.")


def check_size(width: int, height: int, what: str = "Size", smallest: int = SMALLEST_SIDE) -> None:
    """Raise SizeError for a size that is too small or too large to work on."""
    if not (smallest <= width <= LARGEST_SIDE and smallest <= height <= LARGEST_SIDE):
        raise SizeError(
            f"{what} {width}x{height} is out of range: each side may be {smallest} to {LARGEST_SIDE} pixels."
        )


@dataclass(frozen=True)
class GenerationSettings:
    """One generation, as the WebUI's img2img tab would describe it. Raises InputError for a value out of range."""

    width: int
    """Pixels of the result."""
    height: int
    """Pixels of the result."""
    prompt: str = ""
    negative_prompt: str = ""
    steps: int = 20
    sampler: str = "Euler a"
    cfg_scale: float = 7.0
    seed: int = 1
    denoising_strength: float = 0.5
    model: str = "demo"
    upscale: UpscaleSettings = field(default_factory=UpscaleSettings)
    tile: TileSettings | None = None
    """Of the tile ControlNet, where one guides the generation."""
    tile_model: str = ""
    x4: X4Settings | None = None
    """Of the x4 upscaler as the last pass, where there was one; the picture is then four times `size`."""
    x4_model: str = ""

    def __post_init__(self) -> None:
        check_size(self.width, self.height)
        if self.sampler not in GENERATION_SAMPLERS:
            raise InputError(f"Unknown sampler {self.sampler!r}; known are: {', '.join(GENERATION_SAMPLERS)}.")
        for name, text in (("Prompt", self.prompt), ("Negative prompt", self.negative_prompt)):
            problem = Text().problem(text)
            if problem:
                raise InputError(f"{name} {problem}; give it in UTF-8.")
        _check_range("Steps", self.steps, 1, MAX_STEPS)
        _check_range("CFG scale", self.cfg_scale, 0, LARGEST_CFG_SCALE)
        _check_range("Seed", self.seed, 0, LARGEST_SEED)
        _check_range("Denoising strength", self.denoising_strength, 0, 1)

    def plan(self, model_sigmas: Tensor) -> StepPlan:
        """The sigmas that run with a model of this table."""
        sampler = SAMPLERS[self.sampler]
        return self.upscale.plan(
            self.steps,
            self.denoising_strength,
            model_sigmas,
            host_schedule=sampler.automatic,
            discard_penultimate=sampler.discards_penultimate,
        )

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.width, self.height


def _number(value: float) -> str:
    """The shortest text that reads back as the same number: 7.0 as 7, like the WebUI's sliders give it."""
    return str(int(value)) if math.isfinite(value) and value == int(value) else repr(value)


def _quoted(value: object) -> str:
    text = str(value)
    plain = text == text.strip() and not any(mark in text for mark in ',\n:"')
    return text if plain else json.dumps(text, ensure_ascii=False)


def write_parameters(generation: GenerationSettings) -> str:
    """The text that the WebUI writes into a PNG's `parameters`, so that its PNG Info tab reads it."""
    values: dict[str, object] = {
        "Steps": generation.steps,
        "Sampler": generation.sampler,
        "CFG scale": _number(generation.cfg_scale),
        "Seed": generation.seed,
        "Size": f"{generation.width}x{generation.height}",
        "Model": generation.model,
        "Denoising strength": _number(generation.denoising_strength),
        "RNG": "CPU",
        "Script": SCRIPT,
        **generation.upscale.to_infotext(),
        **({} if generation.tile is None else _tile_labels(generation.tile, generation.tile_model)),
        **({} if generation.x4 is None else x4_labels(generation.x4, generation.x4_model)),
    }
    negative = f"Negative prompt: {generation.negative_prompt}" if generation.negative_prompt else ""
    return "\n".join(part for part in (generation.prompt, negative, _joined(values)) if part)


def _joined(values: Mapping[str, object]) -> str:
    return ", ".join(f"{label}: {_quoted(value)}" for label, value in values.items())


def _tile_labels(settings: TileSettings, model: str) -> dict[str, str]:
    return {TILE_MODEL_LABEL: model, **settings.to_infotext()}


def x4_labels(settings: X4Settings, model: str) -> dict[str, str]:
    """Labels and values of a pass of the x4 upscaler."""
    return {X4_MODEL_LABEL: model, **settings.to_infotext()}


def add_labels(text: str, labels: Mapping[str, object]) -> str:
    """A `parameters` text with `labels` at the end of its last line, in place of those that it has.

    As in the WebUI, a last line of less than three labels is a prompt.
    """
    *lines, last = text.strip("\n").split("\n")
    if len(PARAMETER.findall(last)) < 3:
        lines, last = [*lines, last], ""
    kept = PARAMETER.sub(lambda match: "" if match[1] in labels else match[0], last).strip(", ")
    return "\n".join(filter(None, [*lines, ", ".join(filter(None, [kept, _joined(labels)]))]))


def read_x4(text: str) -> tuple[str, X4Settings] | None:
    """Model and settings of the x4 upscaler in a `parameters` text, None without; InputError for a bad value."""
    return _x4(_labels(text.strip("\n").rpartition("\n")[2]))


def _x4(values: Mapping[str, str]) -> tuple[str, X4Settings] | None:
    if X4_MODEL_LABEL not in values:
        return None
    try:
        return values[X4_MODEL_LABEL], X4Settings.from_infotext(values)
    except ValueError as error:
        raise InputError(f"The settings of the x4 upscaler cannot be read: {error}") from error


def _tile(values: Mapping[str, str]) -> tuple[str, TileSettings] | None:
    if TILE_MODEL_LABEL not in values:
        return None
    try:
        return values[TILE_MODEL_LABEL], TileSettings.from_infotext(values)
    except ValueError as error:
        raise InputError(f"The settings of the tile ControlNet cannot be read: {error}") from error


def _labels(line: str) -> dict[str, str]:
    return {label: _unquoted(value) for label, value in PARAMETER.findall(line)}


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] == '"':
        try:
            return str(json.loads(text, strict=False))
        except json.JSONDecodeError:
            return text
    return text.strip()


def _split_prompts(lines: list[str]) -> tuple[str, str]:
    mark = "Negative prompt:"
    start = next((index for index, line in enumerate(lines) if line.startswith(mark)), len(lines))
    negative = [lines[start][len(mark) :].lstrip(" "), *lines[start + 1 :]] if start < len(lines) else []
    return "\n".join(lines[:start]), "\n".join(negative)


def parse_parameters(text: str) -> GenerationSettings:
    """Read a `parameters` text back; labels that are missing keep their default, unknown ones are skipped.

    Prompts come back line by line; one that holds a line starting with "Negative prompt:" cannot, in the WebUI
    neither. Raises InputError where the text names no size or a value is not valid.
    """
    *lines, last = text.strip("\n").split("\n")
    values = _labels(last)
    prompt, negative = _split_prompts(lines)
    size = re.fullmatch(r"(\d+)x(\d+)", values.get("Size", ""))
    if size is None:
        raise InputError("The text holds no generation parameters: a last line with 'Size: 512x512' is missing.")
    try:
        numbers = _numbers(values)
        upscale = UpscaleSettings.from_infotext(values)
    except ValueError as error:
        raise InputError(f"The generation parameters cannot be read: {error}") from error
    tile_model, tile = _tile(values) or ("", None)
    x4_model, x4 = _x4(values) or ("", None)
    return GenerationSettings(
        width=int(size[1]),
        height=int(size[2]),
        prompt=prompt,
        negative_prompt=negative,
        upscale=upscale,
        tile=tile,
        tile_model=tile_model,
        x4=x4,
        x4_model=x4_model,
        **numbers,
    )


def _numbers(values: Mapping[str, str]) -> dict[str, Any]:
    readers: dict[str, tuple[str, Callable[[str], Any]]] = {
        "Steps": ("steps", int),
        "Sampler": ("sampler", str),
        "CFG scale": ("cfg_scale", float),
        "Seed": ("seed", int),
        "Denoising strength": ("denoising_strength", float),
        "Model": ("model", str),
    }
    return {name: read(values[label]) for label, (name, read) in readers.items() if label in values}
