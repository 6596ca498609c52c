"""Working through a folder of pictures: where results go, and what becomes of pictures that cannot be used."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from lib_latent_upscale.standalone.errors import InputError

__all__ = ["report_failures", "result_paths", "tried"]

Result = TypeVar("Result")


def result_paths(sources: list[Path], folder: Path) -> dict[Path, Path]:
    """Where each picture goes; those that differ only in their suffix keep it."""
    stems = [source.stem for source in sources]
    return {
        source: folder / f"{source.stem if stems.count(source.stem) == 1 else source.name}.png" for source in sources
    }


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
