"""The Stable Diffusion x4 upscaler: the subcommand `x4`, and a pass of `upscale`."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from lib_latent_upscale.errors import GenerationError, InputError, first_line
from lib_latent_upscale.standalone.commands.common import (
    given_inputs,
    opened,
    progress_bar,
    single_output,
)
from lib_latent_upscale.standalone.commands.flags import given_settings
from lib_latent_upscale.standalone.engine.infotext import add_labels
from lib_latent_upscale.standalone.engine.models import (
    checked_device,
    dtype_named,
    hub_answers,
    model_name,
)
from lib_latent_upscale.standalone.files.folders import Results, Tally, tried, work_through
from lib_latent_upscale.standalone.files.formats import check_format, format_of, save_picture
from lib_latent_upscale.standalone.files.images import Picture, load_picture
from lib_latent_upscale.standalone.files.inputs import Found, Inputs
from lib_latent_upscale.standalone.files.marks import MARK, mark_of
from lib_latent_upscale.standalone.files.metadata import read_parameters
from lib_latent_upscale.standalone.files.settings import FileSettings
from lib_latent_upscale.x4_upscaler import X4Model, X4Settings, load_x4, upscale_x4
from lib_latent_upscale.x4_upscaler.picture import FACTOR

__all__ = ["X4Pass", "load_pass", "load_upscaler", "run"]

_SMALLEST_SIDE = 1
"""Pixels; the x4 upscaler mirrors small pictures at the border."""


def run(arguments: argparse.Namespace) -> int:
    """Run the subcommand; returns the exit code, 1 if some of several pictures could not be used.

    Raises:
        InputError: arguments that are not allowed, or the only picture or the model cannot be used.
        GenerationError: the model does not fit into memory, or failed on the only picture.
    """
    settings = given_settings(arguments, X4Settings, "--")
    files = given_settings(arguments, FileSettings)
    inputs, output = given_inputs(arguments, files)
    if inputs.single:
        return _single(arguments, settings, files, inputs.found[0].path, output)
    return _many(arguments, settings, files, inputs, output)


@dataclass(frozen=True)
class _Job:
    """One picture to enlarge."""

    source: Path
    output: Path
    overwrite: bool
    mark: str = ""
    """Identifies picture and settings; written into the results of many pictures. Empty for a single one."""


def _single(
    arguments: argparse.Namespace, settings: X4Settings, files: FileSettings, source: Path, output: Path | None
) -> int:
    picture = opened(source, _SMALLEST_SIDE)
    size, parameters = _enlarged_size(picture), read_parameters(source)
    output = single_output(source, output, size, parameters, files, overwrite=arguments.overwrite)
    model = load_upscaler(arguments.model, arguments)
    job = _Job(source, output, arguments.overwrite)
    _show(_upscale(model, settings, files, picture, job, quiet=arguments.quiet))
    return 0


def _show(output: Path) -> None:
    sys.stdout.write(f"{output}\n")


def _enlarged_size(picture: Picture) -> tuple[int, int]:
    return FACTOR * picture.size[0], FACTOR * picture.size[1]


def _many(
    arguments: argparse.Namespace, settings: X4Settings, files: FileSettings, inputs: Inputs, output: Path | None
) -> int:
    results = Results(inputs, files, "x4", output, overwrite=arguments.overwrite)
    asked = f"{settings.with_model(model_name(arguments.model))} {files.quality}"  # all that decides how a result looks

    def planned(one: Found, tally: Tally) -> _Job | None:
        measured = tried(size_and_mark, one.path, tally.failures)
        if measured is None:
            return None
        size, mark = measured
        output = results.placed(one, size, mark, tally)
        return None if output is None else _Job(one.path, output, arguments.overwrite, mark)

    def size_and_mark(source: Path) -> tuple[tuple[int, int], str]:
        size = _enlarged_size(opened(source, _SMALLEST_SIDE))  # in full: a damaged one may have a good header
        check_format(format_of(files), size, read_parameters(source))
        return size, mark_of(source, asked)

    def work(jobs: list[_Job], tally: Tally) -> None:
        model = load_upscaler(arguments.model, arguments)
        for job in tqdm(jobs, desc=model.name, disable=arguments.quiet, unit="pic"):
            output = tried(partial(upscale, model, job), job.source, tally.failures)
            if output is not None:
                tally.done += 1
                _show(output)

    def upscale(model: X4Model, job: _Job, source: Path) -> Path:
        picture = load_picture(source, _SMALLEST_SIDE)
        return _upscale(model, settings, files, picture, job, quiet=arguments.quiet)

    return work_through(results, planned, work)


def _upscale(
    model: X4Model, settings: X4Settings, files: FileSettings, picture: Picture, job: _Job, *, quiet: bool
) -> Path:
    """Upscale one picture and write it, with the infotext that it already has; returns the path.

    Raises:
        GenerationError: memory ran out, or the model returned values that are not numbers.
        InputError: the picture cannot be enlarged.
    """
    try:
        with progress_bar(f"{job.source.name} x4", quiet=quiet, leave=True, unit="tile") as progress:
            result = upscale_x4(picture.rgb, model, settings, progress=progress)
    except (InputError, GenerationError) as error:
        raise type(error)(f"{job.source}: {error}") from error
    labels = {**result.settings.with_model(model.name), **({MARK: job.mark} if job.mark else {})}
    parameters = add_labels(read_parameters(job.source), labels)
    return save_picture(result.image, job.output, parameters, picture, files.quality, overwrite=job.overwrite)


def load_upscaler(source: str, arguments: argparse.Namespace) -> X4Model:
    """The x4 upscaler `source` (a file, folder or hub id), on the device and with the dtype of the arguments.

    Raises:
        InputError: there is no such model, or it is not an x4 upscaler.
        GenerationError: it does not fit into memory.
    """
    device = checked_device(arguments.device)
    dtype = dtype_named(arguments.dtype) if arguments.dtype else None
    for library in ("diffusers", "transformers"):
        with suppress(ImportError, RuntimeError):  # `load_x4` reports it
            importlib.import_module(f"{library}.utils.logging").disable_progress_bar()
    try:
        return load_x4(source, device=device, dtype=dtype, download=Path(source).exists() or hub_answers())
    except (InputError, OSError) as error:
        raise InputError(f"x4 upscaler: {first_line(error)}.") from error


@dataclass(frozen=True)
class X4Pass:
    """The x4 upscaler as a pass."""

    model: X4Model

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.model.name

    def __call__(
        self,
        image: Image.Image,
        settings: X4Settings,
        seed: int,
        progress: Callable[[int, int], None] | None,
        interrupted: Callable[[], bool] | None = None,
    ) -> tuple[Image.Image, X4Settings]:
        """See `Pass`."""
        settings = settings if settings.seed >= 0 else replace(settings, seed=seed)
        done = upscale_x4(image, self.model, settings, progress=progress, interrupted=interrupted)
        return done.image, done.settings


def load_pass(source: str, arguments: argparse.Namespace) -> X4Pass:
    """The x4 upscaler `source` as a pass.

    Raises:
        InputError, GenerationError: as for `load_upscaler`.
    """
    return X4Pass(load_upscaler(source, arguments))
