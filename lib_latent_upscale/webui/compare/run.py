"""A comparison in the WebUI: the variants run one after the other, and their pictures come back with a sheet."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from lib_latent_upscale.comparison.report import PLAIN_NAME, Entry, Report, Subject, make_report
from lib_latent_upscale.comparison.variants import Role, Variant, merge_same
from lib_latent_upscale.settings import AUTOMATIC
from lib_latent_upscale.webui.compare.variants import make_variants
from lib_latent_upscale.webui.errors import ArgumentError, refusing
from lib_latent_upscale.webui.host import machine as host_machine
from lib_latent_upscale.webui.host import processing as host
from lib_latent_upscale.webui.host import saving
from lib_latent_upscale.webui.host.geometry import LATENT, STRETCH, cut_for_encoding, placed
from lib_latent_upscale.webui.passes.base import Kept, Passes
from lib_latent_upscale.webui.request import Request
from lib_latent_upscale.webui.run.collaborator import Collaborator
from lib_latent_upscale.webui.run.latent_upscale import TITLE, LatentUpscale
from lib_latent_upscale.webui.run.second_run import generate

__all__ = ["RECORD", "compare"]

RECORD = "Latent upscale comparison"
"""Where the figures are in `extra_generation_params` of the result's info; the slider reads them there."""

_FILE_NAME = "latent_upscale_comparison"

_log = logging.getLogger(__name__)


def compare(p: Any, request: Request, kept: Kept) -> Any:
    """Run the variants on copies of the processing object and return one `Processed` with everything.

    The pictures come in this order, one each for every seed: sheets, plain resizes, maps of the differences where asked
    for, and each variant's own.

    Raises:
        ArgumentError: something that is asked for is not allowed; nothing has run then.
    """
    base = copy(p)
    host.fix_seed(base)
    base.comments = dict(p.comments)
    runs = _Runs(base, request, kept)
    runs.finish_all()
    if not runs.finished:
        return runs.unfinished
    return _Results(base, request, runs).processed()


class _Recorder(Collaborator):
    """Lets a variant share encoded pictures with others, and notes what really ran."""

    def __init__(self, encoded: _Encoded) -> None:
        self.steps = 0
        self.fewer = False
        self.first_sigma: float | None = None
        self.started: float | None = None
        self._shared = encoded

    def encode(self, encode: host.Encode) -> host.Encode:
        return self._shared.through(encode)

    def prepared(self, p: Any) -> None:
        self._watch(p.sampler)

    def sampling(self, p: Any) -> None:  # noqa: ARG002
        if self.started is None:
            self.started = time.perf_counter()

    def sampled(self, p: Any, calls: int | None) -> None:  # noqa: ARG002
        if calls is not None and calls < self.steps:
            self.steps, self.fewer = calls, True

    def _watch(self, sampler: Any) -> None:
        """Note the schedule and the steps when the sampler starts; the host has made the sampler for this run."""
        launch: Any = sampler.launch_sampling
        get_sigmas: Any = getattr(sampler, "get_sigmas", None)
        made: list[Tensor] = []

        def noted_sigmas(*args: Any, **kwargs: Any) -> Tensor:
            made[:] = [get_sigmas(*args, **kwargs)]
            return made[0]

        def noted_launch(steps: int, *args: Any, **kwargs: Any) -> Any:
            self.steps = steps
            self.first_sigma = made[0][-steps - 1].item() if made else None
            return launch(steps, *args, **kwargs)

        sampler.launch_sampling = noted_launch
        if get_sigmas is not None:
            sampler.get_sigmas = noted_sigmas


class _Encoded:
    """Latents of pictures that have been encoded, by picture and seed of the draw."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, bytes], tuple[Tensor, Any]] = {}

    @property
    def sizes(self) -> set[tuple[int, ...]]:
        """(height, width) of the latents."""
        return {tuple(latent.shape[-2:]) for latent, _ in self._kept.values()}

    def through(self, encode: host.Encode) -> host.Encode:
        """`encode`, but each picture only once; the random state is afterwards as if it had been encoded."""

        def encoded(pixels: Tensor) -> Tensor:
            key = (torch.initial_seed(), hashlib.sha256(pixels.float().cpu().numpy().tobytes()).digest())
            if key not in self._kept:
                self._kept[key] = encode(pixels), host.kept_random_state()
            latent, put_back = self._kept[key]
            put_back()
            return latent.clone()

        return encoded


@dataclass(frozen=True)
class _Done:
    variant: Variant
    same: Sequence[Variant]
    p: Any
    extra: dict[str, Any]
    """What the run has put into the infotext."""
    processed: Any
    pictures: Sequence[Image.Image]
    infotexts: Sequence[str]
    record: _Recorder
    seconds: float


@dataclass(frozen=True)
class _Prepared:
    """One variant that has been checked and may run."""

    p: Any
    upscale: LatentUpscale
    passes: Passes
    record: _Recorder


class _Runs:
    """The variants' runs; everything is checked before the first one."""

    def __init__(self, base: Any, request: Request, kept: Kept) -> None:
        own, asked = request.settings, request.comparison
        self.finished: list[_Done] = []
        self.unfinished: Any = None
        self.passes = request.passes(base, kept)
        self._base = base
        self._passes_for = partial(request.passes, kept=kept)
        self._encoded = _Encoded()
        self._schedule = host.default_schedule(base.scheduler, base.sampler_name)
        with refusing():
            self._variants = make_variants(own, asked, self._schedule, self.passes.names)
        self._prepared = {id(variant): self._prepare(variant) for variant in self._variants}
        matched = own.matched_noise or own.starting_noise == "matched"
        if matched and not any(v.role == "host" and v.settings.starts_anywhere for v in self._variants):
            base.comment(f"Latent Upscale: the WebUI's schedule {self._schedule} has no matched noise here.")

    def _prepare(self, variant: Variant) -> _Prepared:
        p = copy(self._base)
        p.styles = list(p.styles or [])
        p.override_settings = dict(p.override_settings)
        p.do_not_save_grid = True
        for name, value in variant.overrides.items():
            setattr(p, name, value)
        known = host.sampler_names()
        if p.sampler_name not in known:
            raise ArgumentError(
                f"Latent Upscale: {variant.name}: sampler_name is {p.sampler_name!r}; choose from: {', '.join(known)}"
            )
        passes, record = self._passes_for(p).first(len(variant.passes)), _Recorder(self._encoded)
        return _Prepared(p, LatentUpscale(p, variant.settings, record), passes, record)

    def finish_all(self) -> None:
        """Run until the end or an interrupt; what cannot be finished is said, and the others go on."""
        for index, group in enumerate(self._groups()):
            if host_machine.ended():
                break
            host_machine.announce(f"{group[0].name} ({index + 1}):")
            self._finish(group)
        host_machine.announce(None)
        left_out = len(self._variants) - sum(1 + len(done.same) for done in self.finished)
        if left_out:
            self._base.comment(f"Latent Upscale: {left_out} of {len(self._variants)} variants were not finished.")

    def _groups(self) -> Iterator[list[Variant]]:
        """The first variant, and when it has shown the sizes of the latents, the others, equal ones together."""
        host_machine.jobs_left(self._jobs(self._variants))
        yield self._variants[:1]
        groups = [[variant] for variant in self._variants]
        if len(self._encoded.sizes) == 1:
            target = tuple(-(-side // host.cell()) for side in (self._base.height, self._base.width))
            (source,) = self._encoded.sizes
            groups = merge_same(self._variants, (source[0], source[1]), (target[0], target[1]))
        if self.finished:
            self.finished[0] = replace(self.finished[0], same=groups[0][1:])
        host_machine.jobs_left(self._jobs([group[0] for group in groups[1:]]))
        yield from groups[1:]

    def _jobs(self, variants: Sequence[Variant]) -> int:
        """How often the progress bar will begin again: for every batch, and for every picture of a pass."""
        passes = sum(len(variant.passes) for variant in variants)
        return int((len(variants) + passes * self._base.batch_size) * self._base.n_iter)

    def _finish(self, group: Sequence[Variant]) -> None:
        prepared = self._prepared[id(group[0])]
        p, passes, record = prepared.p, prepared.passes, prepared.record
        try:
            processed = generate(p, prepared.upscale, passes)
        except host_machine.failures() as error:
            if not self.finished:
                raise
            _log.warning("%s failed", group[0].name, exc_info=True)
            self._base.comment(f"Latent Upscale: {group[0].name} failed: {error}")
            return
        seconds = time.perf_counter() - (record.started or time.perf_counter())
        if host_machine.stopped():
            self.unfinished = processed
            return
        pictures, infotexts = _own_pictures(p, processed, passes)
        if pictures and all(passes.ran(infotext) for infotext in infotexts):
            extra = dict(processed.extra_generation_params)
            self.finished.append(_Done(group[0], group[1:], p, extra, processed, pictures, infotexts, record, seconds))


def _own_pictures(p: Any, processed: Any, passes: Passes) -> tuple[list[Image.Image], list[str]]:
    """The pictures without masks, and their infotexts; after a second pass the masks stand behind all pictures."""
    if passes.own_run is None and not passes.hide_masks:
        pictures, infotexts = host.own_pictures(p, processed)
        return list(pictures), list(infotexts)
    first = processed.index_of_first_image
    infotexts = processed.infotexts[first:]
    return processed.images[first : first + len(infotexts)], infotexts


class _Results:
    """What is shown and saved of the finished runs."""

    def __init__(self, base: Any, request: Request, runs: _Runs) -> None:
        self._base = base
        self._own = request.settings
        self._asked = request.comparison
        self._passes = runs.passes
        self._runs = runs.finished
        self._first = runs.finished[0]
        self._schedule = host.default_schedule(base.scheduler, base.sampler_name)
        self._count = min(len(done.pictures) for done in runs.finished)
        self._size = min(done.pictures[0].size for done in runs.finished)  # what a pass has enlarged is shown shrunk

    def processed(self) -> Any:
        """One `Processed`, in which all lists are as long as the list of pictures."""
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
        result.infotexts = [texts[one.index] for one in shown[:first]]
        result.infotexts += [text for done in self._runs for text in done.infotexts[: self._count]]
        for name in ("all_prompts", "all_negative_prompts", "all_seeds", "all_subseeds"):
            values = getattr(result, name)
            setattr(result, name, [values[one.index] for one in shown])
        result.info = result.infotexts[0]
        result.comments = "".join(f"{comment}\n" for comment in self._base.comments)
        described = [self._described(one, reports[one.index]) for one in shown]
        record = {"pictures": described, "comparisons": [report.record for report in reports]}
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

    def _entry(self, done: _Done, index: int) -> Entry:
        picture, size = done.pictures[index].convert("RGB"), self._size
        scheduler = done.variant.settings.scheduler
        if scheduler == AUTOMATIC:
            scheduler = f"{AUTOMATIC} ({host.default_schedule(done.p.scheduler, done.p.sampler_name)})"
        return Entry(
            variant=done.variant,
            same=done.same,
            picture=picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS),
            parameters=done.infotexts[index],
            schedule=scheduler,
            steps=done.record.steps,
            fewer=done.record.fewer,
            first_sigma=done.record.first_sigma,
            seconds=done.seconds / len(done.pictures),
            shrunk_from=None if picture.size == size else picture.size,
        )

    def _sheet_text(self, index: int) -> str:
        """The infotext with which the comparison can be made again."""
        p = copy(self._first.p)
        compared = replace(self._asked, compare=True)
        p.extra_generation_params = {
            **self._first.extra,
            "Script": TITLE,
            **self._own.to_infotext(),
            **compared.to_infotext(),
            **self._passes.infotext,
        }
        return saving.infotext(p, index)

    def _save(self, index: int, sheet: Image.Image, report: Report, text: str) -> None:
        """Save the sheet as the host saves its own grids, and the figures beside it."""
        saving.write_infotext(sheet, text)
        if not host.option("grid_save") or self._base.do_not_save_grid:
            return
        done = self._first.processed
        seed, prompt = done.all_seeds[index], done.all_prompts[index]
        path = saving.save_grid(sheet, _FILE_NAME, self._first.p, seed, prompt, text)
        _write_whole(path.with_suffix(".json"), json.dumps(report.record, indent=2) + "\n")

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
    """Which of the seeds."""
    role: Role | None = None
    """What its variant is there for."""


def _enlarged_part(p: Any, picture: Image.Image) -> Image.Image:
    flat = host.flattened(picture)
    mode = STRETCH if p.resize_mode == LATENT else p.resize_mode
    return cut_for_encoding(flat, placed(flat.size, (p.width, p.height), mode).visible, 1)


def _write_whole(path: Path, text: str) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
