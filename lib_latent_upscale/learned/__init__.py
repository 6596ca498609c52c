"""Learned latent upscalers: weights of our own inside the package, and the person's own files.

    restore_latent(latent, factor, family)          latents of a resized picture -> of a sharp one, the same size
    upscale_latent(latent, (height, width), family) small latents -> large ones

Which latents: `FAMILIES`. How the networks were trained and what they are worth: weights/learned/README.md.
"""

from lib_latent_upscale.learned.upscalers import FAMILIES, Family, restore_latent, upscale_latent, weights_hash

__all__ = ["FAMILIES", "Family", "restore_latent", "upscale_latent", "weights_hash"]
