"""Paths of results: every path that a command will write is known and checked before any work.

Existing files are replaced only on request, and input pictures never, not even through symbolic links. If a name that
the user gave is taken, that is an error; a name of ours gets the next free number, as in the WebUI.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path

from lib_latent_upscale.errors import InputError
from lib_latent_upscale.writing import numbered

__all__ = ["Outputs", "check_output_folder", "sized_name"]

_LONGEST_NAME = 255
"""The most bytes of a file's name on common file systems."""


def sized_name(source: Path, size: tuple[int, int], suffix: str) -> str:
    """The name of a result of `size` (width, height) that is written next to its picture: `name-1024x768.png`."""
    return f"{source.stem}-{size[0]}x{size[1]}{suffix}"


def check_output_folder(folder: Path, source: Path | None = None) -> None:
    """Check that the results of the folder `source` can be written into `folder`, which need not exist yet.

    Raises:
        InputError: they cannot.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: this is a file; for several pictures give a folder to write to.")
    if source is not None and folder.exists() and folder.resolve() == source.resolve():
        raise InputError(f"{folder}: the results would be among the originals; give another folder.")
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    _check_writable(there, folder)


def _check_writable(folder: Path, path: Path) -> None:
    if not folder.is_dir():
        raise InputError(f"{path}: the folder {folder} does not exist.")
    if not os.access(folder, os.W_OK):
        raise InputError(f"{path}: the folder {folder} is not writable.")


@dataclass
class Outputs:
    """The paths of one command's results."""

    inputs: Collection[Path]
    """The files that the command reads, which are never replaced."""
    overwrite: bool = False
    """Whether existing files may be replaced."""
    _taken: set[str] = field(default_factory=set)

    def named(self, path: Path, suffixes: Iterable[str] = (".png",)) -> Path:
        """Check and reserve a path that the user gave; its suffix must be one of `suffixes`.

        Raises:
            InputError: it cannot be written, or an existing file would be replaced.
        """
        problem = self._problem(path, tuple(suffixes))
        if problem:
            raise InputError(f"{path}: {problem}")
        return self._take(path)

    def free(self, path: Path) -> Path:
        """Reserve a path of our own; if it is taken, the next free name: `name-1.png`, `name-2.png` and so on.

        Raises:
            InputError: the folder cannot be written to, or the name is too long.
        """
        _check_writable(path.parent, path)
        return self.continued(path, lambda _: False)[0]

    def continued(self, path: Path, finished: Callable[[Path], bool]) -> tuple[Path, bool]:
        """As `free`, in a folder that need not exist yet; or the first of these names that is `finished`.

        Returns:
            The path, and whether the file there is finished.

        Raises:
            InputError: the name is too long.
        """
        for one in (numbered(path, number) for number in count()):
            if len(os.fsencode(one.name)) > _LONGEST_NAME:
                raise InputError(
                    f"{one}: the name of the result is longer than {_LONGEST_NAME} bytes; rename the picture."
                )
            if _key(one) not in self._taken and one.is_file() and finished(one):
                return self._take(one), True
            if not self._is_taken(one):
                return self._take(one), False
        raise AssertionError  # count() does not end

    def together(self, wanted: Iterable[Path]) -> list[Path]:
        """Reserve paths of our own that belong together: if one is taken, all get the same number.

        Raises:
            InputError: the folder cannot be written to.
        """
        paths = list(wanted)
        for number in count():
            tries = [numbered(one, number) for one in paths]
            if not any(self._is_taken(one) for one in tries):
                _check_writable(paths[0].parent, paths[0])
                return [self._take(one) for one in tries]
        raise AssertionError  # count() does not end

    def _problem(self, path: Path, suffixes: tuple[str, ...]) -> str:
        problems = {
            "this is a folder; give the name of a file to write.": path.is_dir(),
            f"the name must end in {' or '.join(suffixes)}.": path.suffix.lower() not in suffixes,
            f"the name is longer than {_LONGEST_NAME} bytes.": len(os.fsencode(path.name)) > _LONGEST_NAME,
            "the result would replace the original; give another name.": _key(path) in self._originals,
            "two results would have this name; give another one.": _key(path) in self._taken,
        }
        problem = next((said for said, holds in problems.items() if holds), "")
        if problem:
            return problem
        _check_writable(path.parent, path)
        exists = os.path.lexists(path) and not self.overwrite
        return "this exists already; give another name, or --overwrite to replace it." if exists else ""

    def _is_taken(self, path: Path) -> bool:
        if _key(path) in self._taken or _key(path) in self._originals:
            return True
        with suppress(OSError):  # the name is too long, which is reported later
            return path.is_dir() or (os.path.lexists(path) and not self.overwrite)
        return False

    @cached_property
    def _originals(self) -> set[str]:
        return {_key(path) for path in self.inputs}

    def _take(self, path: Path) -> Path:
        self._taken.add(_key(path))
        return path


def _key(path: Path) -> str:
    """Equal for all names of one file, also on file systems that do not distinguish upper and lower case."""
    try:
        return str(path.resolve()).casefold()
    except OSError:  # a name that is too long
        return str(path.absolute()).casefold()
