"""The subcommand `upscale`: one picture, or many."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from tqdm import tqdm

from lib_latent_upscale.errors import InputError, SizeError
from lib_latent_upscale.standalone.commands.cluster import check_cluster, cluster
from lib_latent_upscale.standalone.commands.common import (
    drawn_seed,
    generation_settings,
    given_inputs,
    opened,
    single_output,
    tile_overrides,
)
from lib_latent_upscale.standalone.commands.flags import given_settings
from lib_latent_upscale.standalone.commands.passes import asked_passes, factor_of, leave_out
from lib_latent_upscale.standalone.commands.upscaler import Job, Outcome, Upscaler
from lib_latent_upscale.standalone.engine.generation import GenerationSettings, write_parameters
from lib_latent_upscale.standalone.engine.models import checked_source, model_name
from lib_latent_upscale.standalone.engine.tile import check_range
from lib_latent_upscale.standalone.files.folders import Results, Tally, tried, work_through
from lib_latent_upscale.standalone.files.formats import check_format, format_of
from lib_latent_upscale.standalone.files.inputs import Found, Inputs
from lib_latent_upscale.standalone.files.marks import mark_of
from lib_latent_upscale.standalone.files.settings import FileSettings, ShapeSettings

__all__ = ["run"]

_log = logging.getLogger(__name__)


def run(arguments: argparse.Namespace) -> int:
    """Run the subcommand; returns the exit code, 1 if some of several pictures could not be used.

    Raises:
        InputError: arguments that are not allowed, or the only picture or a model cannot be used.
        GenerationError: the model failed on the only picture.
    """
    leave_out(arguments)
    if arguments.batch_size < 1:
        raise InputError(f"Batch size {arguments.batch_size} is out of range: allowed is 1 or more.")
    check_cluster(arguments)
    asked_passes(arguments)
    files = given_settings(arguments, FileSettings)
    inputs, output = given_inputs(arguments, files)
    if inputs.single:
        return _single(arguments, files, inputs.found[0].path, output)
    return _many(arguments, files, inputs, output)


def _single(arguments: argparse.Namespace, files: FileSettings, source: Path, output: Path | None) -> int:
    if arguments.ray is not None:
        _log.warning("One picture is worked on here, without Ray.")
    picture = opened(source)
    generation = _generation(arguments, picture.size)
    size, parameters = _final_size(generation, arguments), write_parameters(generation)
    output = single_output(source, output, size, parameters, files, overwrite=arguments.overwrite)
    upscaler = Upscaler(arguments, files)
    (outcome,) = upscaler.upscale([Job(source, output, generation, picture.size)], [picture])
    return int(not _shown(outcome).complete)


def _shown(outcome: Outcome) -> Outcome:
    if not outcome.error:
        sys.stdout.write(f"{outcome.output}\n")
    return outcome


def _generation(arguments: argparse.Namespace, size: tuple[int, int]) -> GenerationSettings:
    generation = replace(generation_settings(arguments, size), **tile_overrides(arguments))
    check_range(generation)
    return generation


def _final_size(generation: GenerationSettings, arguments: argparse.Namespace) -> tuple[int, int]:
    factor = factor_of(asked.row for asked in asked_passes(arguments))
    return generation.width * factor, generation.height * factor


def _asked(arguments: argparse.Namespace, generation: GenerationSettings, files: FileSettings) -> str:
    """Everything that determines a result, except the picture; the text that its mark is made from."""
    drawn = arguments.seed == -1
    asked = [write_parameters(replace(generation, seed=0) if drawn else generation), f"{drawn}", f"{files.quality}"]
    path = checked_source(arguments.model)
    if path is not None and path.is_file():  # another checkpoint under the same name
        asked.append(f"{path.stat().st_size}")
    asked.append(given_settings(arguments, ShapeSettings).resize_mode)
    passes = [(one.settings, model_name(one.row.source(arguments) or "")) for one in asked_passes(arguments)]
    asked += [f"{settings.with_model(model)}" for settings, model in passes]
    return "\n".join(asked)


def _many(arguments: argparse.Namespace, files: FileSettings, inputs: Inputs, output: Path | None) -> int:
    results = Results(inputs, files, "upscaled", output, overwrite=arguments.overwrite)

    def work(jobs: list[Job], tally: Tally) -> None:
        batches = _batches(jobs, arguments.batch_size)
        with _upscaling(arguments, files, len(batches)) as upscaled:
            _work(upscaled(batches), tally, len(jobs), quiet=arguments.quiet)

    return work_through(results, _Planner(arguments, files, results), work)


_Upscaled: TypeAlias = Callable[[Sequence[Sequence[Job]]], Iterator[Outcome]]


def _upscaling(arguments: argparse.Namespace, files: FileSettings, most: int) -> AbstractContextManager[_Upscaled]:
    """A function that upscales batches, with its models loaded: in this process, or in up to `most` of a cluster."""
    if arguments.ray is not None:
        return cluster(arguments, files, most)
    upscaler = Upscaler(arguments, files)
    return nullcontext(lambda batches: (outcome for batch in batches for outcome in upscaler(batch)))


def _work(outcomes: Iterable[Outcome], tally: Tally, jobs: int, *, quiet: bool) -> None:
    with tqdm(total=tally.total, initial=tally.total - jobs, desc="upscale", disable=quiet, unit="pic") as bar:
        for outcome in outcomes:
            _count(tally, outcome)
            bar.update()
            _shown(outcome)


def _count(tally: Tally, outcome: Outcome) -> None:
    if outcome.error:
        tally.failures[outcome.source] = outcome.error
    else:
        tally.done += 1
        tally.incomplete += not outcome.complete


def _batches(jobs: Sequence[Job], batch_size: int) -> list[list[Job]]:
    """Jobs that can run together: their pictures have the same size, and so have their results."""
    groups: dict[tuple[tuple[int, int], tuple[int, int]], list[Job]] = {}
    for job in jobs:
        groups.setdefault((job.size, job.generation.size), []).append(job)
    starts = ((group, start) for group in groups.values() for start in range(0, len(group), batch_size))
    return [group[start : start + batch_size] for group, start in starts]


@dataclass(frozen=True)
class _Plan:
    """What is done with pictures of one size."""

    generation: GenerationSettings
    asked: str
    """See `_asked`."""


@dataclass
class _Planner:
    """Makes the jobs of many pictures.

    Settings that are not allowed end the command before any work; a picture that is damaged or would become too large
    does not stop the others.
    """

    arguments: argparse.Namespace
    files: FileSettings
    results: Results
    plans: dict[tuple[int, int], _Plan | SizeError] = field(default_factory=dict)
    """By the size (width, height) of the picture."""

    def __call__(self, one: Found, tally: Tally) -> Job | None:
        """The job of a picture; None if it is finished or cannot be used, which is counted.

        Raises:
            InputError: settings that are not allowed.
        """
        source = one.path
        picture = tried(opened, source, tally.failures)  # in full: a damaged one may have a good header
        if picture is None:
            return None
        if picture.size not in self.plans:
            self.plans[picture.size] = self._plan(picture.size)
        plan = self.plans[picture.size]
        if isinstance(plan, SizeError):
            tally.failures[source] = f"{source}: {plan}"
            return None
        mark = mark_of(source, plan.asked)
        output = self.results.placed(one, _final_size(plan.generation, self.arguments), mark, tally)
        if output is None:
            return None
        seeded = replace(plan.generation, seed=drawn_seed(self.arguments.seed))  # of the picture's own, where drawn
        return Job(source, output, seeded, picture.size, mark)

    def _plan(self, size: tuple[int, int]) -> _Plan | SizeError:
        try:
            generation = _generation(self.arguments, size)
            check_format(format_of(self.files), _final_size(generation, self.arguments), write_parameters(generation))
        except SizeError as error:
            return error
        return _Plan(generation, _asked(self.arguments, generation, self.files))
