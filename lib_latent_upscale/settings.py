"""Everything a person can choose that changes the picture, and how it is written into the picture's infotext."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from lib_latent_upscale.interpolation import INTERPOLATIONS
from lib_latent_upscale.schedules import SCHEDULES

__all__ = ["AUTOMATIC", "INFOTEXT_LABELS", "UpscaleSettings"]

AUTOMATIC = "automatic"
"""The scheduler's name that leaves the host's own schedule in place."""

INFOTEXT_LABELS: tuple[tuple[str, str], ...] = (
    ("method", "Latent upscale method"),
    ("scheduler", "Latent upscale scheduler"),
    ("exact_steps", "Latent upscale exact steps"),
    ("keep_statistics", "Latent upscale keep statistics"),
    ("matched_noise", "Latent upscale matched noise"),
)
"""(field, label) of every setting. Labels stand in people's pictures: they never change."""


@dataclass(frozen=True)
class UpscaleSettings:
    """Settings of one latent upscale; invalid ones cannot exist.

    Raises:
        ValueError: a value that is not allowed; the message names the field, the value and what is allowed.
    """

    method: str = "nearest-exact"
    """Interpolation of the latents, a name in `INTERPOLATIONS`."""
    scheduler: str = "simple"
    """Sigma schedule, a name in `SCHEDULES`, or `AUTOMATIC` for the host's own."""
    exact_steps: bool = True
    """Run exactly the steps asked for, whatever the denoising strength."""
    keep_statistics: bool = False
    """Restore each latent channel's mean and standard deviation after the interpolation."""
    matched_noise: bool = False
    """Start every schedule from the same sigma, so that schedules can be compared."""

    def __post_init__(self) -> None:
        _check_name("method", self.method, list(INTERPOLATIONS))
        _check_name("scheduler", self.scheduler, [AUTOMATIC, *SCHEDULES])
        for field in ("exact_steps", "keep_statistics", "matched_noise"):
            _check_bool(field, getattr(self, field))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> UpscaleSettings:
        """Settings from names and values; absent ones take the default.

        Raises:
            ValueError: an unknown name (the known ones are listed) or a value that is not allowed.
        """
        known = [field.name for field in fields(cls)]
        unknown = [name for name in values if name not in known]
        if unknown:
            raise ValueError(f"unknown settings {unknown}; known are: {', '.join(known)}")
        return cls(**values)

    def to_infotext(self) -> dict[str, str]:
        """Labels and values as they stand in a picture's infotext, in the order of `INFOTEXT_LABELS`."""
        return {label: str(getattr(self, field)) for field, label in INFOTEXT_LABELS}

    @classmethod
    def from_infotext(cls, infotext: Mapping[str, Any]) -> UpscaleSettings:
        """Settings from parsed infotext; other labels are ignored, absent ones take the default.

        Raises:
            ValueError: a value that is not allowed; the message names the label.
        """
        given = [(field, label) for field, label in INFOTEXT_LABELS if label in infotext]
        return cls(**{field: _parse(field, label, infotext[label]) for field, label in given})


def _parse(field: str, label: str, value: object) -> Any:
    """A value of infotext as its field's type; the one field is tried alone so that an error can name its label."""
    if isinstance(getattr(UpscaleSettings, field), bool) and isinstance(value, str):
        value = {"true": True, "false": False}.get(value.strip().lower(), value)
    try:
        UpscaleSettings(**{field: value})  # type: ignore[arg-type]
    except ValueError as error:
        raise ValueError(f"{label}: {error}") from None
    return value


def _check_name(field: str, value: object, allowed: Sequence[str]) -> None:
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{field} is {value!r}; choose one of: {', '.join(allowed)}")


def _check_bool(field: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{field} is {value!r}; choose True or False")
