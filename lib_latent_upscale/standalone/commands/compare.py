"""The subcommand `compare`: the WebUI's default latent upscale and this one, on a sheet and on a page."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from PIL import Image

from lib_latent_upscale.comparison.report import Entry, Report, Subject, make_report
from lib_latent_upscale.comparison.variants import Variant, further_variant, merge_same, usual_variants
from lib_latent_upscale.errors import InputError
from lib_latent_upscale.options import rows, shortened
from lib_latent_upscale.samplers import SAMPLERS
from lib_latent_upscale.settings import UpscaleSettings
from lib_latent_upscale.standalone.commands.common import (
    checked_models,
    generation_settings,
    load_engine,
    opened,
    progress_bar,
    tile_overrides,
)
from lib_latent_upscale.standalone.commands.flags import given_settings
from lib_latent_upscale.standalone.commands.passes import leave_out
from lib_latent_upscale.standalone.engine.engine import Engine, Prepared
from lib_latent_upscale.standalone.engine.generation import GenerationSettings
from lib_latent_upscale.standalone.engine.tile import check_range
from lib_latent_upscale.standalone.files.images import Picture, save_png
from lib_latent_upscale.standalone.files.inputs import find_inputs
from lib_latent_upscale.standalone.files.outputs import Outputs
from lib_latent_upscale.standalone.files.settings import ShapeSettings
from lib_latent_upscale.standalone.files.shapes import shaped
from lib_latent_upscale.writing import write_whole

__all__ = ["compare", "default_variants", "generation_of", "parse_variant", "run", "subject_of", "tile_variants"]


_KEYS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "steps": ("steps", int),
    "denoise": ("denoising_strength", float),
    "sampler": ("sampler", str),
    "cfg_scale": ("cfg_scale", float),
}
"""Keys of --variant that are not options of the upscale: the field of `GenerationSettings`, and how it is read."""

_OVERRIDES = tuple(field for field, _ in _KEYS.values())
"""Fields of `GenerationSettings` that a variant may change."""


def parse_variant(text: str, base: GenerationSettings) -> Variant:
    """A variant from METHOD:SCHEDULER[:KEY=VALUE,...]; everything else is as in `base`.

    Raises:
        InputError: the text has another form, an unknown key, or a value that is not allowed.
    """
    method, _, rest = text.partition(":")
    scheduler, _, options = rest.partition(":")
    if not scheduler:
        raise InputError(f"Variant {shortened(text)}: give METHOD:SCHEDULER, such as bislerp:karras.")
    try:
        given = dict(_read_option(option) for option in filter(None, options.split(",")))
        variant = further_variant({"method": method, "scheduler": scheduler, **given}, base.upscale, _OVERRIDES)
        generation_of(variant, base)
    except ValueError as error:
        raise InputError(f"Variant {shortened(text)}: {error}") from error
    return variant


def _read_option(option: str) -> tuple[str, Any]:
    """A field of `GenerationSettings` or `UpscaleSettings`, and its value, from KEY=VALUE."""
    key, _, value = option.partition("=")
    settings = rows(UpscaleSettings)
    if key in settings:
        return key, settings[key].allowed.read(value)
    if key not in _KEYS:
        raise ValueError(f"unknown key {key!r}; known are: {', '.join([*_KEYS, *settings])}")
    field, read = _KEYS[key]
    try:
        return field, read(value)
    except ValueError:
        raise ValueError(f"{key} is {shortened(value)}; a number is needed") from None


def generation_of(variant: Variant, base: GenerationSettings) -> GenerationSettings:
    """The settings that run a variant.

    Raises:
        InputError: a value that is not allowed.
    """
    return replace(base, upscale=variant.settings, **variant.overrides)


def default_variants(base: GenerationSettings) -> list[Variant]:
    """The variants that every comparison of `base` has; see `usual_variants`."""
    return usual_variants(base.upscale, SAMPLERS[base.sampler].automatic)


def tile_variants(overrides: Mapping[str, Any], base: GenerationSettings) -> list[Variant]:
    """The settings of `base` with tile ControlNet; none if `overrides` (see `tile_overrides`) are empty."""
    name = "Latent Upscale, tile ControlNet"
    return [Variant(name, base.upscale, MappingProxyType(dict(overrides)), "pass")] if overrides else []


def compare(
    engine: Engine,
    picture: Picture,
    variants: Sequence[Variant],
    base: GenerationSettings,
    *,
    progress: Callable[[str], Any] = lambda _: progress_bar("", quiet=True),
) -> list[Entry]:
    """Run the variants on one picture, which is encoded only once, and so are the prompts.

    Args:
        engine: the model.
        picture: in the aspect ratio of the result.
        variants: those that are mathematically the same are run only once.
        base: settings that the variants have in common.
        progress: `progress(name)` is a context manager for a variant that yields `progress(done, total)`.

    Raises:
        InputError: a variant cannot run with this model.
        GenerationError: the model failed.
    """
    prepared = engine.prepare([picture.rgb], base)

    def ran(variant: Variant) -> UpscaleSettings:
        return engine.settled(generation_of(variant, base), prepared.fit).upscale

    groups = merge_same(variants, prepared.fit.source, prepared.fit.target, ran)
    return [_entry(engine, prepared, group, base, progress) for group in groups]


def _entry(
    engine: Engine,
    prepared: Prepared,
    group: Sequence[Variant],
    base: GenerationSettings,
    progress: Callable[[str], Any],
) -> Entry:
    generation = generation_of(group[0], base)
    with progress(group[0].name) as step:
        done = engine.run(prepared, generation, step)
    return Entry(
        variant=group[0],
        same=group[1:],
        picture=done.pictures[0],
        parameters=engine.parameters(done.generation),
        method=done.generation.upscale.method,
        host_schedule=SAMPLERS[generation.sampler].automatic,
        steps=done.plan.steps,
        first_sigma=done.plan.run[0].item() if done.plan.steps else None,
        seconds=done.seconds,
        remarks=_tile_notes(generation),
    )


def _tile_notes(generation: GenerationSettings) -> list[str]:
    tile = generation.tile
    if tile is None:
        return []
    notes = [f"tile ControlNet {generation.tile_model}, weight {tile.weight:g}"]
    if tile.second_pass:
        notes.append(f"in a second pass, denoising strength {tile.second_denoising_strength:g}")
    return notes


def subject_of(picture: Picture, base: GenerationSettings, reference: Image.Image | None = None) -> Subject:
    """The picture and the settings that all variants have in common."""
    return Subject(
        picture=picture.rgb,
        seed=base.seed,
        steps=base.steps,
        sampler=base.sampler,
        denoising_strength=base.denoising_strength,
        cfg_scale=base.cfg_scale,
        model=base.model,
        reference=reference,
    )


@dataclass(frozen=True)
class _Files:
    sheet: Path
    figures: Path
    page: Path
    difference: Path | None = None


_SUFFIXES = {"sheet": (".png",), "figures": (".json",), "page": (".html", ".htm"), "difference": (".png",)}


def run(arguments: argparse.Namespace) -> int:
    """Run the subcommand; returns the exit code.

    Raises:
        InputError: arguments that are not allowed, or a picture or model that cannot be used.
        GenerationError: the model failed.
    """
    leave_out(arguments)
    inputs = find_inputs(arguments.input)
    if not inputs.single:
        raise InputError(f"compare takes one picture; {' '.join(arguments.input)}: {len(inputs.found)} were given.")
    arguments.input = inputs.paths[0]
    checked_models(arguments)
    picture = opened(arguments.input)
    base = generation_settings(arguments, picture.size)
    picture = shaped(picture, base.size, given_settings(arguments, ShapeSettings).resize_mode)
    with_tile = tile_variants(tile_overrides(arguments), base)
    for variant in with_tile:
        check_range(generation_of(variant, base))
    variants = [*default_variants(base), *with_tile, *(parse_variant(text, base) for text in arguments.variant)]
    reference = _reference(arguments.reference, base, picture)
    files = _files(arguments)
    engine = load_engine(arguments)
    for variant in variants:
        engine.check(generation_of(variant, base))
    entries = compare(
        engine,
        picture,
        variants,
        base,
        progress=lambda name: progress_bar(name, quiet=arguments.quiet, leave=True),
    )
    report = make_report(subject_of(picture, base, reference), entries, shown=picture.with_alpha)
    _write(files, report, picture.icc_profile, overwrite=arguments.overwrite)
    return 0


def _reference(path: Path | None, base: GenerationSettings, picture: Picture) -> Image.Image | None:
    """The original for --reference, in the colour space of the picture."""
    if path is None:
        return None
    reference = opened(path).matched(picture).copy()
    reference.info["icc_profile"] = picture.icc_profile
    if reference.size != base.size:
        raise InputError(
            f"{path}: the reference is {reference.width}x{reference.height} and the result will be "
            f"{base.width}x{base.height}; give --size {reference.width}x{reference.height}."
        )
    return reference


def _files(arguments: argparse.Namespace) -> _Files:
    """The files that will be written. If the user named the sheet, the files next to it must not exist, either."""
    outputs = Outputs([path for path in (arguments.input, arguments.reference) if path], arguments.overwrite)
    if arguments.output is not None and not arguments.output.name:  # . and /
        raise InputError(f"{arguments.output}: this is a folder; give the name of a file to write.")
    sheet = arguments.output or arguments.input.with_name(f"{arguments.input.stem}-comparison.png")
    wanted = {
        "sheet": sheet,
        "figures": sheet.with_suffix(".json"),
        "page": arguments.html or sheet.with_suffix(".html"),
    }
    if arguments.difference:
        wanted["difference"] = sheet.with_name(f"{sheet.stem}-difference.png")
    if arguments.output:
        return _Files(**{name: outputs.named(path, _SUFFIXES[name]) for name, path in wanted.items()})
    named = {"page": outputs.named(wanted["page"], _SUFFIXES["page"])} if arguments.html else {}
    others = {name: path for name, path in wanted.items() if name not in named}
    return _Files(**named, **dict(zip(others, outputs.together(others.values()), strict=True)))


def _write(files: _Files, report: Report, icc_profile: bytes | None, *, overwrite: bool) -> None:
    figures = json.dumps(report.record, indent=2) + "\n"
    written = [
        save_png(report.sheet(), files.sheet, icc_profile=icc_profile, overwrite=overwrite),
        write_whole(files.figures, figures.encode(), overwrite=overwrite),
        write_whole(files.page, report.page().encode(), overwrite=overwrite),
    ]
    if files.difference is not None and report.difference is not None:
        written.append(save_png(report.difference, files.difference, overwrite=overwrite))
    sys.stdout.write("".join(f"{path}\n" for path in written))
