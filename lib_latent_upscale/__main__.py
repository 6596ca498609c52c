"""`python -m lib_latent_upscale`: the same as the command `latent-upscale`."""

import sys

from lib_latent_upscale.standalone.commands.cli import main

if __name__ == "__main__":
    sys.exit(main())
