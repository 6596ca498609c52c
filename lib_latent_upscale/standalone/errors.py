"""The names of errors that were defined here; they live in `lib_latent_upscale.errors`."""

from lib_latent_upscale.errors import GenerationError, InputError, SizeError

__all__ = ["GenerationError", "InputError", "SizeError"]
