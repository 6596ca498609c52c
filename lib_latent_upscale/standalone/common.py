"""What the subcommands share: settings from arguments, progress bars."""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lib_latent_upscale.settings import UpscaleSettings
from lib_latent_upscale.standalone.errors import InputError
from lib_latent_upscale.standalone.settings import LARGEST_SEED, GenerationSettings, check_size

if TYPE_CHECKING:
    from lib_latent_upscale.standalone.engine import Engine

__all__ = ["generation_settings", "load_engine", "progress_bar", "scaled_size", "target_size", "upscale_settings"]

SMALLEST_SCALE, LARGEST_SCALE, DEFAULT_SCALE = 0.25, 8.0, 2.0


def upscale_settings(arguments: argparse.Namespace) -> UpscaleSettings:
    """The core's settings; InputError where one is not allowed."""
    try:
        return UpscaleSettings(
            method=arguments.method,
            scheduler=arguments.scheduler,
            exact_steps=arguments.exact_steps,
            keep_statistics=arguments.keep_statistics,
            matched_noise=arguments.matched_noise,
        )
    except ValueError as error:
        raise InputError(str(error)) from error


def target_size(size: tuple[int, int], arguments: argparse.Namespace) -> tuple[int, int]:
    """(width, height) that a picture of `size` shall have."""
    if arguments.size is None:
        return scaled_size(size, DEFAULT_SCALE if arguments.scale is None else arguments.scale)
    wanted: tuple[int, int] = arguments.size
    check_size(*wanted, what="The result's size")
    return wanted


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(width, height) of a picture of `size` enlarged by `scale`."""
    if not SMALLEST_SCALE <= scale <= LARGEST_SCALE:
        raise InputError(f"Scale {scale} is out of range: allowed is {SMALLEST_SCALE} to {LARGEST_SCALE}.")
    width, height = round(size[0] * scale), round(size[1] * scale)
    check_size(width, height, what="The result's size")
    return width, height


def generation_settings(arguments: argparse.Namespace, size: tuple[int, int]) -> GenerationSettings:
    """The settings for a picture of `size` (width, height) before the upscale."""
    width, height = target_size(size, arguments)
    return GenerationSettings(
        width=width,
        height=height,
        prompt=arguments.prompt,
        negative_prompt=arguments.negative_prompt,
        steps=arguments.steps,
        sampler=arguments.sampler,
        cfg_scale=arguments.cfg_scale,
        seed=random.randint(0, LARGEST_SEED) if arguments.seed == -1 else arguments.seed,
        denoising_strength=arguments.denoise,
        model=arguments.model,
        upscale=upscale_settings(arguments),
    )


def load_engine(arguments: argparse.Namespace) -> Engine:
    """The engine on the model, device and number format of the arguments."""
    from lib_latent_upscale.standalone.engine import Engine
    from lib_latent_upscale.standalone.models import load_model

    with _notice("Loading the model ...", quiet=arguments.quiet):
        return Engine(load_model(arguments.model, device=arguments.device, dtype=arguments.dtype))


@contextmanager
def _notice(text: str, *, quiet: bool) -> Iterator[None]:
    """A line on stderr that is gone when the work is done."""
    from tqdm import tqdm

    with tqdm(desc=text, bar_format="{desc}", disable=quiet, leave=False):
        yield


@contextmanager
def progress_bar(
    description: str, *, quiet: bool, leave: bool = False, unit: str = "step"
) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr for one run; yields `progress(done, total)`."""
    from tqdm import tqdm

    with tqdm(desc=description, disable=quiet, leave=leave, unit=unit) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress
