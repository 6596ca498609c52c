"""What the learned latent upscalers are worth, in the latents of four families, without denoising."""
