"""A comparison in the WebUI: the variants run one after the other, and their pictures come back with a sheet."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from PIL import Image

from lib_latent_upscale.comparison.variants import Variant, merge_same
from lib_latent_upscale.errors import InputError
from lib_latent_upscale.settings import UpscaleSettings
from lib_latent_upscale.webui.compare.recorder import EncodeCache, Recorder
from lib_latent_upscale.webui.compare.results import Done, Results
from lib_latent_upscale.webui.compare.variants import make_variants
from lib_latent_upscale.webui.errors import PREFIX, ArgumentError, refusing
from lib_latent_upscale.webui.host import machine as host_machine
from lib_latent_upscale.webui.host import models
from lib_latent_upscale.webui.host import processing as host
from lib_latent_upscale.webui.passes.base import ModelCache, Passes
from lib_latent_upscale.webui.request import Request
from lib_latent_upscale.webui.run.latent_upscale import LatentUpscale
from lib_latent_upscale.webui.run.second_run import generate

__all__ = ["compare"]

_log = logging.getLogger(__name__)


def compare(p: Any, request: Request, kept: ModelCache) -> Any:
    """Run the variants on copies of the processing object and return one `Processed` with everything.

    Its pictures are, one for every seed: sheets, plain resizes, difference maps if requested, and those of each
    variant.

    Raises:
        ArgumentError: something that is requested is not allowed; nothing has run then.
    """
    base = copy(p)
    host.fix_seed(base)
    base.comments = dict(p.comments)
    runs = _Runs(base, request, kept)
    runs.finish_all()
    if not runs.finished:
        return runs.unfinished
    return Results(base, request, runs.finished, runs.passes, runs.failed).processed()


@dataclass(frozen=True)
class _Prepared:
    """One variant that has been checked and may run."""

    p: Any
    upscale: LatentUpscale
    passes: Passes
    record: Recorder


class _Runs:
    """The runs of the variants; everything is checked before the first one."""

    def __init__(self, base: Any, request: Request, kept: ModelCache) -> None:
        own, asked = request.settings, request.comparison
        self.finished: list[Done] = []
        self.failed: list[str] = []
        self.unfinished: Any = None
        self.passes = request.passes(base, kept)
        self._base = base
        self._passes_for = partial(request.passes, kept=kept)
        self._encoded = EncodeCache()
        self._schedule = host.default_schedule(base.scheduler, base.sampler_name)
        with refusing():
            self._variants = make_variants(own, asked, self._schedule, self.passes.names)
        self._prepared = {id(variant): self._prepare(variant) for variant in self._variants}
        matched = own.matched_noise or own.starting_noise == "matched"
        if matched and not any(v.role == "host" and v.settings.starts_anywhere for v in self._variants):
            host.comment(base, f"the WebUI's schedule {self._schedule} has no matched noise here.")

    def _prepare(self, variant: Variant) -> _Prepared:
        p = copy(self._base)
        p.styles = list(p.styles or [])
        p.override_settings = dict(p.override_settings)
        p.do_not_save_grid = True
        for name, value in variant.overrides.items():
            setattr(p, name, value)
        _check_sampler(variant.name, p.sampler_name)
        passes, record = self._passes_for(p).first(len(variant.passes)), Recorder(self._encoded)
        return _Prepared(p, LatentUpscale(p, variant.settings, record), passes, record)

    def finish_all(self) -> None:
        """Run all variants, until an interrupt; the user is told of those that fail, and the others still run."""
        for index, group in enumerate(self._groups()):
            if host_machine.ended():
                break
            host_machine.announce(f"{group[0].name} ({index + 1}):")
            self._finish(group)
        host_machine.announce(None)
        left_out = len(self._variants) - sum(1 + len(done.same) for done in self.finished)
        if left_out:
            host.comment(self._base, f"{left_out} of {len(self._variants)} variants were not finished.")

    def _groups(self) -> Iterator[list[Variant]]:
        """The first variant, which shows the sizes of the latents; then the others, grouped if they are the same."""
        host_machine.jobs_left(self._jobs(self._variants))
        yield self._variants[:1]
        groups = [[variant] for variant in self._variants]
        if len(self._encoded.sizes) == 1:
            target = tuple(-(-side // models.vae_scale_factor()) for side in (self._base.height, self._base.width))
            (source,) = self._encoded.sizes
            groups = merge_same(self._variants, (source[0], source[1]), (target[0], target[1]), self._resolved)
        if self.finished:
            self.finished[0] = replace(self.finished[0], same=groups[0][1:])
        host_machine.jobs_left(self._jobs([group[0] for group in groups[1:]]))
        yield from groups[1:]

    def _resolved(self, variant: Variant) -> UpscaleSettings:
        """The settings that a variant runs, with the model of the first one, which has run."""
        first, own = (self._prepared[id(one)].upscale for one in (self._variants[0], variant))
        return own.resolved(first.family)

    def _jobs(self, variants: Sequence[Variant]) -> int:
        """Number of jobs in the progress bar: one for every batch, and one for every picture of a pass."""
        passes = sum(len(variant.passes) for variant in variants)
        return int((len(variants) + passes * self._base.batch_size) * self._base.n_iter)

    def _finish(self, group: Sequence[Variant]) -> None:
        prepared = self._prepared[id(group[0])]
        p, passes, record = prepared.p, prepared.passes, prepared.record
        failures: tuple[type[Exception], ...] = (ArgumentError, *host_machine.failures())
        try:
            processed = generate(p, prepared.upscale, passes)
        except failures as error:
            if not self.finished:
                raise
            _log.warning("%s failed", group[0].name, exc_info=True)
            self.failed.append(f"{group[0].name} failed: {str(error).removeprefix(PREFIX).rstrip('.')}.")
            host.comment(self._base, self.failed[-1])
            return
        seconds = time.perf_counter() - (record.started or time.perf_counter())
        if host_machine.stopped():
            self.unfinished = processed
            return
        pictures, infotexts = _own_pictures(p, processed, passes)
        if pictures and all(passes.ran(infotext) for infotext in infotexts):
            extra = dict(processed.extra_generation_params)
            ran = prepared.upscale.settings
            self.finished.append(
                Done(group[0], group[1:], ran, p, extra, processed, pictures, infotexts, record, seconds)
            )


@refusing()
def _check_sampler(variant: str, name: str) -> None:
    known = host.sampler_names()
    if name not in known:
        raise InputError(f"{variant}: sampler_name is {name!r}; choose from: {', '.join(known)}")


def _own_pictures(p: Any, processed: Any, passes: Passes) -> tuple[list[Image.Image], list[str]]:
    """The pictures without masks, and their infotexts; after a second pass the masks follow all pictures."""
    if passes.own_run is None and not passes.hide_masks:
        pictures, infotexts = host.own_pictures(p, processed)
        return list(pictures), list(infotexts)
    first = processed.index_of_first_image
    infotexts = processed.infotexts[first:]
    return processed.images[first : first + len(infotexts)], infotexts
