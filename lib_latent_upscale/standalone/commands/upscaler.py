"""Runs the models of `upscale` on pictures, in this process or in a worker of a cluster."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from PIL import Image

from lib_latent_upscale.errors import GenerationError, InputError
from lib_latent_upscale.memory import is_out_of_memory
from lib_latent_upscale.standalone.commands.common import checked_models, load_engine, progress_bar
from lib_latent_upscale.standalone.commands.flags import OUT_OF_MEMORY, given_settings
from lib_latent_upscale.standalone.commands.passes import load_passes
from lib_latent_upscale.standalone.engine.generation import GenerationSettings
from lib_latent_upscale.standalone.engine.infotext import add_labels
from lib_latent_upscale.standalone.files.folders import not_written, tried
from lib_latent_upscale.standalone.files.formats import encoded
from lib_latent_upscale.standalone.files.images import Picture, load_picture
from lib_latent_upscale.standalone.files.marks import MARK
from lib_latent_upscale.standalone.files.settings import FileSettings, ShapeSettings
from lib_latent_upscale.standalone.files.shapes import shaped
from lib_latent_upscale.writing import write_whole

__all__ = ["Job", "Outcome", "Upscaler", "read"]


@dataclass(frozen=True)
class Job:
    """One picture to upscale."""

    source: Path
    output: Path
    generation: GenerationSettings
    size: tuple[int, int]
    """(width, height) of the picture."""
    mark: str = ""
    """Identifies picture and settings; written into the results of many pictures. Empty for a single one."""


@dataclass(frozen=True)
class Outcome:
    """The result of a job."""

    source: Path
    output: Path
    error: str = ""
    """Why there is no picture; empty if there is one."""
    complete: bool = True
    """Whether all requested passes ran."""


def read(jobs: Sequence[Job]) -> tuple[list[Job], list[Picture], list[Outcome]]:
    """The jobs whose pictures can be read, those pictures, and the outcomes of the other jobs."""
    failures: dict[Path, str] = {}
    found = {job.source: tried(load_picture, job.source, failures) for job in jobs}
    good = [job for job in jobs if job.source not in failures]
    bad = [Outcome(job.source, job.output, failures[job.source]) for job in jobs if job.source in failures]
    return good, [picture for picture in found.values() if picture is not None], bad


class Upscaler:
    """Upscales pictures with models that are loaded once.

    Args:
        arguments: the command's arguments.
        files: settings of the files that are written.
        write: called with the path and the content of each result's file; returns where it is. Default: `write_whole`.

    Raises:
        InputError: a value that is not allowed, or a model cannot be used.
        GenerationError: a model does not fit into memory.
    """

    def __init__(
        self, arguments: argparse.Namespace, files: FileSettings, write: Callable[[Path, bytes], Path] | None = None
    ) -> None:
        self.quiet: bool = arguments.quiet
        self.files = files
        self.write = write or partial(write_whole, overwrite=arguments.overwrite)
        self.shape = given_settings(arguments, ShapeSettings)
        checked_models(arguments)
        self.passes = load_passes(arguments)
        self.engine = load_engine(arguments)

    def __call__(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Upscale pictures of one size; one that cannot be read does not stop the others."""
        good, pictures, bad = read(jobs)
        return [*bad, *(self.attempt(good, pictures) if good else ())]

    def attempt(self, jobs: Sequence[Job], pictures: Sequence[Picture]) -> list[Outcome]:
        """Upscale pictures of one size; an error becomes their outcome."""
        try:
            return self.upscale(jobs, pictures)
        except (InputError, GenerationError) as error:
            problem = str(error)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            problem = OUT_OF_MEMORY
        except OSError as error:
            problem = not_written(error)
        return [Outcome(job.source, job.output, f"{job.source}: {problem}") for job in jobs]

    def upscale(self, jobs: Sequence[Job], pictures: Sequence[Picture]) -> list[Outcome]:
        """Upscale pictures of one size and write the results.

        Raises:
            InputError, GenerationError: the pictures cannot be upscaled.
            KeyboardInterrupt: the user has stopped a pass; the pictures before it are written.
        """
        shapes = [shaped(picture, jobs[0].generation.size, self.shape.resize_mode) for picture in pictures]
        named = ", ".join(job.output.name for job in jobs)
        generation, seeds = jobs[0].generation, [job.generation.seed for job in jobs]
        with progress_bar(named, quiet=self.quiet, leave=len(jobs) == 1) as progress:
            done = self.engine.upscale([picture.rgb for picture in shapes], generation, progress, seeds=seeds)
        ran = [replace(job, generation=done.made_with(job.generation)) for job in jobs]
        outcomes = [self._finish(*one) for one in zip(ran, shapes, done.pictures, strict=True)]
        if self.passes.interrupted:
            raise KeyboardInterrupt
        return outcomes

    def _finish(self, job: Job, picture: Picture, result: Image.Image) -> Outcome:
        """Run the passes and write the result; if a pass is missing, it has no mark, so that it is made again."""
        result, made_with = self.passes(result, job.generation, job.output, self.engine)
        complete = len(made_with.passes) == len(self.passes)
        labels = {**self.shape.to_infotext(), **({MARK: job.mark} if complete and job.mark else {})}
        parameters = add_labels(self.engine.parameters(made_with), labels)
        output = self.write(job.output, encoded(result, job.output, parameters, picture, self.files.quality))
        return Outcome(job.source, output, complete=complete)
