"""Everything a user can choose about the x4 upscaler, and how it is written into the picture's infotext."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from lib_latent_upscale.options import MAX_STEPS, Settings, SettingsError, option
from lib_latent_upscale.samplers import X4_SAMPLERS
from lib_latent_upscale.settings import SCHEDULES

__all__ = ["SMALLEST_TILE", "X4Settings"]

MAX_NOISE_LEVEL = 349
"""The model was trained with noise levels 0 to 349; diffusers also allows 350."""


AUTOMATIC_TILE = 0
SMALLEST_TILE = 32
LARGEST_TILE = 2048
_ON_SLIDER = 32
"""Step of the sliders, which begin at 0: no value lies between that and the smallest tile."""


@dataclass(frozen=True)
class X4Settings(Settings):
    """Settings of one pass of the x4 upscaler; invalid ones cannot exist."""

    TITLE: ClassVar[str] = "x4 settings"
    HEADING: ClassVar[str] = "x4 upscaler"
    NAME: ClassVar[str] = "x4 upscaler"
    SWITCH: ClassVar[str] = "x4"
    MODEL: ClassVar[str] = "x4 model"
    MODEL_LABEL: ClassVar[str] = "x4 upscaler model"
    MODEL_FLAG: ClassVar[str] = "--x4"
    PREFIX: ClassVar[str] = "x4_"
    ELEMENTS: ClassVar[str] = "x4_"
    FLAGS: ClassVar[str] = "--x4-"

    prompt: str = option(
        "",
        label="x4 prompt",
        infotext="x4 upscaler prompt",
        tip="what the picture shows; empty works well",
    )
    negative_prompt: str = option(
        "",
        label="x4 negative prompt",
        infotext="x4 upscaler negative prompt",
        tip="what the picture does not show; used where the guidance scale is above 1",
    )
    noise_level: int = option(
        20,
        low=0,
        high=MAX_NOISE_LEVEL,
        label="x4 noise level",
        infotext="x4 upscaler noise level",
        tip="noise added to the input: more lets the model invent more; about 100 for generated pictures",
    )
    guidance_scale: float = option(
        9.0,
        low=1,
        high=50,
        step=0.5,
        lowest_means="no guidance",
        label="x4 guidance scale",
        infotext="x4 upscaler guidance scale",
        tip="how strongly the prompts guide; 1 turns guidance off and halves the time",
    )
    steps: int = option(
        20,
        low=1,
        high=MAX_STEPS,
        slider_high=150,
        label="x4 steps",
        infotext="x4 upscaler steps",
        tip="sampling steps; 20 to 75 are usual",
    )
    sampler: str = option(
        "DPM++ 2M",
        choices=X4_SAMPLERS,
        label="x4 sampler",
        infotext="x4 upscaler sampler",
        tip="how steps are taken; DDIM with ddim_uniform is the published pipeline",
    )
    scheduler: str = option(
        "simple",
        choices=[SCHEDULES],
        label="x4 scheduler",
        infotext="x4 upscaler scheduler",
        tip="the sigmas of the steps",
    )
    seed: int = option(
        -1,
        low=0,
        high=2**63 - 1,
        extra=(-1,),
        label="x4 seed",
        infotext="x4 upscaler seed",
        tip="seed of the noise; -1 uses the picture's own, or a random one if it has none",
    )
    colour_guard: bool = option(
        True,
        label="x4 colour guard",
        infotext="x4 upscaler colour guard",
        tip="keep the colours of large areas as in the picture",
    )
    tile: int = option(
        AUTOMATIC_TILE,
        low=SMALLEST_TILE,
        high=LARGEST_TILE,
        step=8,
        extra=(AUTOMATIC_TILE,),
        slider_step=_ON_SLIDER,
        label="x4 tile size",
        infotext="x4 upscaler tile size",
        tip="tile size in pixels of the input; 0 chooses by free memory; below 96 the model sees less than in training",
    )
    overlap: int = option(
        32,
        low=0,
        high=256,
        step=8,
        label="x4 tile overlap",
        infotext="x4 upscaler tile overlap",
        tip="minimum overlap of two tiles in pixels of the input; at most half a tile is used",
    )
    decoder_tile: int = option(
        AUTOMATIC_TILE,
        low=SMALLEST_TILE,
        high=LARGEST_TILE,
        step=8,
        extra=(AUTOMATIC_TILE,),
        slider_step=_ON_SLIDER,
        label="x4 decoder tile size",
        infotext="x4 upscaler decoder tile size",
        tip="tile size for decoding; 0 chooses automatically",
    )

    @classmethod
    def read_infotext(cls, infotext: Mapping[str, Any]) -> dict[str, Any]:
        """The values that parsed infotext has for fields.

        Version 0.1 let an overlap pass that is larger than the tile, and used half a tile, as the tile itself means.
        """
        values = super().read_infotext(infotext)
        tile = values.get("tile", AUTOMATIC_TILE)
        return {**values, "overlap": min(values["overlap"], tile)} if tile and "overlap" in values else values

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tile != AUTOMATIC_TILE and self.overlap > self.tile:
            raise SettingsError(
                type(self),
                "{overlap} is {0} and {tile} is {1}; {overlap} must not be larger than {tile}",
                self.overlap,
                self.tile,
            )
