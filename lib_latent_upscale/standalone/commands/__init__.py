"""The subcommands of `latent-upscale`, a file each."""
