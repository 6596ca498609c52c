"""The subcommand `compare`: the WebUI's default latent upscale beside this one, on a sheet and on a page."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from PIL import Image

from lib_latent_upscale.comparison.page import make_page
from lib_latent_upscale.comparison.report import (
    HOST_DEFAULT,
    Box,
    Figures,
    Variant,
    choose_crops,
    difference_map,
    measure,
    merge_same,
    plain_resize,
)
from lib_latent_upscale.comparison.sheet import Panel, make_sheet
from lib_latent_upscale.schedules import StepPlan
from lib_latent_upscale.settings import AUTOMATIC
from lib_latent_upscale.standalone.commands.common import generation_settings, load_engine, progress_bar, tile_overrides
from lib_latent_upscale.standalone.engine.engine import Engine, Prepared
from lib_latent_upscale.standalone.engine.generation import GenerationSettings, write_parameters
from lib_latent_upscale.standalone.engine.models import checked_source, model_name
from lib_latent_upscale.standalone.engine.samplers import sampler_named
from lib_latent_upscale.standalone.engine.tile import check_range
from lib_latent_upscale.standalone.errors import InputError
from lib_latent_upscale.standalone.files.images import Picture, check_output, load_picture, save_png, written_whole
from lib_latent_upscale.tile_settings import TileSettings

__all__ = [
    "Entry",
    "Report",
    "compare",
    "default_variants",
    "generation_of",
    "make_panels",
    "make_report",
    "parse_variant",
    "run",
]


def _truth(text: str) -> bool:
    known = {"true": True, "yes": True, "false": False, "no": False}
    if text.lower() not in known:
        raise ValueError(f"{text!r} is neither true nor false")
    return known[text.lower()]


_OVERRIDES: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "steps": ("steps", int),
    "denoise": ("denoising_strength", float),
    "sampler": ("sampler", str),
    "cfg_scale": ("cfg_scale", float),
}
"""Keys of a variant that belong to the generation: its field, and how to read it."""
_SWITCHES = ("exact_steps", "keep_statistics", "matched_noise")
"""Keys of a variant that belong to the upscale."""


@dataclass(frozen=True)
class Entry:
    """A finished variant."""

    variant: Variant
    same: Sequence[Variant]
    """Further variants that are mathematically the same, so were not run again."""
    generation: GenerationSettings
    picture: Image.Image
    plan: StepPlan
    figures: Figures


def parse_variant(text: str, base: GenerationSettings) -> Variant:
    """A variant from METHOD:SCHEDULER[:KEY=VALUE,...]; what it does not name is as in `base`."""
    method, _, rest = text.partition(":")
    scheduler, _, options = rest.partition(":")
    if not scheduler:
        raise InputError(f"Variant {text!r}: give METHOD:SCHEDULER, such as bislerp:karras.")
    switches: dict[str, bool] = {}
    overrides: dict[str, Any] = {}
    try:
        for option in filter(None, options.split(",")):
            _read_option(option, switches, overrides)
        settings = replace(base.upscale, method=method, scheduler=scheduler, **switches)
        variant = Variant(f"{method} + {scheduler}", settings, MappingProxyType(overrides))
        generation_of(variant, base)
    except ValueError as error:
        raise InputError(f"Variant {text!r}: {error}") from error
    shown = ", ".join(filter(None, options.split(",")))
    return replace(variant, name=f"{variant.name}, {shown}") if shown else variant


def _read_option(option: str, switches: dict[str, bool], overrides: dict[str, Any]) -> None:
    key, _, value = option.partition("=")
    if key in _SWITCHES:
        switches[key] = _truth(value)
    elif key in _OVERRIDES:
        field, read = _OVERRIDES[key]
        overrides[field] = read(value)
    else:
        raise ValueError(f"unknown key {key!r}; known are: {', '.join([*_OVERRIDES, *_SWITCHES])}")


def generation_of(variant: Variant, base: GenerationSettings) -> GenerationSettings:
    """The settings that make this variant alone."""
    return replace(base, upscale=variant.settings, **variant.overrides)


def default_variants(base: GenerationSettings) -> list[Variant]:
    """The WebUI's default and the settings of `base`; with matched noise also the default from that noise."""
    variants = [Variant("WebUI default", HOST_DEFAULT)]
    if base.upscale.matched_noise:
        matched = replace(HOST_DEFAULT, exact_steps=True, matched_noise=True)
        variants.append(Variant("WebUI default, matched noise", matched))
    return [*variants, Variant("Latent Upscale", base.upscale)]


def tile_variants(overrides: Mapping[str, Any], base: GenerationSettings) -> list[Variant]:
    """The settings of `base` with tile ControlNet, where `overrides` ask for it."""
    name = "Latent Upscale, tile ControlNet"
    return [Variant(name, base.upscale, MappingProxyType(dict(overrides)))] if overrides else []


def compare(
    engine: Engine,
    picture: Picture,
    variants: Sequence[Variant],
    base: GenerationSettings,
    *,
    reference: Image.Image | None = None,
    progress: Callable[[str], Any] = lambda _: progress_bar("", quiet=True),
) -> list[Entry]:
    """Run the variants of one picture; encode, conditioning and noise are made once.

    `progress(name)` is a context manager that yields `progress(done, total)`.
    """
    prepared = engine.prepare([picture.rgb], base)
    groups = merge_same(variants, prepared.fit.source, prepared.fit.target)
    return [_entry(engine, prepared, group, picture, base, reference, progress) for group in groups]


def _entry(
    engine: Engine,
    prepared: Prepared,
    group: Sequence[Variant],
    picture: Picture,
    base: GenerationSettings,
    reference: Image.Image | None,
    progress: Callable[[str], Any],
) -> Entry:
    generation = generation_of(group[0], base)
    with progress(group[0].name) as step:
        done = engine.run(prepared, generation, step)
    figures = measure(done.pictures[0], picture.rgb, seconds=done.seconds, reference=reference)
    return Entry(group[0], group[1:], generation, done.pictures[0], done.plan, figures)


def make_panels(
    picture: Picture, entries: Sequence[Entry], reference: Image.Image | None = None
) -> tuple[list[Panel], Figures]:
    """The columns of the sheet, and the figures of the plain resize."""
    size = entries[0].picture.size
    plain = plain_resize(picture.rgb, size)
    plain_figures = measure(plain, picture.rgb, reference=reference)
    panels = [
        Panel("Input", picture.dressed(picture.rgb), [f"{picture.size[0]} x {picture.size[1]} pixels"]),
        Panel("Picture resized", picture.dressed(plain), ["Lanczos, no model", *plain_figures.lines()]),
        *(_panel(picture, entry, ours=index == len(_first_names(entries)) - 1) for index, entry in enumerate(entries)),
    ]
    if reference is not None:
        panels.append(Panel("Original", reference, [f"{reference.width} x {reference.height} pixels"]))
    return panels, plain_figures


def _first_names(entries: Sequence[Entry]) -> list[str]:
    """Names up to the first variant that is not the host's default: that one is ours."""
    names = [entry.variant.name for entry in entries]
    ours = next((index for index, name in enumerate(names) if not name.startswith("WebUI")), len(names) - 1)
    return names[: ours + 1]


def _panel(picture: Picture, entry: Entry, *, ours: bool) -> Panel:
    upscale, plan = entry.generation.upscale, entry.plan
    schedule = upscale.scheduler
    if schedule == AUTOMATIC:
        schedule = f"automatic ({sampler_named(entry.generation.sampler).automatic})"
    cut = "matched noise" if upscale.matched_noise else "exact steps" if upscale.exact_steps else "default cut"
    start = f"{plan.steps} steps from sigma {plan.run[0].item():.2f}" if plan.steps else "no step runs"
    notes = [f"{upscale.method} + {schedule}, {cut}", start, *_tile_notes(entry.generation), *entry.figures.lines()]
    if entry.figures.seconds is not None:
        notes.append(f"{entry.figures.seconds:.1f} s")
    notes += [f"the same as {twin.name} ({twin.settings.method}): not run twice" for twin in entry.same]
    return Panel(entry.variant.name, picture.dressed(entry.picture), notes, highlight=ours)


def _tile_notes(generation: GenerationSettings) -> list[str]:
    tile = generation.tile
    if tile is None:
        return []
    notes = [f"tile ControlNet {generation.tile_model}, weight {tile.weight:g}"]
    if tile.second_pass:
        notes.append(f"in a second pass, denoising strength {tile.second_denoising_strength:g}")
    return notes


def _record(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.variant.name,
        **asdict(entry.generation.upscale),
        **{name: _plain(value) for name, value in entry.variant.overrides.items()},
        "steps_run": entry.plan.steps,
        "first_sigma": round(entry.plan.run[0].item(), 6),
        "same_result": [twin.name for twin in entry.same],
        "figures": entry.figures.to_dict(),
        "parameters": write_parameters(entry.generation),
    }


@dataclass(frozen=True)
class Report:
    """A finished comparison, as it is shown."""

    sheet: Image.Image
    page: str
    """HTML with a slider between any two of the pictures."""
    figures: Mapping[str, Any]
    """Plain values for JSON."""
    difference: Image.Image
    """Where the host's default and our own result differ."""


def _plain(value: Any) -> Any:
    return asdict(value) if isinstance(value, TileSettings) else value


@dataclass(frozen=True)
class _Files:
    sheet: Path
    figures: Path
    page: Path
    difference: Path | None


def run(arguments: argparse.Namespace) -> int:
    """Run the subcommand."""
    checked_source(arguments.model)
    picture = load_picture(arguments.input)
    base = replace(generation_settings(arguments, picture.size), model=model_name(arguments.model))
    with_tile = tile_variants(tile_overrides(arguments), base)
    for variant in with_tile:
        check_range(generation_of(variant, base))
    variants = [*default_variants(base), *with_tile, *(parse_variant(text, base) for text in arguments.variant)]
    reference = _reference(arguments.reference, base)
    files = _files(arguments)
    engine = load_engine(arguments)
    entries = compare(
        engine,
        picture,
        variants,
        base,
        reference=reference,
        progress=lambda name: progress_bar(name, quiet=arguments.quiet, leave=True),
    )
    _write(files, make_report(picture, entries, base, reference))
    return 0


def _reference(path: Path | None, base: GenerationSettings) -> Image.Image | None:
    if path is None:
        return None
    reference = load_picture(path).rgb
    if reference.size != base.size:
        raise InputError(
            f"{path}: the reference is {reference.width}x{reference.height} and the result will be "
            f"{base.width}x{base.height}; give --size {reference.width}x{reference.height}."
        )
    return reference


def _files(arguments: argparse.Namespace) -> _Files:
    sheet = arguments.output or arguments.input.with_name(f"{arguments.input.stem}-comparison.png")
    page = arguments.html or sheet.with_suffix(".html")
    difference = sheet.with_name(f"{sheet.stem}-difference.png") if arguments.difference else None
    check_output(sheet, arguments.input)
    check_output(page, suffixes=(".html", ".htm"))
    return _Files(sheet, sheet.with_suffix(".json"), page, difference)


def make_report(
    picture: Picture, entries: Sequence[Entry], base: GenerationSettings, reference: Image.Image | None = None
) -> Report:
    """Draw and measure what a comparison shows."""
    panels, plain = make_panels(picture, entries, reference)
    results = [entry.picture for entry in entries]
    crops = choose_crops(results if len(results) > 1 else [results[0], plain_resize(picture.rgb, base.size)])
    title = (
        f"{picture.size[0]} x {picture.size[1]} to {base.width} x {base.height}: {base.sampler}, {base.steps} steps, "
        f"denoising strength {base.denoising_strength:g}, CFG scale {base.cfg_scale:g}, seed {base.seed}, {base.model}"
    )
    footer = "Made by latent-upscale compare. The enlarged places are those where the variants differ most."
    ours = 2 + len(_first_names(entries)) - 1
    return Report(
        sheet=make_sheet(panels, crops, title=title, footer=footer),
        page=make_page(panels, title=title, footer=footer, chosen=(min(2, ours - 1), ours)),
        figures=_figures(picture, entries, base, plain, crops),
        difference=difference_map(results[0], entries[ours - 2].picture),
    )


def _write(files: _Files, report: Report) -> None:
    save_png(report.sheet, files.sheet)
    _write_text(files.figures, json.dumps(report.figures, indent=2) + "\n")
    _write_text(files.page, report.page)
    written = [files.sheet, files.figures, files.page]
    if files.difference is not None:
        save_png(report.difference, files.difference)
        written.append(files.difference)
    sys.stdout.write("".join(f"{path}\n" for path in written))


def _write_text(path: Path, text: str) -> None:
    with written_whole(path) as part:
        part.write_text(text, encoding="utf-8")


def _figures(
    picture: Picture, entries: Sequence[Entry], base: GenerationSettings, plain: Figures, crops: Sequence[Box]
) -> dict[str, Any]:
    return {
        "input_size": list(picture.size),
        "size": list(base.size),
        "seed": base.seed,
        "model": base.model,
        "crops": [list(box) for box in crops],
        "plain_resize": plain.to_dict(),
        "variants": [_record(entry) for entry in entries],
    }
