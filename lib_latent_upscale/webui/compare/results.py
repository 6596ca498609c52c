"""What a comparison shows: the labelled sheet, the figures for people, and the record for scripts and the slider."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from lib_latent_upscale.comparison.report import Figures, Variant, choose_crops, difference_map, measure, plain_resize
from lib_latent_upscale.comparison.sheet import Panel, make_sheet
from lib_latent_upscale.webui.compare.variants import DEFAULT_NAME, OWN_NAME

__all__ = ["PLAIN_NAME", "Finished", "Report", "Subject", "make_report"]

PLAIN_NAME = "Picture resized"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Subject:
    """What is enlarged, and how all variants do it."""

    picture: Image.Image
    """The part of the input that is enlarged, in its own size."""
    seed: int
    steps: int
    sampler: str
    denoising_strength: float
    cfg_scale: float
    model: str


@dataclass(frozen=True)
class Finished:
    """One picture of a variant that has run."""

    variant: Variant
    same: Sequence[Variant]
    """Further variants that are mathematically the same, so were not run."""
    picture: Image.Image
    infotext: str
    scheduler: str
    """The schedule that ran; with "automatic" the host's own is named, too."""
    steps: int
    """Steps that really ran."""
    first_sigma: float | None
    """Where they started; None where nothing ran or the sampler knows no sigmas."""
    seconds: float
    """Sampling, decoding and passes; what all variants share is left out."""
    shrunk_from: tuple[int, int] | None = None
    """(width, height) of the result itself, where a pass has made it larger than the others."""

    @property
    def names(self) -> list[str]:
        """Of all variants that this is."""
        return [variant.name for variant in (self.variant, *self.same)]

    @property
    def detail(self) -> str:
        """What it is, in a few words, as far as its name does not say so."""
        settings = self.variant.settings
        cut = "matched noise" if settings.matched_noise else "exact steps" if settings.exact_steps else "default cut"
        statistics = ", statistics kept" if settings.keep_statistics else ""
        pair = f"{settings.method} + {self.scheduler}"
        return f"{cut}{statistics}" if self.variant.name.startswith(pair) else f"{pair}, {cut}{statistics}"

    @property
    def start(self) -> str:
        """How much was denoised."""
        if not self.steps:
            return "no step ran"
        sigma = "" if self.first_sigma is None else f" from sigma {self.first_sigma:.2f}"
        return f"{self.steps} step{'s' if self.steps > 1 else ''} ran{sigma}"


@dataclass(frozen=True)
class Report:
    """A finished comparison of one picture."""

    sheet: Image.Image
    plain: Image.Image
    difference: Image.Image | None
    record: Mapping[str, Any]
    """Plain values for JSON."""
    notes: Mapping[str, Sequence[str]]
    """Lines for people, by name."""


def make_report(subject: Subject, entries: Sequence[Finished], *, difference: bool, font: Path | None) -> Report:
    """Measure the results and draw the sheet; without scikit-image there are no figures."""
    pictures = [entry.picture.convert("RGB") for entry in entries]
    plain = plain_resize(subject.picture.convert("RGB"), pictures[0].size)
    crops = choose_crops(pictures if len(pictures) > 1 else [*pictures, plain])
    figures = [
        _figures(picture, subject.picture, entry.seconds) for picture, entry in zip(pictures, entries, strict=True)
    ]
    plain_figures = _figures(plain, subject.picture)
    notes = {PLAIN_NAME: ["Lanczos, no model", *_lines(plain_figures)]}
    for entry, measured in zip(entries, figures, strict=True):
        notes[entry.variant.name] = _notes(entry, measured)
    panels = [
        Panel("Input", subject.picture, [f"{subject.picture.width} x {subject.picture.height} pixels"]),
        Panel(PLAIN_NAME, plain, notes[PLAIN_NAME]),
        *(Panel(e.variant.name, e.picture, notes[e.variant.name], OWN_NAME in e.names) for e in entries),
    ]
    sheet = make_sheet(panels, crops, title=_title(subject, plain.size), footer=_footer(figures[0]), font=font)
    record = {
        "input_size": list(subject.picture.size),
        "size": list(plain.size),
        "seed": subject.seed,
        "model": subject.model,
        "crops": [list(box) for box in crops],
        "plain_resize": _plain(plain_figures),
        "variants": [_record(entry, measured) for entry, measured in zip(entries, figures, strict=True)],
    }
    return Report(sheet, plain, _difference(entries) if difference else None, record, notes)


def _figures(picture: Image.Image, source: Image.Image, seconds: float | None = None) -> Figures | None:
    try:
        return measure(picture, source, seconds=seconds)
    except ImportError as error:
        _log.warning("Latent Upscale: nothing is measured, because a package is missing: %s", error)
        return None


def _lines(figures: Figures | None) -> list[str]:
    return [] if figures is None else figures.lines()


def _plain(figures: Figures | None) -> dict[str, Any] | None:
    return None if figures is None else figures.to_dict()


def _notes(entry: Finished, figures: Figures | None) -> list[str]:
    same = [f"the same as {twin.name} ({twin.settings.method}): not run twice" for twin in entry.same]
    shrunk = ["{} x {} pixels, shrunk here".format(*entry.shrunk_from)] if entry.shrunk_from else []
    return [entry.detail, entry.start, *shrunk, *_lines(figures), f"{entry.seconds:.1f} s", *same]


def _title(subject: Subject, size: tuple[int, int]) -> str:
    return (
        f"{subject.picture.width} x {subject.picture.height} to {size[0]} x {size[1]}: {subject.sampler}, "
        f"{subject.steps} steps, denoising strength {subject.denoising_strength:g}, CFG scale {subject.cfg_scale:g}, "
        f"seed {subject.seed}, {subject.model}"
    )


def _footer(figures: Figures | None) -> str:
    missing = "" if figures is not None else " Nothing is measured: the package scikit-image is missing."
    return f"Made by Latent Upscale. The enlarged places are those where the variants differ most.{missing}"


def _difference(entries: Sequence[Finished]) -> Image.Image | None:
    """Of the host's default and the settings' own picture, where both have finished."""
    found = {name: entry.picture for entry in entries for name in entry.names}
    pair = [found[name] for name in (DEFAULT_NAME, OWN_NAME) if name in found]
    return difference_map(*pair) if len(pair) == 2 else None


def _record(entry: Finished, figures: Figures | None) -> dict[str, Any]:
    return {
        "name": entry.variant.name,
        **asdict(entry.variant.settings),
        **entry.variant.overrides,
        "schedule_run": entry.scheduler,
        "steps_run": entry.steps,
        "first_sigma": None if entry.first_sigma is None else round(entry.first_sigma, 6),
        "same_result": [twin.name for twin in entry.same],
        "shrunk_from": None if entry.shrunk_from is None else list(entry.shrunk_from),
        "seconds": round(entry.seconds, 3),
        "figures": _plain(figures),
        "parameters": entry.infotext,
    }
