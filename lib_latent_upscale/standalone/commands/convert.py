"""The subcommand `convert`: a latent upscaler that is a pickle as a .safetensors file."""

from __future__ import annotations

import argparse
import sys

from lib_latent_upscale.errors import InputError
from lib_latent_upscale.learned.files import SUFFIX, converted_pickle
from lib_latent_upscale.standalone.files.outputs import Outputs
from lib_latent_upscale.writing import write_whole

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    """Write the file, whole or not at all, and print its name; returns the exit code.

    Raises:
        InputError: the pickle does not exist or holds no supported upscaler, or the file cannot be written.
    """
    source = arguments.input
    if not source.is_file():
        raise InputError(f"{source}: there is no such file.")
    outputs = Outputs([source], arguments.overwrite)
    if arguments.output is None:
        target = outputs.free(source.with_suffix(SUFFIX))
    else:
        target = outputs.named(arguments.output, (SUFFIX,))
    written = write_whole(target, converted_pickle(source), overwrite=arguments.overwrite)
    sys.stdout.write(f"{written}\n")
    return 0
