"""The Stable Diffusion x4 upscaler with bounded memory: four times larger, to the pixel, for any picture.

    model = load_x4("x4-upscaler-ema.safetensors")
    result = upscale_x4(picture, model, X4Settings(noise_level=100, seed=1))
    result.image.save("large.png")

The model: "High-Resolution Image Synthesis with Latent Diffusion Models", arXiv:2112.10752, and Stability AI's
configuration x4-upscaling.yaml. The input picture is noised and shown to the UNet beside the latent, which has the
input's height and width; the autoencoder enlarges four times.
"""

from lib_latent_upscale.x4_settings import X4Settings
from lib_latent_upscale.x4_upscaler.loading import X4Model, check_x4, load_x4
from lib_latent_upscale.x4_upscaler.sampling import X4Result, upscale_x4

__all__ = [
    "X4Model",
    "X4Result",
    "X4Settings",
    "check_x4",
    "load_x4",
    "upscale_x4",
]
