"""The standalone host: the same latent upscale without a WebUI, on diffusers' models and k-diffusion's samplers."""
