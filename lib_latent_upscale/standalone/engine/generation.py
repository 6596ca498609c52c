"""The settings of a generation, and how they are written into and read from infotext."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from lib_latent_upscale.errors import InputError, SizeError
from lib_latent_upscale.options import MAX_STEPS, Settings, Text, shortened
from lib_latent_upscale.samplers import GENERATION_SAMPLERS, SAMPLERS
from lib_latent_upscale.settings import TITLE, UpscaleSettings
from lib_latent_upscale.standalone.engine.infotext import Infotext, write_infotext
from lib_latent_upscale.tile_settings import TileSettings

if TYPE_CHECKING:
    from torch import Tensor

    from lib_latent_upscale.schedules import StepPlan

__all__ = [
    "LARGEST_SIDE",
    "SMALLEST_SIDE",
    "GenerationSettings",
    "RanPass",
    "check_size",
    "read_fields",
    "write_parameters",
]

SMALLEST_SIDE = 16
"""Pixels; two latent cells, the least that an interpolation needs."""
LARGEST_SIDE = 8192
"""Pixels; 1024 latent cells."""
LARGEST_SEED = 2**32 - 1
LARGEST_CFG_SCALE = 100.0


def _check_range(name: str, value: float, lowest: float, highest: float) -> None:
    if not lowest <= value <= highest:  # also catches nan
        raise InputError(f"{name} {value} is out of range: allowed is {lowest} to {highest}.")


def check_size(width: int, height: int, what: str = "Size", smallest: int = SMALLEST_SIDE) -> None:
    """Check that both sides (pixels) are from `smallest` to `LARGEST_SIDE`; `what` begins the error.

    Raises:
        SizeError: one is not.
    """
    if not (smallest <= width <= LARGEST_SIDE and smallest <= height <= LARGEST_SIDE):
        raise SizeError(
            f"{what} {width}x{height} is out of range: each side may be {smallest} to {LARGEST_SIDE} pixels."
        )


@dataclass(frozen=True)
class RanPass:
    """A pass that has run on a finished picture."""

    settings: Settings
    model: str
    """Name of its model."""


@dataclass(frozen=True)
class GenerationSettings:
    """The settings of one generation, as in the WebUI's img2img tab.

    Raises:
        InputError: a value that is not allowed.
    """

    width: int
    """Pixels of the result."""
    height: int
    """Pixels of the result."""
    prompt: str = ""
    negative_prompt: str = ""
    steps: int = 20
    sampler: str = "Euler"
    cfg_scale: float = 7.0
    seed: int = 1
    denoising_strength: float = 0.5
    model: str = "demo"
    upscale: UpscaleSettings = field(default_factory=UpscaleSettings)
    tile: TileSettings | None = None
    """Settings of the tile ControlNet; None without one."""
    tile_model: str = ""
    passes: tuple[RanPass, ...] = ()
    """Passes that have run on the finished picture; they may have made it larger than `size`."""

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
        """The sigmas that run, of a model with the noise table `model_sigmas` (ascending)."""
        return plan_of(self.upscale, self.sampler, self.steps, self.denoising_strength, model_sigmas)

    def followed_by(self, settings: Settings, model: str) -> GenerationSettings:
        """These settings, and a pass that ran with the model of this name."""
        return replace(self, passes=(*self.passes, RanPass(settings, model)))

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.width, self.height


def plan_of(upscale: UpscaleSettings, sampler: str, steps: int, strength: float, model_sigmas: Tensor) -> StepPlan:
    """The sigmas that settings run with a sampler, a name in `SAMPLERS`.

    Raises:
        ValueError: as for `UpscaleSettings.plan`.
    """
    row = SAMPLERS[sampler]
    return upscale.plan(
        steps,
        strength,
        model_sigmas,
        host_schedule=row.automatic,
        discard_penultimate=row.discards_penultimate,
    )


def _number(value: float) -> str:
    """The shortest text for a number: 7.0 is written as 7, as by the WebUI."""
    return str(int(value)) if math.isfinite(value) and value == int(value) else repr(value)


def write_parameters(generation: GenerationSettings) -> str:
    """The infotext, as the WebUI writes it into a PNG's `parameters`."""
    values: dict[str, object] = {
        "Steps": generation.steps,
        "Sampler": generation.sampler,
        "CFG scale": _number(generation.cfg_scale),
        "Seed": generation.seed,
        "Size": f"{generation.width}x{generation.height}",
        "Model": generation.model,
        "Denoising strength": _number(generation.denoising_strength),
        "RNG": "CPU",
        "Script": TITLE,
        **generation.upscale.to_infotext(),
    }
    if generation.tile is not None:
        values |= generation.tile.with_model(generation.tile_model)
    for one in generation.passes:
        values |= one.settings.with_model(one.model)
    return write_infotext(generation.prompt, generation.negative_prompt, values)


_READERS: Mapping[str, tuple[str, Callable[[str], Any]]] = MappingProxyType(
    {
        "Steps": ("steps", int),
        "Sampler": ("sampler", str),
        "CFG scale": ("cfg_scale", float),
        "Seed": ("seed", int),
        "Denoising strength": ("denoising_strength", float),
        "Model": ("model", str),
    }
)
"""Fields of `GenerationSettings` by their labels, and how they are read."""


def read_fields(infotext: Infotext) -> dict[str, Any]:
    """The fields of `GenerationSettings` in an infotext, without those of the upscale and of passes.

    Raises:
        InputError: a value is not a number, although one is needed; names the label.
    """
    values = infotext.values
    found = {"prompt": infotext.prompt, "negative_prompt": infotext.negative_prompt}
    found |= {name: _read(label, read, values[label]) for label, (name, read) in _READERS.items() if label in values}
    size = re.fullmatch(r"(\d+)x(\d+)", values.get("Size", ""))
    return found | ({} if size is None else {"width": int(size[1]), "height": int(size[2])})


def _read(label: str, read: Callable[[str], Any], text: str) -> Any:
    try:
        return read(text)
    except ValueError:
        raise InputError(f"{label} is {shortened(text)}; a number is needed.") from None
