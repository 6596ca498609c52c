"""What the subcommands share: settings from arguments, models, progress bars."""

from __future__ import annotations

import argparse
import logging
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_latent_upscale.errors import InputError, ModelFileError, printable
from lib_latent_upscale.learned.files import check_kind
from lib_latent_upscale.method_files import method_of_file
from lib_latent_upscale.settings import UpscaleSettings
from lib_latent_upscale.standalone.commands.flags import check_given, given_settings, given_values, settings_from_flags
from lib_latent_upscale.standalone.engine.generation import (
    LARGEST_SEED,
    SMALLEST_SIDE,
    GenerationSettings,
    check_size,
)
from lib_latent_upscale.standalone.engine.models import DEMO, checked_source, model_name
from lib_latent_upscale.standalone.engine.tile_models import checked_tile
from lib_latent_upscale.standalone.files.formats import SUFFIXES, check_format, format_of
from lib_latent_upscale.standalone.files.images import Picture, load_picture
from lib_latent_upscale.standalone.files.inputs import Inputs, find_inputs, is_folder_name
from lib_latent_upscale.standalone.files.outputs import Outputs, sized_name
from lib_latent_upscale.standalone.files.settings import FileSettings, ShapeSettings
from lib_latent_upscale.standalone.files.shapes import VISIBLE_CHANGE, change_of_shape, kept_shape
from lib_latent_upscale.tile_settings import TileSettings

if TYPE_CHECKING:
    from lib_latent_upscale.standalone.engine.engine import Engine

__all__ = [
    "checked_models",
    "drawn_seed",
    "generation_settings",
    "given_inputs",
    "load_engine",
    "notice",
    "opened",
    "progress_bar",
    "scaled_size",
    "single_output",
    "target_size",
    "tile_overrides",
    "upscale_settings",
]

_log = logging.getLogger(__name__)

SMALLEST_SCALE, LARGEST_SCALE, DEFAULT_SCALE = 0.25, 8.0, 2.0


def upscale_settings(arguments: argparse.Namespace) -> UpscaleSettings:
    """Settings of the latent upscale.

    Raises:
        InputError: a value that is not allowed, or a file that does not exist.
    """
    given = given_values(arguments, UpscaleSettings)
    if arguments.learned is not None:
        given["method"] = _method_of(arguments.learned, given)
    return settings_from_flags(given, UpscaleSettings)


def _method_of(learned: Path, given: Mapping[str, Any]) -> str:
    if not learned.is_file():
        raise InputError(f"--learned {learned}: there is no such file; give a latent upscaler's .safetensors file.")
    if given["method"] != UpscaleSettings().method:
        raise InputError(f"--learned {learned.name} and --method {given['method']}: give only one of them.")
    try:
        check_kind(learned)
    except ModelFileError as error:
        raise InputError(f"--learned: {str(error).rstrip('.')}.") from error
    return method_of_file(learned.stem)


def given_inputs(arguments: argparse.Namespace, files: FileSettings) -> tuple[Inputs, Path | None]:
    """The pictures of a command line and the path OUT; `single` if one picture is written to one file.

    Raises:
        InputError: as for `find_inputs`.
    """
    output = Path(arguments.output) if arguments.output is not None else None
    inputs = find_inputs(arguments.input, recursive=files.recursive, skipped=[output] if output else [])
    names_folder = output is not None and (output.is_dir() or is_folder_name(arguments.output))
    return replace(inputs, single=inputs.single and not names_folder), output


def single_output(
    source: Path, output: Path | None, size: tuple[int, int], parameters: str, files: FileSettings, *, overwrite: bool
) -> Path:
    """Where the only result is written, if `size` (width, height) and `parameters` fit into its format.

    That is `output`, or without one a free name beside the picture `source`.

    Raises:
        InputError: they do not fit, or nothing can be written there.
    """
    written_as = format_of(files, output)
    check_format(written_as, size, parameters)
    outputs = Outputs([source], overwrite)
    if output is not None:
        return outputs.named(output, SUFFIXES)
    return outputs.free(source.with_name(sized_name(source, size, written_as.suffixes[0])))


def opened(path: Path, smallest: int = SMALLEST_SIDE) -> Picture:
    """Read a picture and log what the user should know about it.

    Raises:
        InputError: as for `load_picture`.
    """
    picture = load_picture(path, smallest)
    for note in picture.notes:
        _log.warning("%s: %s", path, note)
    return picture


def drawn_seed(seed: int) -> int:
    """The seed itself, or a random one for -1.

    Raises:
        InputError: it is out of range.
    """
    if not -1 <= seed <= LARGEST_SEED:
        raise InputError(f"Seed {seed} is out of range: allowed is 0 to {LARGEST_SEED}, or -1, which draws one.")
    return random.randint(0, LARGEST_SEED) if seed == -1 else seed


def tile_overrides(arguments: argparse.Namespace) -> dict[str, Any]:
    """Fields of `GenerationSettings` for the tile ControlNet; none if no model is given.

    Raises:
        InputError: a value that is not allowed, or an option that would have no effect.
    """
    given = given_values(arguments, TileSettings)
    if arguments.tile_controlnet is None:
        check_given(TileSettings, given)
        return {}
    if not given.get("second_pass"):
        further = [field for field in given if field.startswith("second_") and field != "second_pass"]
        check_given(TileSettings, further, "--second-pass")
    settings = settings_from_flags(given, TileSettings)
    return {"tile": settings, "tile_model": model_name(arguments.tile_controlnet)}


def target_size(size: tuple[int, int], arguments: argparse.Namespace) -> tuple[int, int]:
    """(width, height) of the result for a picture of `size` (width, height).

    Raises:
        InputError: it is too small or too large.
    """
    if arguments.size is None:
        return scaled_size(size, DEFAULT_SCALE if arguments.scale is None else arguments.scale)
    width, height = arguments.size
    wanted = kept_shape(size, width, height)
    change, shape = change_of_shape(size, wanted), given_settings(arguments, ShapeSettings)
    if width and height and change > VISIBLE_CHANGE and shape.resize_mode == "stretch":
        _log.warning(
            "%dx%d is stretched to %dx%d, by %.0f %%; --resize-mode crop or fill, or --size %dx, keeps its shape.",
            *(*size, *wanted, 100 * change, width),
        )
    return wanted


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(width, height) of a picture of `size` (width, height), times `scale`.

    Raises:
        InputError: the scale or the result is too small or too large.
    """
    if not SMALLEST_SCALE <= scale <= LARGEST_SCALE:
        raise InputError(f"Scale {scale} is out of range: allowed is {SMALLEST_SCALE} to {LARGEST_SCALE}.")
    width, height = round(size[0] * scale), round(size[1] * scale)
    check_size(width, height, what="The result's size")
    return width, height


def generation_settings(arguments: argparse.Namespace, size: tuple[int, int]) -> GenerationSettings:
    """The settings for a picture of `size` (width, height).

    Raises:
        InputError: a value that is not allowed.
    """
    width, height = target_size(size, arguments)
    return GenerationSettings(
        width=width,
        height=height,
        prompt=arguments.prompt,
        negative_prompt=arguments.negative_prompt,
        steps=arguments.steps,
        sampler=arguments.sampler,
        cfg_scale=arguments.cfg_scale,
        seed=drawn_seed(arguments.seed),
        denoising_strength=arguments.denoise,
        model=model_name(arguments.model),
        upscale=upscale_settings(arguments),
    )


def checked_models(arguments: argparse.Namespace) -> None:
    """Check that the model and the tile ControlNet exist, before anything is loaded.

    Raises:
        InputError: one does not.
    """
    checked_source(arguments.model)
    if arguments.tile_controlnet is not None:
        checked_tile(arguments.tile_controlnet)


def load_engine(arguments: argparse.Namespace) -> Engine:
    """The engine on the model, tile ControlNet, device and dtype of the arguments, after `checked_models`.

    Raises:
        InputError: a model is missing or cannot be used.
    """
    from lib_latent_upscale.standalone.engine.engine import Engine
    from lib_latent_upscale.standalone.engine.models import load_model
    from lib_latent_upscale.standalone.engine.tile_models import load_tile

    tile = arguments.tile_controlnet
    with notice("Loading the model ...", quiet=arguments.quiet):
        model = load_model(arguments.model, device=arguments.device, dtype=arguments.dtype)
        engine = Engine(model, None if tile is None else load_tile(tile, model), arguments.learned)
    _introduce(arguments, model.name)
    return engine


_DEMO = ": for demonstrations, too small for photographs, ignores prompts; use your own with --model"


def _introduce(arguments: argparse.Namespace, name: str) -> None:
    """Log which model is used, and that the demo model ignores the prompt if one is given."""
    demo = arguments.model == DEMO
    _log.info("Model: %s%s.", name, _DEMO if demo else "")
    if demo and (arguments.prompt or arguments.negative_prompt):
        _log.warning("The prompt is recorded in the picture, but the demo model ignores it.")


@contextmanager
def notice(text: str, *, quiet: bool) -> Iterator[None]:
    """A line on stderr that disappears when the work is done."""
    from tqdm import tqdm

    with tqdm(desc=text, bar_format="{desc}", disable=quiet, leave=False):
        yield


@contextmanager
def progress_bar(
    description: str, *, quiet: bool, leave: bool = False, unit: str = "step"
) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr; yields `progress(done, total)`."""
    from tqdm import tqdm

    with tqdm(desc=printable(description).replace("\n", " "), disable=quiet, leave=leave, unit=unit) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress
