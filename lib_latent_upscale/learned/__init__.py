"""Learned latent upscalers: weights of our own inside the package, and the user's own files.

    restore_latent(latent, factor, family)          latents of a resized picture -> of a sharp one, the same size
    upscale_latent(latent, (height, width), family) small latents -> large ones

    upscale_with(path, latent, (height, width), family)    the same by a file of the user's own

Families of latents: `FAMILIES` for the networks of the package, `LATENTS` for files. How the networks were trained, and
what was measured: weights/learned/README.md.
"""

from lib_latent_upscale.learned.families import LATENTS, Family, family_of
from lib_latent_upscale.learned.files import upscale_with
from lib_latent_upscale.learned.upscalers import FAMILIES, knows, restore_latent, upscale_latent, weights_hash

__all__ = [
    "FAMILIES",
    "LATENTS",
    "Family",
    "family_of",
    "knows",
    "restore_latent",
    "upscale_latent",
    "upscale_with",
    "weights_hash",
]
