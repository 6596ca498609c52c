"""The Stable Diffusion x4 upscaler: the subcommand `x4`, and the last pass of `upscale`."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

from lib_latent_upscale.memory import on_device
from lib_latent_upscale.standalone.commands.common import progress_bar
from lib_latent_upscale.standalone.commands.flags import flags, given_values, settings_from_flags
from lib_latent_upscale.standalone.engine.engine import Engine
from lib_latent_upscale.standalone.engine.generation import GenerationSettings, add_labels, x4_labels
from lib_latent_upscale.standalone.engine.models import best_device, checked_device, number_format
from lib_latent_upscale.standalone.errors import GenerationError, InputError
from lib_latent_upscale.standalone.files.folders import report_failures, result_paths, tried
from lib_latent_upscale.standalone.files.images import (
    Picture,
    find_pictures,
    load_picture,
    save_png,
)
from lib_latent_upscale.standalone.files.outputs import Outputs, check_output_folder
from lib_latent_upscale.x4_upscaler import (
    X4Error,
    X4Model,
    X4NotFinite,
    X4OutOfMemory,
    X4Result,
    X4Settings,
    load_x4,
    upscale_x4,
)

__all__ = ["FACTOR", "LastPass", "command_settings", "load_last_pass", "run", "x4_settings"]

FACTOR = 4
_SMALLEST_SIDE = 1
"""Pixels; the x4 upscaler mirrors a small picture until it is large enough."""


def run(arguments: argparse.Namespace) -> int:
    """Run the subcommand; the exit code is 1 where some of a folder's pictures could not be used."""
    settings = command_settings(arguments)
    return _folder(arguments, settings) if arguments.input.is_dir() else _single(arguments, settings)


def _single(arguments: argparse.Namespace, settings: X4Settings) -> int:
    source: Path = arguments.input
    picture = load_picture(source, _SMALLEST_SIDE)
    width, height = (FACTOR * side for side in picture.size)
    outputs = Outputs([source], arguments.overwrite)
    beside = source.with_name(f"{source.stem}-{width}x{height}.png")
    output = outputs.named(arguments.output) if arguments.output else outputs.free(beside)
    model = _load(arguments.model, arguments)
    _upscale(model, settings, picture, source, output, quiet=arguments.quiet)
    return 0


def _folder(arguments: argparse.Namespace, settings: X4Settings) -> int:
    sources = find_pictures(arguments.input)
    folder = arguments.output or arguments.input.with_name(f"{arguments.input.resolve().name}-x4")
    check_output_folder(folder, arguments.input)
    failures: dict[Path, str] = {}
    outputs = result_paths(sources, folder, Outputs(sources, arguments.overwrite), failures)
    load = partial(load_picture, smallest=_SMALLEST_SIDE)
    for source in outputs:  # each in full, since a damaged one may have a good header
        tried(load, source, failures)
    if len(failures) < len(sources):
        model = _load(arguments.model, arguments)
        folder.mkdir(exist_ok=True)
        _upscale_all(model, settings, outputs, failures, quiet=arguments.quiet)
    return report_failures(failures, len(sources))


def _upscale_all(
    model: X4Model, settings: X4Settings, outputs: dict[Path, Path], failures: dict[Path, str], *, quiet: bool
) -> None:
    def upscale(source: Path) -> None:
        picture = load_picture(source, _SMALLEST_SIDE)
        try:
            _upscale(model, settings, picture, source, outputs[source], quiet=quiet)
        except GenerationError as error:
            raise InputError(str(error)) from error

    good = [source for source in outputs if source not in failures]
    for source in tqdm(good, desc=model.name, disable=quiet, unit="pic"):
        tried(upscale, source, failures)


def _upscale(
    model: X4Model, settings: X4Settings, picture: Picture, source: Path, output: Path, *, quiet: bool
) -> None:
    """Upscale one picture and write it, with what its own `parameters` say of how it was made.

    GenerationError where memory ran out or the model's numbers overflowed, InputError for a picture that cannot be
    enlarged.
    """
    try:
        result = _enlarged(picture.rgb, model, settings, source.name, quiet=quiet)
    except (X4OutOfMemory, X4NotFinite) as error:
        raise GenerationError(f"{source}: {error}") from error
    except X4Error as error:
        raise InputError(f"{source}: {error}") from error
    parameters = add_labels(_parameters(source), x4_labels(result.settings, model.name))
    _save(picture, result.image, output, parameters)


def _save(picture: Picture, result: Image.Image, path: Path, parameters: str) -> None:
    save_png(picture.dressed(result), path, parameters, picture.icc_profile)
    sys.stdout.write(f"{path}\n")


def _parameters(source: Path) -> str:
    """What stands in a PNG about how it was made; nothing for other pictures."""
    with Image.open(source) as image:
        text = image.info.get("parameters", "")
    return text if isinstance(text, str) else ""


def _enlarged(image: Image.Image, model: X4Model, settings: X4Settings, name: str, *, quiet: bool) -> X4Result:
    with progress_bar(f"{name} x4", quiet=quiet, leave=True, unit="tile") as progress:
        return upscale_x4(image, model, settings, progress=progress)


def command_settings(arguments: argparse.Namespace) -> X4Settings:
    """Settings of the subcommand; InputError for a value that is not allowed."""
    return settings_from_flags(given_values(arguments, X4Settings, "--"), X4Settings, "--")


def _load(source: str, arguments: argparse.Namespace) -> X4Model:
    """The x4 upscaler `source`, on the device and in the number format of the arguments.

    InputError for a model that is none, GenerationError where the memory does not hold it.
    """
    device = checked_device(arguments.device or best_device())
    dtype = number_format(arguments.dtype) if arguments.dtype else None
    for library in ("diffusers", "transformers"):
        with suppress(ImportError, RuntimeError):  # `load_x4` says it in words
            importlib.import_module(f"{library}.utils.logging").disable_progress_bar()
    try:
        return load_x4(source, device=device, dtype=dtype)
    except X4OutOfMemory as error:
        raise GenerationError(str(error)) from error
    except (X4Error, OSError) as error:
        raise InputError(f"x4 upscaler: {str(error).splitlines()[0]}") from error


@dataclass
class LastPass:
    """The x4 upscaler after the latent upscale. Where it fails, the picture before it is kept, and the person told."""

    model: X4Model
    settings: X4Settings
    quiet: bool = False
    failed: bool = False
    """Whether any picture came out without it."""
    interrupted: bool = False
    """Whether the person stopped it; from then on every picture is kept as it is."""

    def __call__(
        self, image: Image.Image, generation: GenerationSettings, path: Path, before: Engine
    ) -> tuple[Image.Image, GenerationSettings]:
        """`image` four times larger and what made it, or both as they were.

        The models of `before` leave their device meanwhile.
        """
        if self.interrupted:
            return self._kept(image, generation, path, "it was interrupted")
        settings = self.settings if self.settings.seed >= 0 else replace(self.settings, seed=generation.seed)
        try:
            with _resting(before):
                result = _enlarged(image, self.model, settings, path.name, quiet=self.quiet)
        except KeyboardInterrupt:
            self.interrupted = True
            return self._kept(image, generation, path, "it was interrupted")
        except (X4Error, X4OutOfMemory) as error:
            return self._kept(image, generation, path, str(error))
        return result.image, replace(generation, x4=result.settings, x4_model=self.model.name)

    def _kept(
        self, image: Image.Image, generation: GenerationSettings, path: Path, reason: str
    ) -> tuple[Image.Image, GenerationSettings]:
        self.failed = True
        tqdm.write(f"{path}: the picture before the x4 upscaler is kept: {reason}", file=sys.stderr)
        return image, generation


def x4_settings(arguments: argparse.Namespace) -> X4Settings | None:
    """Settings of the last pass of `upscale`; None where none is asked for. InputError for a value not allowed."""
    given = given_values(arguments, X4Settings)
    if arguments.x4 is not None:
        return settings_from_flags(given, X4Settings)
    if given:
        options = ", ".join(flags(X4Settings)[name] for name in given)
        raise InputError(f"{options}: only with --x4 MODEL, which names the x4 upscaler.")
    return None


def load_last_pass(arguments: argparse.Namespace) -> LastPass | None:
    """The last pass of `upscale`, its model checked and loaded; None where none is asked for."""
    settings = x4_settings(arguments)
    return None if settings is None else LastPass(_load(arguments.x4, arguments), settings, arguments.quiet)


@contextmanager
def _resting(engine: Engine) -> Iterator[None]:
    """Keep an engine's models in the computer's own memory: the device is for the x4 upscaler."""
    with ExitStack() as stack:
        for part in _networks(engine):
            stack.enter_context(on_device(part, torch.device("cpu")))
        yield


def _networks(engine: Engine) -> Iterator[torch.nn.Module]:
    model = engine.model
    yield from (model.unet, model.vae, *(encoder.model for encoder in model.encoders))
    if engine.tile is not None:
        yield engine.tile.network
