"""All options in one place: the classes of settings, and the names and the order that the WebUI's API has for them."""

from __future__ import annotations

from lib_latent_upscale.comparison.settings import CompareSettings
from lib_latent_upscale.options import Settings, rows
from lib_latent_upscale.settings import UpscaleSettings
from lib_latent_upscale.tile_settings import TileSettings
from lib_latent_upscale.x4_settings import X4Settings

__all__ = ["CATALOGUE", "NAMES", "POSITIONS"]

CATALOGUE: tuple[type[Settings], ...] = (UpscaleSettings, CompareSettings, TileSettings, X4Settings)
"""All classes of settings that have controls, defaults on the settings page, flags and rows in docs/options.md."""

NAMES: tuple[str, ...] = tuple(name for kind in CATALOGUE for name in kind.api_names())
"""Names of all arguments of the API."""

_FIRST = (
    "method",
    "scheduler",
    "exact_steps",
    "keep_statistics",
    "matched_noise",
    "compare",
    "compare_methods",
    "compare_schedulers",
    "compare_difference",
    "tile_controlnet",
    "tile_controlnet_model",
    "tile_controlnet_weight",
    "tile_controlnet_start",
    "tile_controlnet_end",
    "tile_controlnet_preprocessor",
    "tile_controlnet_down_sampling_rate",
    "tile_controlnet_control_mode",
    "tile_controlnet_second_pass",
    "tile_controlnet_second_denoising_strength",
    "tile_controlnet_second_steps",
    "tile_controlnet_second_scheduler",
    "x4",
    "x4_model",
    "x4_prompt",
    "x4_negative_prompt",
    "x4_noise_level",
    "x4_guidance_scale",
    "x4_steps",
    "x4_sampler",
    "x4_scheduler",
    "x4_seed",
    "x4_colour_guard",
    "x4_tile",
    "x4_overlap",
    "x4_decoder_tile",
)
"""Published positions, on which callers rely; new options follow them. Each release adds its own."""


def _given_by_name_only() -> set[str]:
    return {kind.api_name(name) for kind in CATALOGUE for name, row in rows(kind).items() if not row.control}


POSITIONS: tuple[str, ...] = (*_FIRST, *(name for name in NAMES if name not in {*_FIRST, *_given_by_name_only()}))
"""Names of the arguments in their order as a list, which is that of the WebUI's controls."""
