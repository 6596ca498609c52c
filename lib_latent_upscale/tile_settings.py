"""Everything a person can choose about tile ControlNet, and how it is written into the picture's infotext.

Tile ControlNet shows the picture that is being enlarged to the denoising model at every step, so that a high denoising
strength invents detail and keeps the composition.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lib_latent_upscale.checks import Check, Name, Number, Whole, check_all, check_bool, check_known, read_infotext
from lib_latent_upscale.schedules import MAX_STEPS, SCHEDULES
from lib_latent_upscale.settings import AUTOMATIC

__all__ = ["CONTROL_MODES", "PREPROCESSORS", "TILE_INFOTEXT_LABELS", "TILE_MODEL_LABEL", "TileSettings"]

PREPROCESSORS = ("none", "tile_resample", "tile_colorfix", "tile_colorfix+sharp")
"""What is done to the control picture, by the names of sd-webui-controlnet."""

CONTROL_MODES = ("Balanced", "My prompt is more important", "ControlNet is more important")
"""Who wins where prompt and control picture disagree, by the names of sd-webui-controlnet."""

TILE_MODEL_LABEL = "Tile ControlNet model"
"""Label under which a host writes the model's name; the model is no part of the settings."""

TILE_INFOTEXT_LABELS: tuple[tuple[str, str], ...] = (
    ("weight", "Tile ControlNet weight"),
    ("start", "Tile ControlNet start"),
    ("end", "Tile ControlNet end"),
    ("preprocessor", "Tile ControlNet preprocessor"),
    ("down_sampling_rate", "Tile ControlNet down-sampling rate"),
    ("control_mode", "Tile ControlNet control mode"),
    ("second_pass", "Tile ControlNet second pass"),
    ("second_denoising_strength", "Tile ControlNet second denoising strength"),
    ("second_steps", "Tile ControlNet second steps"),
    ("second_scheduler", "Tile ControlNet second scheduler"),
)
"""(field, label) of every setting. Labels stand in people's pictures: they never change."""

_OF_THE_SECOND_PASS = ("second_denoising_strength", "second_steps", "second_scheduler")


@dataclass(frozen=True)
class TileSettings:
    """Settings of one tile ControlNet; invalid ones cannot exist.

    Raises:
        ValueError: a value that is not allowed; the message names the field, the value and what is allowed.
    """

    weight: float = 1.0
    """How strongly the control picture guides, 0 (not at all) to 2."""
    start: float = 0.0
    """Share of the steps after which the control begins, 0 to 1."""
    end: float = 1.0
    """Share of the steps after which the control ends, above `start`, to 1."""
    preprocessor: str = "tile_resample"
    """What is done to the control picture first, a name in `PREPROCESSORS`."""
    down_sampling_rate: float = 1.0
    """How much smaller tile_resample makes the control picture, 1 to 8: more leaves more room for new detail."""
    control_mode: str = "Balanced"
    """Who wins where prompt and control picture disagree, a name in `CONTROL_MODES`."""
    second_pass: bool = False
    """False: control the latent upscale itself. True: a pass of its own after it, which starts from its result."""
    second_denoising_strength: float = 0.8
    """Denoising strength of the second pass, 0 to 1."""
    second_steps: int = 20
    """Steps of the second pass, 1 to 1000."""
    second_scheduler: str = "simple"
    """Sigma schedule of the second pass, a name in `SCHEDULES`, or `AUTOMATIC` for the host's own."""

    def __post_init__(self) -> None:
        check_all(self, _CHECKS)
        if self.start >= self.end:
            raise ValueError(f"start is {self.start!r} and end is {self.end!r}; start must be smaller than end")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TileSettings:
        """Settings from names and values; absent ones take the default.

        Raises:
            ValueError: an unknown name (the known ones are listed) or a value that is not allowed.
        """
        check_known(values, cls, "tile ControlNet settings")
        return cls(**values)

    def to_infotext(self) -> dict[str, str]:
        """Labels and values as they stand in a picture's infotext; settings that change nothing are left out."""
        return {label: str(getattr(self, field)) for field, label in TILE_INFOTEXT_LABELS if self._matters(field)}

    def _matters(self, field: str) -> bool:
        if field == "down_sampling_rate":
            return self.preprocessor == "tile_resample"
        return self.second_pass or field not in _OF_THE_SECOND_PASS

    @classmethod
    def from_infotext(cls, infotext: Mapping[str, Any]) -> TileSettings:
        """Settings from parsed infotext; other labels are ignored, absent ones take the default.

        Raises:
            ValueError: a value that is not allowed; the message names the label.
        """
        return cls(**read_infotext(cls, TILE_INFOTEXT_LABELS, _CHECKS, infotext))


_CHECKS: Mapping[str, Check] = {
    "weight": Number(0, 2),
    "start": Number(0, 1),
    "end": Number(0, 1),
    "preprocessor": Name(PREPROCESSORS),
    "down_sampling_rate": Number(1, 8),
    "control_mode": Name(CONTROL_MODES),
    "second_pass": check_bool,
    "second_denoising_strength": Number(0, 1),
    "second_steps": Whole(1, MAX_STEPS),
    "second_scheduler": Name((AUTOMATIC, *SCHEDULES)),
}
