"""The variants of a comparison, from the script's arguments."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lib_latent_upscale.comparison.settings import CompareSettings
from lib_latent_upscale.comparison.variants import (
    Variant,
    further_variant,
    paired_variants,
    usual_variants,
    without_twins,
)
from lib_latent_upscale.errors import InputError
from lib_latent_upscale.schedules import SCHEDULES
from lib_latent_upscale.settings import TITLE, UpscaleSettings

__all__ = ["make_variants"]


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


_OVERRIDES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "steps": (lambda value: isinstance(value, int) and not isinstance(value, bool), "an integer of 1 to 1000"),
    "denoising_strength": (lambda value: _number(value) and 0 <= value <= 1, "a number of 0 to 1"),
    "cfg_scale": (_number, "a number"),
    "sampler_name": (lambda value: isinstance(value, str), "the name of a sampler"),
}
"""The host's settings that a variant may change, and their allowed values."""


def make_variants(
    own: UpscaleSettings, asked: CompareSettings, host_schedule: str, passes: Sequence[str] = ()
) -> list[Variant]:
    """The variants in the order in which they run, without duplicates; the WebUI's default is the first.

    Args:
        own: the script's settings, on which further variants are based.
        asked: the further variants.
        host_schedule: the schedule that the WebUI itself uses; see `usual_variants`.
        passes: names of the passes. Each is one more variant: the script's settings with all passes up to this one.

    Raises:
        ValueError: a further variant that is not allowed, or only one variant altogether.
    """
    wanted = usual_variants(own, host_schedule if host_schedule in SCHEDULES else None)
    wanted += paired_variants(own, asked.compare_methods, asked.compare_schedulers)
    wanted += [_further(index, given, own) for index, given in enumerate(asked.compare_variants)]
    wanted += [_with_passes(own, passes[: count + 1]) for count in range(len(passes))]
    variants = without_twins(wanted)
    if len(variants) < 2:
        raise InputError("compare: the settings are the WebUI's default; choose another method, or methods to compare")
    return variants


def _with_passes(own: UpscaleSettings, passes: Sequence[str]) -> Variant:
    return Variant(" + ".join([TITLE, *passes]), own, role="pass", passes=tuple(passes))


def _further(index: int, given: Mapping[str, Any], own: UpscaleSettings) -> Variant:
    try:
        variant = further_variant(given, own, _OVERRIDES)
    except ValueError as error:
        raise InputError(f"compare_variants[{index}]: {error}") from None
    for name, value in variant.overrides.items():
        allowed, text = _OVERRIDES[name]
        if not allowed(value):
            raise InputError(f"compare_variants[{index}]: {name} is {value!r}; {text} is needed")
    return variant
