"""Settings of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lib_latent_upscale.options import Dictionaries, Settings, option
from lib_latent_upscale.settings import METHODS, SCHEDULERS

__all__ = ["CompareSettings"]


@dataclass(frozen=True)
class CompareSettings(Settings):
    """Whether to compare, and which variants: every combination of a method and a scheduler is one."""

    TITLE: ClassVar[str] = "settings of a comparison"
    HEADING: ClassVar[str] = "Compare"

    compare: bool = option(
        False,
        label="Compare",
        infotext="Latent upscale compare",
        axis=False,
        setting=False,
        flag=False,
        tip="run the WebUI's own upscale, the settings above and the variants below, and show them on one sheet",
    )
    compare_methods: Sequence[str] = option(
        (),
        choices=METHODS,
        label="Methods to compare",
        infotext="Latent upscale compare methods",
        axis=False,
        flag=False,
        tip="run each of them with each of the schedulers; none: the upscale method above",
    )
    compare_schedulers: Sequence[str] = option(
        (),
        choices=SCHEDULERS,
        label="Schedulers to compare",
        infotext="Latent upscale compare schedulers",
        axis=False,
        flag=False,
        tip="run each of them with each of the methods; none: the scheduler above",
    )
    compare_difference: bool = option(
        False,
        label="Difference map",
        infotext="Latent upscale compare difference",
        axis=False,
        flag="--difference",
        tip="also show where the WebUI's default and your result differ",
    )
    compare_variants: Sequence[Mapping[str, Any]] = option(
        (),
        allowed=Dictionaries('[{"method": "bislerp", "steps": 30}]'),
        label="Further variants",
        infotext="Latent upscale compare variants",
        axis=False,
        setting=False,
        flag=False,
        control=False,
        tip="settings that differ from the ones above; also steps, denoising_strength, cfg_scale and sampler_name",
    )
