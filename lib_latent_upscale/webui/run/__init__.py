"""One generation with a latent upscale, and a second one after it."""
