"""How the learned latent upscalers are made: pictures, their latents, training, measuring."""
