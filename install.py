"""Runs at every start of the WebUI. The host brings everything that the latent upscale needs; nothing is installed."""
