"""Everything a person can choose about the x4 upscaler, and how it is written into the picture's infotext."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from lib_latent_upscale.checks import (
    Check,
    Name,
    Number,
    Whole,
    check_all,
    check_bool,
    check_known,
    check_text,
    read_infotext,
)
from lib_latent_upscale.schedules import MAX_STEPS, SCHEDULES
from lib_latent_upscale.x4_upscaler.errors import X4Error

__all__ = ["SAMPLERS", "X4_INFOTEXT_LABELS", "X4_MODEL_LABEL", "Sampler", "X4Settings"]

MAX_NOISE_LEVEL = 349
"""Training drew the noise level from 0 to 349; diffusers lets 350 pass, which the model has never seen."""


@dataclass(frozen=True)
class Sampler:
    """A row of `SAMPLERS`."""

    function: str
    """Name in k_diffusion.sampling."""
    evaluations: int = 1
    """Calls of the model a step, except for a step to zero, which takes one."""
    brownian: bool = False
    """Takes its noise from a Brownian tree."""
    ends_at_zero: bool = True
    """False: the last sigma is the smallest of the model's table, as in the published pipeline's DDIM."""


SAMPLERS: Mapping[str, Sampler] = MappingProxyType(
    {
        "DPM++ 2M": Sampler("sample_dpmpp_2m"),
        "Euler": Sampler("sample_euler"),
        "Euler a": Sampler("sample_euler_ancestral"),
        "Heun": Sampler("sample_heun", evaluations=2),
        "LMS": Sampler("sample_lms"),
        "DPM2": Sampler("sample_dpm_2", evaluations=2),
        "DPM2 a": Sampler("sample_dpm_2_ancestral", evaluations=2),
        "DPM++ 2S a": Sampler("sample_dpmpp_2s_ancestral", evaluations=2),
        "DPM++ SDE": Sampler("sample_dpmpp_sde", evaluations=2, brownian=True),
        "DPM++ 2M SDE": Sampler("sample_dpmpp_2m_sde", brownian=True),
        "DPM++ 3M SDE": Sampler("sample_dpmpp_3m_sde", brownian=True),
        "DDIM": Sampler("sample_euler", ends_at_zero=False),
    }
)
"""Samplers by the names people know. DDIM (eta 0) is Euler's method in the space of k-diffusion, section 4.3 of
arXiv:2010.02502; with the schedule "ddim_uniform" it takes the steps of diffusers' StableDiffusionUpscalePipeline."""

X4_MODEL_LABEL = "x4 upscaler model"
"""Label under which a host writes the model's name; the model is no part of the settings."""

X4_INFOTEXT_LABELS: tuple[tuple[str, str], ...] = (
    ("prompt", "x4 upscaler prompt"),
    ("negative_prompt", "x4 upscaler negative prompt"),
    ("noise_level", "x4 upscaler noise level"),
    ("guidance_scale", "x4 upscaler guidance scale"),
    ("steps", "x4 upscaler steps"),
    ("sampler", "x4 upscaler sampler"),
    ("scheduler", "x4 upscaler scheduler"),
    ("seed", "x4 upscaler seed"),
    ("colour_guard", "x4 upscaler colour guard"),
    ("tile", "x4 upscaler tile size"),
    ("overlap", "x4 upscaler tile overlap"),
    ("decoder_tile", "x4 upscaler decoder tile size"),
)
"""(field, label) of every setting. Labels stand in people's pictures: they never change."""

AUTOMATIC_TILE = 0
SMALLEST_TILE = 32
LARGEST_TILE = 2048


@dataclass(frozen=True)
class X4Settings:
    """Settings of one pass of the x4 upscaler; invalid ones cannot exist.

    Raises X4Error (a ValueError) for a value that is not allowed; it names the field, the value and what is allowed.
    """

    prompt: str = ""
    """What the picture shows; empty works well."""
    negative_prompt: str = ""
    """What the picture should not show; used where the guidance scale is above 1."""
    noise_level: int = 20
    """Noise added to the input, 0 to 349: more lets the model invent more. About 100 for generated pictures."""
    guidance_scale: float = 9.0
    """How strongly the prompts pull, 1 to 50; 1 switches guidance off and halves the time."""
    steps: int = 20
    """Sampling steps, 1 to 1000; 20 to 75 are usual."""
    sampler: str = "DPM++ 2M"
    """A name in `SAMPLERS`."""
    scheduler: str = "simple"
    """A name in `SCHEDULES`."""
    seed: int = -1
    """Seed of the noise, 0 to 2**63 - 1; -1 draws one, and the result says which."""
    colour_guard: bool = True
    """Make the low frequencies of the result follow the input's."""
    tile: int = AUTOMATIC_TILE
    """Side of a tile in input pixels, 32 to 2048 in steps of 8; 0 chooses from the free memory. Below 96 the model
    sees less than it was trained on."""
    overlap: int = 32
    """Least overlap of two tiles in input pixels, 0 to 256 in steps of 8; at most half a tile is used."""
    decoder_tile: int = AUTOMATIC_TILE
    """Side of a tile for decoding, like `tile`; 0 chooses."""

    def __post_init__(self) -> None:
        with _as_x4_error():
            check_all(self, _CHECKS)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> X4Settings:
        """Settings from names and values; absent ones take the default, unknown ones are an X4Error."""
        with _as_x4_error():
            check_known(values, cls, "x4 settings")
        return cls(**values)

    def to_infotext(self) -> dict[str, str]:
        """Labels and values as they stand in a picture's infotext; empty prompts are left out."""
        values = ((label, str(getattr(self, field))) for field, label in X4_INFOTEXT_LABELS)
        return {label: value for label, value in values if value}

    @classmethod
    def from_infotext(cls, infotext: Mapping[str, Any]) -> X4Settings:
        """Settings from parsed infotext; other labels are ignored, absent ones take the default.

        Raises X4Error for a value that is not allowed; the message names the label.
        """
        with _as_x4_error():
            return cls(**read_infotext(cls, X4_INFOTEXT_LABELS, _CHECKS, infotext))


@contextmanager
def _as_x4_error() -> Iterator[None]:
    """Give a check's ValueError the kind that callers of this package catch."""
    try:
        yield
    except ValueError as error:
        raise X4Error(str(error)) from None


_TILE = Whole(SMALLEST_TILE, LARGEST_TILE, 8, (AUTOMATIC_TILE,))

_CHECKS: Mapping[str, Check] = {
    "prompt": check_text,
    "negative_prompt": check_text,
    "noise_level": Whole(0, MAX_NOISE_LEVEL),
    "guidance_scale": Number(1, 50, "no guidance"),
    "steps": Whole(1, MAX_STEPS),
    "sampler": Name(tuple(SAMPLERS)),
    "scheduler": Name(tuple(SCHEDULES)),
    "seed": Whole(0, 2**63 - 1, extra=(-1,)),
    "colour_guard": check_bool,
    "tile": _TILE,
    "overlap": Whole(0, 256, 8),
    "decoder_tile": _TILE,
}
