"""What may happen around and after a latent upscale: tile ControlNet and the x4 upscaler."""
