"""Picture in, enlarged picture out, on diffusers and k-diffusion."""
