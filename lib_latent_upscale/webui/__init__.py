"""The extension of the Automatic1111 WebUI, Forge and reForge."""
