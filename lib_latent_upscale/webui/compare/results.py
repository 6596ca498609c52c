"""The results of a comparison in the WebUI: what is shown and saved."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from lib_latent_upscale.comparison.report import LEGEND, PLAIN_NAME, Entry, Report, Subject, make_report
from lib_latent_upscale.comparison.variants import Role, Variant
from lib_latent_upscale.settings import TITLE, UpscaleSettings
from lib_latent_upscale.webui.compare.recorder import Recorder
from lib_latent_upscale.webui.host import processing as host
from lib_latent_upscale.webui.host import saving
from lib_latent_upscale.webui.host.geometry import cut_for_encoding, picture_mode, placed
from lib_latent_upscale.webui.passes.base import Passes
from lib_latent_upscale.webui.request import Request
from lib_latent_upscale.webui.run.notes import NOTE_LABEL, joined_notes
from lib_latent_upscale.writing import write_whole

__all__ = ["RECORD", "Done", "Results"]

RECORD = "Latent upscale comparison"
"""Key of the metrics in `extra_generation_params` of the result's info, where the slider reads them."""

_FILE_NAME = "latent_upscale_comparison"


@dataclass(frozen=True)
class Done:
    """One variant that has run."""

    variant: Variant
    same: Sequence[Variant]
    ran: UpscaleSettings
    """The settings that ran, with the method that "automatic" meant."""
    p: Any
    extra: dict[str, Any]
    """Infotext labels and values that the run has written."""
    processed: Any
    pictures: Sequence[Image.Image]
    infotexts: Sequence[str]
    record: Recorder
    seconds: float


class Results:
    """Makes what is shown and saved from the finished runs."""

    def __init__(
        self, base: Any, request: Request, finished: Sequence[Done], passes: Passes, failed: Sequence[str]
    ) -> None:
        self._base = base
        self._own = request.settings
        self._asked = request.comparison
        self._passes = passes
        self._runs = finished
        self._failed = failed
        self._first = finished[0]
        self._count = min(len(done.pictures) for done in finished)
        self._size = min(done.pictures[0].size for done in finished)  # what a pass has enlarged is shown shrunk

    def processed(self) -> Any:
        """One `Processed`; all of its lists are as long as that of the pictures."""
        seeds = range(self._count)
        reports = [self._report(index) for index in seeds]
        texts = [self._sheet_text(index) for index in seeds]
        sheets = [report.sheet(saving.font()) for report in reports]
        for index in seeds:
            self._save(index, sheets[index], reports[index], texts[index])
            self._comment(index, reports[index])
        shown = [
            *(_Shown("sheet", "Sheet", sheet, index) for index, sheet in enumerate(sheets)),
            *(_Shown("plain resize", PLAIN_NAME, report.plain, index) for index, report in enumerate(reports)),
            *(_Shown("difference", "Difference", map_, index) for index, map_ in self._differences(reports)),
        ]
        first = len(shown)
        for done in self._runs:
            name, role = done.variant.name, done.variant.role
            shown += [_Shown("variant", name, done.pictures[index], index, role) for index in seeds]
        result = copy(self._first.processed)
        result.images = [one.picture for one in shown]
        result.index_of_first_image = first
        result.infotexts = ["" if one.name == PLAIN_NAME else texts[one.index] for one in shown[:first]]
        result.infotexts += [text for done in self._runs for text in done.infotexts[: self._count]]
        for name in ("all_prompts", "all_negative_prompts", "all_seeds", "all_subseeds"):
            values = getattr(result, name)
            setattr(result, name, [values[one.index] for one in shown])
        result.info = result.infotexts[0]
        result.comments = "".join(f"{comment}\n" for comment in self._base.comments)
        described = [self._described(one, reports[one.index]) for one in shown]
        record = {
            "pictures": described,
            "legend": LEGEND,
            "comparisons": [report.record for report in reports],
            "failed": list(self._failed),
        }
        result.extra_generation_params = {**self._first.extra, RECORD: record}
        return result

    def _described(self, shown: _Shown, report: Report) -> dict[str, Any]:
        return {
            "kind": shown.kind,
            "role": shown.role,
            "name": shown.name,
            "seed": self._first.processed.all_seeds[shown.index],
            "notes": list(report.notes.get(shown.name, [])),
        }

    def _report(self, index: int) -> Report:
        p = self._base
        subject = Subject(
            picture=_enlarged_part(p, p.init_images[index % len(p.init_images)]).convert("RGB"),
            seed=self._first.processed.all_seeds[index],
            steps=p.steps,
            sampler=p.sampler_name,
            denoising_strength=p.denoising_strength,
            cfg_scale=p.cfg_scale,
            model=self._first.processed.sd_model_name or "",
        )
        return make_report(subject, [self._entry(done, index) for done in self._runs])

    def _entry(self, done: Done, index: int) -> Entry:
        picture, size = done.pictures[index].convert("RGB"), self._size
        return Entry(
            variant=done.variant,
            same=done.same,
            picture=picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS),
            parameters=done.infotexts[index],
            method=done.ran.method,
            host_schedule=host.default_schedule(done.p.scheduler, done.p.sampler_name),
            steps=done.record.steps,
            fewer=done.record.fewer,
            first_sigma=done.record.first_sigma,
            seconds=done.seconds / len(done.pictures),
            shrunk_from=None if picture.size == size else picture.size,
        )

    def _sheet_text(self, index: int) -> str:
        """The infotext from which the comparison can be made again."""
        p = copy(self._first.p)
        compared = replace(self._asked, compare=True)
        p.extra_generation_params = {
            **self._first.extra,
            "Script": TITLE,
            **self._own.to_infotext(),
            **compared.to_infotext(),
            **self._passes.infotext,
            NOTE_LABEL: joined_notes(self._first.extra.get(NOTE_LABEL), *self._failed) or None,
        }
        return saving.infotext(p, index)

    def _save(self, index: int, sheet: Image.Image, report: Report, text: str) -> None:
        """Save the sheet as the host saves its grids, and the metrics next to it."""
        saving.write_infotext(sheet, text)
        if not host.option("grid_save") or self._base.do_not_save_grid:
            return
        done = self._first.processed
        seed, prompt = done.all_seeds[index], done.all_prompts[index]
        path = saving.save_grid(sheet, _FILE_NAME, self._first.p, seed, prompt, text)
        figures = f"{json.dumps(report.record, indent=2)}\n".encode()
        write_whole(path.with_suffix(".json"), figures, overwrite=True)  # the host decides whether a sheet is replaced

    def _differences(self, reports: Sequence[Report]) -> list[tuple[int, Image.Image]]:
        maps = [(index, report.difference) for index, report in enumerate(reports) if self._asked.compare_difference]
        return [(index, one) for index, one in maps if one is not None]

    def _comment(self, index: int, report: Report) -> None:
        several = f" (seed {self._first.processed.all_seeds[index]})" if self._count > 1 else ""
        for name, notes in report.notes.items():
            self._base.comment(f"{name}{several}: {'; '.join(notes)}")


@dataclass(frozen=True)
class _Shown:
    kind: str
    name: str
    picture: Image.Image
    index: int
    """Index of the seed."""
    role: Role | None = None
    """Role of its variant."""


def _enlarged_part(p: Any, picture: Image.Image) -> Image.Image:
    flat = host.flattened(picture)
    return cut_for_encoding(flat, placed(flat.size, (p.width, p.height), picture_mode(p.resize_mode)).visible, 1)
