"""Working through a folder of pictures: where results go, and what becomes of pictures that cannot be used."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from lib_latent_upscale.standalone.errors import InputError
from lib_latent_upscale.standalone.files.outputs import Outputs

__all__ = ["report_failures", "result_paths", "tried"]

Result = TypeVar("Result")


def result_paths(sources: list[Path], folder: Path, outputs: Outputs, failures: dict[Path, str]) -> dict[Path, Path]:
    """Where each picture goes; those that differ only in their suffix keep it.

    What cannot go anywhere, such as a name that is too long, is noted in `failures`.
    """
    stems = [source.stem for source in sources]
    paths = {}
    for source in sources:
        name = source.stem if stems.count(source.stem) == 1 else source.name
        try:
            paths[source] = outputs.free(folder / f"{name}.png", folder_comes=True)
        except InputError as error:
            failures[source] = str(error)
    return paths


def tried(function: Callable[[Path], Result], source: Path, failures: dict[Path, str]) -> Result | None:
    """What `function` makes of one picture; None where it cannot be used, which is noted in `failures`."""
    try:
        return function(source)
    except InputError as error:
        failures[source] = str(error)
        return None


def report_failures(failures: dict[Path, str], total: int) -> int:
    """Say on stderr which pictures could not be used; returns the exit code."""
    if not failures:
        return 0
    sys.stderr.write(f"{len(failures)} of {total} pictures could not be used:\n")
    for message in failures.values():
        sys.stderr.write(f"  {message}\n")
    return 1
