"""Latent Upscale: enlarge latents, then denoise them in exactly the requested number of steps."""

__version__ = "0.1.0"
