"""All options in one place: the classes of settings in the order in which the API and the documentation name them."""

from __future__ import annotations

from lib_latent_upscale.comparison.settings import CompareSettings
from lib_latent_upscale.options import Settings
from lib_latent_upscale.settings import UpscaleSettings
from lib_latent_upscale.tile_settings import TileSettings
from lib_latent_upscale.x4_settings import X4Settings

__all__ = ["CATALOGUE"]

CATALOGUE: tuple[type[Settings], ...] = (UpscaleSettings, CompareSettings, TileSettings, X4Settings)
"""A class that is in here has its controls, settings, flags and rows of docs/options.md."""
