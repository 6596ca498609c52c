"""The subcommand `upscale`: a picture, or all pictures of a folder."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from lib_latent_upscale.standalone.commands.common import generation_settings, load_engine, progress_bar, tile_overrides
from lib_latent_upscale.standalone.commands.x4 import FACTOR, LastPass, load_last_pass, x4_settings
from lib_latent_upscale.standalone.engine.engine import Engine
from lib_latent_upscale.standalone.engine.generation import GenerationSettings, write_parameters
from lib_latent_upscale.standalone.engine.models import checked_source, model_name
from lib_latent_upscale.standalone.engine.tile import check_range
from lib_latent_upscale.standalone.engine.tile_models import checked_tile
from lib_latent_upscale.standalone.errors import InputError, SizeError
from lib_latent_upscale.standalone.files.folders import report_failures, result_paths, tried
from lib_latent_upscale.standalone.files.images import (
    Picture,
    find_pictures,
    load_picture,
    save_png,
)
from lib_latent_upscale.standalone.files.outputs import Outputs, check_output_folder

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    """Run the subcommand; 1 where some of a folder's pictures could not be used."""
    if arguments.batch_size < 1:
        raise InputError(f"Batch size {arguments.batch_size} is out of range: allowed is 1 or more.")
    x4_settings(arguments)
    arguments.model_name = model_name(arguments.model)
    return _folder(arguments) if arguments.input.is_dir() else _single(arguments)


def _single(arguments: argparse.Namespace) -> int:
    picture = load_picture(arguments.input)
    generation = _generation(arguments, picture.size)
    outputs = Outputs([arguments.input], arguments.overwrite)
    beside = _beside(arguments.input, generation, enlarged=arguments.x4 is not None)
    output = outputs.named(arguments.output) if arguments.output else outputs.free(beside)
    engine, last = _load(arguments)
    _upscale(engine, {output: picture}, generation, last, quiet=arguments.quiet)
    return int(last is not None and last.failed)


def _load(arguments: argparse.Namespace) -> tuple[Engine, LastPass | None]:
    """The engine and the pass after it; a model that does not exist ends here, before the other one is read."""
    checked_source(arguments.model)
    if arguments.tile_controlnet is not None:
        checked_tile(arguments.tile_controlnet)
    last = load_last_pass(arguments)
    return load_engine(arguments), last


def _generation(arguments: argparse.Namespace, size: tuple[int, int]) -> GenerationSettings:
    generation = replace(generation_settings(arguments, size), model=arguments.model_name, **tile_overrides(arguments))
    check_range(generation)
    return generation


def _beside(source: Path, generation: GenerationSettings, *, enlarged: bool) -> Path:
    width, height = (side * FACTOR if enlarged else side for side in generation.size)
    return source.with_name(f"{source.stem}-{width}x{height}.png")


def _upscale(
    engine: Engine,
    pictures: dict[Path, Picture],
    generation: GenerationSettings,
    last: LastPass | None,
    *,
    quiet: bool,
) -> None:
    """Upscale pictures of one size and write them to their paths."""
    with progress_bar(", ".join(path.name for path in pictures), quiet=quiet, leave=len(pictures) == 1) as progress:
        done = engine.upscale([picture.rgb for picture in pictures.values()], generation, progress)
    for (path, picture), result in zip(pictures.items(), done.pictures, strict=True):
        final, made_with = last(result, generation, path, engine) if last else (result, generation)
        save_png(picture.dressed(final), path, write_parameters(made_with), picture.icc_profile)
        sys.stdout.write(f"{path}\n")
    if last and last.interrupted:
        raise KeyboardInterrupt


def _folder(arguments: argparse.Namespace) -> int:
    sources = find_pictures(arguments.input)
    folder = arguments.output or arguments.input.with_name(f"{arguments.input.resolve().name}-upscaled")
    check_output_folder(folder, arguments.input)
    failures: dict[Path, str] = {}
    outputs = result_paths(sources, folder, Outputs(sources, arguments.overwrite), failures)
    groups = _by_size(list(outputs), failures)
    plans = _plans(arguments, groups, failures)
    if not plans:
        return report_failures(failures, len(sources))
    engine, last = _load(arguments)
    folder.mkdir(exist_ok=True)
    with tqdm(total=len(sources), initial=len(failures), desc=folder.name, disable=arguments.quiet, unit="pic") as bar:
        for size, batch in _batches({size: groups[size] for size in plans}, arguments.batch_size):
            pictures = _loaded(batch, outputs, failures)
            if pictures:
                _upscale(engine, pictures, plans[size], last, quiet=arguments.quiet)
            bar.update(len(batch))
    return report_failures(failures, len(sources)) or int(last is not None and last.failed)


def _plans(
    arguments: argparse.Namespace, groups: dict[tuple[int, int], list[Path]], failures: dict[Path, str]
) -> dict[tuple[int, int], GenerationSettings]:
    """The generation of each size. Bad settings end here, before any work; a size that is too large fails alone."""
    plans = {size: _plan(arguments, size, sources, failures) for size, sources in groups.items()}
    return {size: plan for size, plan in plans.items() if plan is not None}


def _plan(
    arguments: argparse.Namespace, size: tuple[int, int], sources: list[Path], failures: dict[Path, str]
) -> GenerationSettings | None:
    try:
        return _generation(arguments, size)
    except SizeError as error:
        failures |= {source: f"{source}: {error}" for source in sources}
        return None


def _by_size(sources: list[Path], failures: dict[Path, str]) -> dict[tuple[int, int], list[Path]]:
    """Pictures by their size; each is read in full, since a damaged one may have a good header, and not kept."""
    groups: dict[tuple[int, int], list[Path]] = {}
    for source in sources:
        picture = tried(load_picture, source, failures)
        if picture is not None:
            groups.setdefault(picture.size, []).append(source)
    return groups


def _batches(
    groups: dict[tuple[int, int], list[Path]], batch_size: int
) -> Iterator[tuple[tuple[int, int], list[Path]]]:
    for size, sources in groups.items():
        for start in range(0, len(sources), batch_size):
            yield size, sources[start : start + batch_size]


def _loaded(batch: list[Path], outputs: dict[Path, Path], failures: dict[Path, str]) -> dict[Path, Picture]:
    loaded = {outputs[source]: tried(load_picture, source, failures) for source in batch}
    return {path: picture for path, picture in loaded.items() if picture is not None}
