"""A picture's `parameters` text as the settings of a generation."""

from lib_latent_upscale.settings import UpscaleSettings
from lib_latent_upscale.standalone.engine.generation import GenerationSettings, RanPass, read_fields
from lib_latent_upscale.standalone.engine.infotext import read_infotext
from lib_latent_upscale.tile_settings import TileSettings
from lib_latent_upscale.x4_settings import X4Settings


def parse_parameters(text):
    infotext = read_infotext(text)
    values = infotext.values
    passes = {}
    if TileSettings.MODEL_LABEL in values:
        passes |= {"tile": TileSettings.from_infotext(values), "tile_model": values[TileSettings.MODEL_LABEL]}
    if X4Settings.MODEL_LABEL in values:
        passes["passes"] = (RanPass(X4Settings.from_infotext(values), values[X4Settings.MODEL_LABEL]),)
    return GenerationSettings(**read_fields(infotext), upscale=UpscaleSettings.from_infotext(values), **passes)


def read_x4(text):
    """Model and settings of the x4 upscaler."""
    values = read_infotext(text).values
    return values[X4Settings.MODEL_LABEL], X4Settings.from_infotext(values)
