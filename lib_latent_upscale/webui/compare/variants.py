"""What takes part in a comparison, as it is asked for in the script's arguments."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

from lib_latent_upscale.comparison.variants import (
    Variant,
    further_variant,
    paired_variants,
    usual_variants,
    without_twins,
)
from lib_latent_upscale.interpolation import INTERPOLATIONS
from lib_latent_upscale.schedules import SCHEDULES
from lib_latent_upscale.settings import AUTOMATIC, UpscaleSettings

__all__ = [
    "COMPARE_CONTROLS",
    "COMPARE_FIELDS",
    "COMPARE_LABELS",
    "CompareSettings",
    "make_variants",
]

COMPARE_LABELS: Mapping[str, str] = MappingProxyType(
    {
        "compare": "Latent upscale compare",
        "compare_methods": "Latent upscale compare methods",
        "compare_schedulers": "Latent upscale compare schedulers",
        "compare_difference": "Latent upscale compare difference",
        "compare_variants": "Latent upscale compare variants",
    }
)
"""Labels in the infotext of a sheet. They stand in people's pictures: they never change."""


@dataclass(frozen=True)
class CompareSettings:
    """Whether to compare, and what; every combination of a method and a scheduler is a variant.

    Raises:
        ValueError: a value that is not allowed; the message names the field, the value and what is allowed.
    """

    compare: bool = False
    compare_methods: Sequence[str] = ()
    """Names in `INTERPOLATIONS`; without any, the method of the settings."""
    compare_schedulers: Sequence[str] = ()
    """Names in `SCHEDULES`, or `AUTOMATIC`; without any, the scheduler of the settings."""
    compare_difference: bool = False
    """Also make a map of where the WebUI's default and the settings' own picture differ."""
    compare_variants: Sequence[Mapping[str, Any]] = ()
    """Further variants: settings that differ from the script's own, and overrides of the host's (see `_OVERRIDES`)."""

    def __post_init__(self) -> None:
        for field in ("compare", "compare_difference"):
            if not isinstance(getattr(self, field), bool):
                raise ValueError(f"{field} is {getattr(self, field)!r}; choose True or False")
        _check_names("compare_methods", self.compare_methods, list(INTERPOLATIONS))
        _check_names("compare_schedulers", self.compare_schedulers, [*SCHEDULES, AUTOMATIC])
        if not _is_list(self.compare_variants) or not all(isinstance(one, Mapping) for one in self.compare_variants):
            raise ValueError(
                f"compare_variants is {self.compare_variants!r}; a list of dictionaries is needed, "
                'such as [{"method": "bislerp", "steps": 30}]'
            )
        for field in ("compare_methods", "compare_schedulers", "compare_variants"):
            object.__setattr__(self, field, tuple(getattr(self, field)))  # neither the caller's list nor a mutable one

    def to_infotext(self) -> dict[str, str]:
        """Labels and values as they stand in the infotext of a sheet; lists are joined by commas."""
        written = {
            "compare": str(self.compare),
            "compare_methods": ", ".join(self.compare_methods),
            "compare_schedulers": ", ".join(self.compare_schedulers),
            "compare_difference": str(self.compare_difference),
            "compare_variants": json.dumps([dict(one) for one in self.compare_variants]) * bool(self.compare_variants),
        }
        return {COMPARE_LABELS[field]: value for field, value in written.items() if value}


COMPARE_FIELDS: tuple[str, ...] = tuple(field.name for field in fields(CompareSettings))
COMPARE_CONTROLS = COMPARE_FIELDS[:-1]
"""Fields that have a control, in its order; the further variants can only be given by name."""


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _check_names(field: str, value: Any, allowed: Sequence[str]) -> None:
    if not _is_list(value):
        raise ValueError(f"{field} is {value!r}; a list of names is needed, of: {', '.join(allowed)}")
    unknown = [name for name in value if name not in allowed]
    if unknown:
        raise ValueError(f"{field} has {', '.join(map(repr, unknown))}; choose from: {', '.join(allowed)}")


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


_OVERRIDES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "steps": (lambda value: isinstance(value, int) and not isinstance(value, bool), "an integer of 1 to 1000"),
    "denoising_strength": (lambda value: _number(value) and 0 <= value <= 1, "a number of 0 to 1"),
    "cfg_scale": (_number, "a number"),
    "sampler_name": (lambda value: isinstance(value, str), "the name of a sampler"),
}
"""What a variant may change of the host's own settings, and what is allowed there."""


def make_variants(
    own: UpscaleSettings, asked: CompareSettings, host_schedule: str, passes: Sequence[str] = ()
) -> list[Variant]:
    """The variants in the order in which they run; the WebUI's default is the first. None is there twice.

    Args:
        own: the script's settings, the second variant; what others do not name is as there.
        asked: the further variants.
        host_schedule: what the WebUI runs by itself. With matched noise its default is shown a second time, from the
            noise that all others start from.
        passes: names of the passes that are set up. Each is one more variant: the script's settings with all passes up
            to this one.

    Raises:
        ValueError: a further variant that is not allowed, or only one variant altogether.
    """
    wanted = usual_variants(own, host_schedule if host_schedule in SCHEDULES else None)
    wanted += paired_variants(own, asked.compare_methods, asked.compare_schedulers)
    wanted += [_further(index, given, own) for index, given in enumerate(asked.compare_variants)]
    wanted += [_with_passes(own, passes[: count + 1]) for count in range(len(passes))]
    variants = without_twins(wanted)
    if len(variants) < 2:
        raise ValueError("compare: the settings are the WebUI's default; choose another method, or methods to compare")
    return variants


def _with_passes(own: UpscaleSettings, passes: Sequence[str]) -> Variant:
    return Variant(" + ".join(["Latent Upscale", *passes]), own, role="pass", passes=tuple(passes))


def _further(index: int, given: Mapping[str, Any], own: UpscaleSettings) -> Variant:
    try:
        variant = further_variant(given, own, _OVERRIDES)
    except ValueError as error:
        raise ValueError(f"compare_variants[{index}]: {error}") from None
    for name, value in variant.overrides.items():
        allowed, text = _OVERRIDES[name]
        if not allowed(value):
            raise ValueError(f"compare_variants[{index}]: {name} is {value!r}; {text} is needed")
    return variant
