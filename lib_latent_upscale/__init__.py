"""Latent Upscale: enlarge latents with a chosen interpolation, then denoise them for exactly the steps asked for."""

__version__ = "0.1.0"
