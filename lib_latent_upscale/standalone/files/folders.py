"""Working through many pictures: where results are written, which are already finished, and which cannot be used."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

from lib_latent_upscale.errors import InputError, LatentUpscaleError, printable
from lib_latent_upscale.standalone.files.formats import format_of
from lib_latent_upscale.standalone.files.inputs import Found, Inputs
from lib_latent_upscale.standalone.files.marks import is_marked
from lib_latent_upscale.standalone.files.outputs import Outputs, check_output_folder, sized_name
from lib_latent_upscale.standalone.files.settings import FileSettings

__all__ = ["Results", "Tally", "not_written", "results_folder", "tried", "work_through"]

Result = TypeVar("Result")
Job = TypeVar("Job")


def results_folder(folder: Path, ending: str) -> Path:
    """The folder for the results of `folder` if the user named none: next to it, with `-ending` after its name.

    Raises:
        InputError: `folder` is the root, which has nothing next to it.
    """
    if folder.name in ("", ".."):
        folder = Path(os.path.abspath(folder))  # noqa: PTH100  # resolve() would follow links
    if not folder.name:
        raise InputError(f"{folder}: no folder can be made next to this one; name a folder for the results with -o.")
    return folder.with_name(f"{folder.name}-{ending}")


@dataclass(frozen=True)
class Results:
    """Where the results of many pictures are written."""

    inputs: Inputs
    files: FileSettings
    ending: str
    """For `results_folder`, if the user named no folder."""
    folder: Path | None = None
    """The folder that the user named."""
    overwrite: bool = False
    """Whether existing files may be replaced."""

    @cached_property
    def outputs(self) -> Outputs:
        """The paths of all results."""
        return Outputs(self.inputs.paths, self.overwrite)

    def check(self) -> None:
        """Check that results can be written into their folders.

        Raises:
            InputError: they cannot.
        """
        for source in self.inputs.folders:
            check_output_folder(self._home(source), source)
        for folder in filter(None, (self.folder, *map(self._folder, self.inputs.found))):
            check_output_folder(folder)

    def place(self, one: Found, size: tuple[int, int], mark: str) -> tuple[Path, bool]:
        """The path of a picture's result of `size` (width, height), and whether it is finished, with this mark.

        Raises:
            InputError: it cannot be written, for example because its name is too long.
        """
        finished = partial(is_marked, mark=mark) if self.files.skip_finished else lambda _: False
        return self.outputs.continued(self._folder(one) / self._name(one, size), finished)

    def placed(self, one: Found, size: tuple[int, int], mark: str, tally: Tally) -> Path | None:
        """The path of a picture's result; None if it is finished or cannot be written, which is counted."""
        found = tried(lambda _: self.place(one, size, mark), one.path, tally.failures)
        if found is None:
            return None
        output, finished = found
        tally.skipped += finished
        return None if finished else output

    def _home(self, source: Path) -> Path:
        """The folder for the results of an input folder; several become subfolders of the one that the user named."""
        if self.folder is None:
            return results_folder(source, self.ending)
        alone = len(self.inputs.folders) == 1 and all(one.folder is not None for one in self.inputs.found)
        return self.folder if alone else self.folder / Path(os.path.abspath(source)).name  # noqa: PTH100

    def _folder(self, one: Found) -> Path:
        if one.folder is None:
            return one.path.parent if self.folder is None else self.folder
        return self._home(one.folder) / one.below

    def _name(self, one: Found, size: tuple[int, int]) -> str:
        """The picture's name in a folder of results; next to the picture itself, its name and the size."""
        suffix = format_of(self.files).suffixes[0]
        if one.folder is None and self.folder is None:
            return sized_name(one.path, size, suffix)
        unique = len(self._names[self._folder(one), one.path.stem]) == 1
        return f"{one.path.stem if unique else one.path.name}{suffix}"

    @cached_property
    def _names(self) -> dict[tuple[Path, str], set[str]]:
        """By folder and stem; those that differ only in their suffix keep it."""
        names: dict[tuple[Path, str], set[str]] = {}
        for one in self.inputs.found:
            names.setdefault((self._folder(one), one.path.stem), set()).add(one.path.name)
        return names


def tried(function: Callable[[Path], Result], source: Path, failures: dict[Path, str]) -> Result | None:
    """The result of `function` for one picture; None if the picture cannot be used, which is noted in `failures`."""
    try:
        return function(source)
    except LatentUpscaleError as error:
        failures[source] = str(error)
    except OSError as error:  # deleted meanwhile, or not readable
        if error.errno in _OF_THE_DISK:
            raise
        failures[source] = f"{source}: {error}"
    return None


def not_written(error: OSError) -> str:
    """What to say of one result that cannot be written.

    Raises:
        OSError: the same, if it concerns more than this result's name.
    """
    if error.errno not in _OF_ONE_NAME:
        raise error
    return f"the result cannot be written: {error}"


_OF_ONE_NAME = frozenset({errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR})
"""Errors of a name that the file system does not take, such as one with a colon on a memory card."""
_OF_THE_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG})
"""Errors that the next pictures would meet, too."""


@dataclass
class Tally:
    """Counts what happened to many pictures."""

    total: int
    done: int = 0
    skipped: int = 0
    """Already finished before this run."""
    failures: dict[Path, str] = field(default_factory=dict)
    """Why a picture could not be used, by its path."""
    incomplete: int = 0
    """Number of those done that lack a pass."""

    def report(self) -> int:
        """Write a summary to stderr; returns the exit code."""
        failed = len(self.failures)
        left = self.total - self.done - self.skipped - failed
        kinds = {"done": self.done, "skipped (finished before)": self.skipped, "failed": failed, "not begun": left}
        told = ", ".join(f"{number} {kind}" for kind, number in kinds.items() if number)
        pictures = "1 picture" if self.total == 1 else f"{self.total} pictures"
        sys.stderr.write(f"{pictures}: {told}.\n")
        if failed:
            sys.stderr.write(f"{failed} of {pictures} could not be used:\n")
        for message in self.failures.values():
            sys.stderr.write(f"  {printable(message)}\n")
        return int(bool(self.failures or self.incomplete))


def work_through(
    results: Results, planned: Callable[[Found, Tally], Job | None], work: Callable[[list[Job], Tally], None]
) -> int:
    """Plan a job for each of many pictures, run the jobs, and report to the user.

    Args:
        results: where the results are written.
        planned: returns the job of a picture; None if there is nothing to do, which it counts in the tally.
        work: runs the jobs, and counts them in the tally.

    Returns:
        The exit code.

    Raises:
        InputError: results cannot be written; no job has run then.
        KeyboardInterrupt: the user stopped the work; the summary is written.
    """
    results.check()
    tally = Tally(len(results.inputs.found))
    jobs = [job for one in results.inputs.found if (job := planned(one, tally)) is not None]
    if jobs:
        try:
            work(jobs, tally)
        except (KeyboardInterrupt, SystemExit, OSError):
            tally.report()
            raise
    return tally.report()
