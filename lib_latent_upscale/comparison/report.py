"""The results of a comparison: a labelled sheet, a page with a slider, and metrics for users and for scripts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from lib_latent_upscale.comparison.metrics import Box, Metrics, choose_crops, difference_map, measure, plain_resize
from lib_latent_upscale.comparison.page import make_page
from lib_latent_upscale.comparison.sheet import Panel, make_sheet
from lib_latent_upscale.comparison.variants import Role, Variant, difference
from lib_latent_upscale.settings import AUTOMATIC, UpscaleSettings

__all__ = ["LEGEND", "PLAIN_NAME", "Entry", "Report", "Subject", "make_report"]

PLAIN_NAME = "Picture resized"

LEGEND = (
    "Sharpness: above 1 means more contrast between neighbouring pixels than in the picture resized without a model; "
    "noise counts too. Shrunk, compared with the input: how faithful the result is once it is shrunk to the input's "
    "size; higher is nearer, SSIM 1 is identical."
)
"""The meaning of the metrics, shown next to them."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Subject:
    """What is enlarged, and the settings that all variants have in common."""

    picture: Image.Image
    """The part of the input that is enlarged, at its own size; RGB."""
    seed: int
    steps: int
    sampler: str
    denoising_strength: float
    cfg_scale: float
    model: str
    reference: Image.Image | None = None
    """The known original, at the size of the results."""


@dataclass(frozen=True)
class Entry:
    """One picture of a variant that has run."""

    variant: Variant
    same: Sequence[Variant]
    """Further variants that are mathematically the same, and therefore were not run."""
    picture: Image.Image
    """RGB, at the same size as all others."""
    parameters: str
    """Its infotext, from which it can be made again."""
    method: str
    """The method that ran, never "automatic"."""
    host_schedule: str
    """The schedule that ran where the settings leave it to the host."""
    steps: int
    """Steps that actually ran."""
    first_sigma: float | None
    """The first sigma; None if no step ran or the sampler does not use sigmas."""
    seconds: float
    """Time of sampling, decoding and passes, without the work that all variants share."""
    shrunk_from: tuple[int, int] | None = None
    """(width, height) of the result itself, if a pass has made it larger than the others."""
    fewer: bool = False
    """Whether the sampler ran fewer steps than requested."""
    remarks: Sequence[str] = ()
    """Further lines for users, such as what a pass did."""

    def has_role(self, role: Role) -> bool:
        """Whether the variant, or one that is the same, has this role."""
        return any(variant.role == role for variant in (self.variant, *self.same))

    @property
    def notes(self) -> list[str]:
        """A few lines that say what ran."""
        settings = self.variant.settings
        told = {"method", "scheduler", "exact_steps", "matched_noise", "starting_noise"}
        usual = asdict(UpscaleSettings())
        values = {name: value for name, value in asdict(settings).items() if name not in told}
        further = "".join(f", {difference(name, value)}" for name, value in values.items() if value != usual[name])
        shrunk = ["{} x {} pixels, shrunk here".format(*self.shrunk_from)] if self.shrunk_from else []
        return [f"{self._method} + {self.schedule}, {self._cut}{further}", self._start, *shrunk, *self.remarks]

    @property
    def schedule(self) -> str:
        """The schedule that ran; after "automatic", the host's own in brackets."""
        asked = self.variant.settings.scheduler
        return f"{AUTOMATIC} ({self.host_schedule})" if asked == AUTOMATIC else asked

    @property
    def _method(self) -> str:
        asked = self.variant.settings.method
        return self.method if asked == self.method else f"{asked} ({self.method})"

    @property
    def _cut(self) -> str:
        settings = self.variant.settings
        if settings.starts_anywhere:
            return "continuous start" if settings.starting_noise == "continuous" else "matched noise"
        if self.fewer:
            return "steps as the sampler has them"
        return "exact steps" if settings.exact_steps else "steps cut by the denoising strength"

    @property
    def _start(self) -> str:
        if not self.steps:
            return "no step ran"
        sigma = "" if self.first_sigma is None else f" from sigma {self.first_sigma:.2f}"
        return f"{self.steps} step{'s' if self.steps > 1 else ''} ran{sigma}"


@dataclass(frozen=True)
class Report:
    """A finished comparison of one picture."""

    panels: Sequence[Panel]
    crops: Sequence[Box]
    title: str
    footer: str
    chosen: tuple[int, int]
    """Indices of the panels that a slider shows at first, left and right."""
    plain: Image.Image
    """The picture resized without any model."""
    difference: Image.Image | None
    """Where the results of the host's default and of the settings differ; None if one of them is missing."""
    record: Mapping[str, Any]
    """Plain values for JSON."""

    @property
    def notes(self) -> dict[str, Sequence[str]]:
        """Lines for users by the names of the pictures, without the input."""
        return {panel.name: panel.notes for panel in self.panels[1:]}

    def sheet(self, font: Path | None = None) -> Image.Image:
        """One labelled picture, RGB; `font` is a TrueType file, by default Pillow's own font."""
        return make_sheet(self.panels, self.crops, title=self.title, footer=self.footer, font=font)

    def page(self) -> str:
        """The text of an HTML file with a slider between any two of the pictures."""
        return make_page(self.panels, title=self.title, footer=self.footer, chosen=self.chosen)


def make_report(
    subject: Subject, entries: Sequence[Entry], *, shown: Callable[[Image.Image], Image.Image] = lambda picture: picture
) -> Report:
    """Measure and describe results; without scikit-image there are no metrics, and the report says so.

    Args:
        subject: what was enlarged.
        entries: the results, all of one size; at least one.
        shown: makes the picture that users see from the one that is measured, such as by adding its transparency.

    Raises:
        InputError: the reference has another size than the results.
    """
    plain = plain_resize(subject.picture, entries[0].picture.size)
    pictures = [entry.picture for entry in entries]
    measured = [_measured(entry.picture, subject, entry.seconds) for entry in entries]
    plain_measured = _measured(plain, subject)
    crops = choose_crops(pictures if len(pictures) > 1 else [*pictures, plain])
    own = next((index for index, entry in enumerate(entries) if entry.has_role("own")), len(entries) - 1)
    panels = [
        Panel("Input", shown(subject.picture), [_size(subject.picture)]),
        Panel(PLAIN_NAME, shown(plain), ["Lanczos, no model", *_lines(plain_measured)]),
        *(_panel(entry, figures, shown) for entry, figures in zip(entries, measured, strict=True)),
        *([Panel("Original", subject.reference, [_size(subject.reference)])] if subject.reference else []),
    ]
    return Report(
        panels=panels,
        crops=crops,
        title=_title(subject, plain.size),
        footer=_footer(plain_measured),
        chosen=(2 if own else 1, 2 + own),
        plain=plain,
        difference=_difference(entries),
        record={
            "input_size": list(subject.picture.size),
            "size": list(plain.size),
            "seed": subject.seed,
            "model": subject.model,
            "crops": [list(box) for box in crops],
            "plain_resize": _plain(plain_measured),
            "variants": [_record(entry, figures) for entry, figures in zip(entries, measured, strict=True)],
        },
    )


def _measured(picture: Image.Image, subject: Subject, seconds: float | None = None) -> Metrics | None:
    try:
        return measure(picture, subject.picture, seconds=seconds, reference=subject.reference)
    except ImportError as error:
        _log.warning("Latent Upscale: nothing is measured, because a package is missing: %s", error)
        return None


def _panel(entry: Entry, figures: Metrics | None, shown: Callable[[Image.Image], Image.Image]) -> Panel:
    same = [f"the same as {twin.name} ({twin.settings.method}): not run twice" for twin in entry.same]
    notes = [*entry.notes, *_lines(figures), f"{entry.seconds:.1f} s", *same]
    return Panel(entry.variant.name, shown(entry.picture), notes, highlight=entry.has_role("own"))


def _size(picture: Image.Image) -> str:
    return f"{picture.width} x {picture.height} pixels"


def _lines(figures: Metrics | None) -> list[str]:
    return [] if figures is None else figures.lines()


def _title(subject: Subject, size: tuple[int, int]) -> str:
    return (
        f"{subject.picture.width} x {subject.picture.height} to {size[0]} x {size[1]}: {subject.sampler}, "
        f"{subject.steps} steps, denoising strength {subject.denoising_strength:g}, CFG scale {subject.cfg_scale:g}, "
        f"seed {subject.seed}, {subject.model}"
    )


def _footer(figures: Metrics | None) -> str:
    measured = "Nothing is measured: the package scikit-image is missing." if figures is None else LEGEND
    return f"Made by Latent Upscale. The enlarged details are where the variants differ most. {measured}"


def _difference(entries: Sequence[Entry]) -> Image.Image | None:
    pair = [next((entry.picture for entry in entries if entry.has_role(role)), None) for role in ("host", "own")]
    first, second = pair
    return None if first is None or second is None else difference_map(first, second)


def _record(entry: Entry, figures: Metrics | None) -> dict[str, Any]:
    return {
        "name": entry.variant.name,
        "role": entry.variant.role,
        **asdict(entry.variant.settings),
        **{name: _plain(value) for name, value in entry.variant.overrides.items()},
        **({"passes": entry.variant.passes} if entry.variant.passes else {}),
        "method_run": entry.method,
        "schedule_run": entry.schedule,
        "steps_run": entry.steps,
        "first_sigma": None if entry.first_sigma is None else round(entry.first_sigma, 6),
        "same_result": [twin.name for twin in entry.same],
        "shrunk_from": None if entry.shrunk_from is None else list(entry.shrunk_from),
        "seconds": round(entry.seconds, 3),
        "figures": _plain(figures),
        "parameters": entry.parameters,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Metrics):
        return value.to_dict()
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
