"""Everything a user can choose about tile ControlNet, and how it is written into the picture's infotext.

Tile ControlNet shows the picture that is being enlarged to the denoising model at every step, so that a high denoising
strength invents detail and keeps the composition.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lib_latent_upscale.options import MAX_STEPS, Settings, SettingsError, option
from lib_latent_upscale.settings import SCHEDULERS

__all__ = ["CONTROL_MODES", "PREPROCESSORS", "TileSettings"]

PREPROCESSORS = ("none", "tile_resample", "tile_colorfix", "tile_colorfix+sharp")
"""What is done to the control picture, by the names of sd-webui-controlnet."""

CONTROL_MODES = ("Balanced", "My prompt is more important", "ControlNet is more important")
"""Which has priority, prompt or control picture, by the names of sd-webui-controlnet."""


@dataclass(frozen=True)
class TileSettings(Settings):
    """Settings of one tile ControlNet; invalid ones cannot exist."""

    TITLE: ClassVar[str] = "tile ControlNet settings"
    HEADING: ClassVar[str] = "Tile ControlNet"
    NAME: ClassVar[str] = "Tile ControlNet"
    SWITCH: ClassVar[str] = "tile_controlnet"
    MODEL: ClassVar[str] = "Tile model"
    MODEL_LABEL: ClassVar[str] = "Tile ControlNet model"
    MODEL_FLAG: ClassVar[str] = "--tile-controlnet"
    PREFIX: ClassVar[str] = "tile_controlnet_"
    ELEMENTS: ClassVar[str] = "tile_"
    FLAGS: ClassVar[str] = "--controlnet-"

    weight: float = option(
        1.0,
        low=0,
        high=2,
        step=0.05,
        label="Tile weight",
        infotext="Tile ControlNet weight",
        tip="how strongly the picture guides; 0: not at all",
    )
    start: float = option(
        0.0,
        low=0,
        high=1,
        label="Tile start",
        infotext="Tile ControlNet start",
        tip="fraction of the steps after which guiding begins",
    )
    end: float = option(
        1.0,
        low=0,
        high=1,
        label="Tile end",
        infotext="Tile ControlNet end",
        tip="fraction of the steps after which guiding ends; above the start",
    )
    preprocessor: str = option(
        "tile_resample",
        choices=PREPROCESSORS,
        label="Tile preprocessor",
        infotext="Tile ControlNet preprocessor",
        tip="what is done to the picture first: shrink it (tile_resample), or make the result follow its colours",
    )
    down_sampling_rate: float = option(
        1.0,
        low=1,
        high=8,
        label="Tile down-sampling rate",
        infotext="Tile ControlNet down-sampling rate",
        tip="how much smaller tile_resample makes the picture; more leaves more room for new detail",
    )
    control_mode: str = option(
        "Balanced",
        choices=CONTROL_MODES,
        label="Tile control mode",
        infotext="Tile ControlNet control mode",
        flag="mode",
        tip="which wins where prompt and picture disagree",
    )
    second_pass: bool = option(
        False,
        label="Tile ControlNet as a second pass",
        infotext="Tile ControlNet second pass",
        axis=False,
        flag="--second-pass",
        tip="guide a separate pass over the result of the latent upscale, not the upscale itself",
    )
    second_denoising_strength: float = option(
        0.8,
        low=0,
        high=1,
        label="Second pass denoising strength",
        infotext="Tile ControlNet second denoising strength",
        axis=False,
        flag="--second-denoise",
        tip="denoising strength of the second pass",
    )
    second_steps: int = option(
        20,
        low=1,
        high=MAX_STEPS,
        slider_high=150,
        label="Second pass steps",
        infotext="Tile ControlNet second steps",
        axis=False,
        flag="--second-steps",
        tip="steps of the second pass",
    )
    second_scheduler: str = option(
        "simple",
        choices=SCHEDULERS,
        label="Second pass scheduler",
        infotext="Tile ControlNet second scheduler",
        axis=False,
        flag="--second-scheduler",
        tip="sigma schedule of the second pass",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.start >= self.end:
            raise SettingsError(
                type(self),
                "{start} is {0!r} and {end} is {1!r}; {start} must be smaller than {end}",
                self.start,
                self.end,
            )

    def matters(self, name: str) -> bool:
        """Whether a field has any effect, given the values of the others."""
        if name == "down_sampling_rate":
            return self.preprocessor == "tile_resample"
        return self.second_pass or not name.startswith("second_") or name == "second_pass"
