"""Finding the pictures of a command line: files, folders and patterns such as *.jpg."""

from __future__ import annotations

import glob
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lib_latent_upscale.errors import InputError

__all__ = ["PICTURE_SUFFIXES", "Found", "Inputs", "find_inputs", "find_pictures", "is_folder_name"]

_log = logging.getLogger(__name__)

PICTURE_SUFFIXES = frozenset(
    {
        *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".tga", ".qoi", ".pcx", ".dds", ".ico"),
    }
)
"""Suffixes of pictures in folders; a file that is named itself may have any."""

_MOST_KINDS = 5
"""The most suffixes of other files that a message lists."""


@dataclass(frozen=True)
class Found:
    """A picture to work on."""

    path: Path
    folder: Path | None = None
    """The given folder that contains it, at any depth; None if the picture itself was given."""

    @property
    def below(self) -> Path:
        """Path of its own folder, relative to that one."""
        return Path() if self.folder is None else self.path.parent.relative_to(self.folder)


@dataclass
class Inputs:
    """The inputs of a command line."""

    found: list[Found] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    single: bool = False
    """Whether the only input is a file, so that one file is written."""

    @property
    def paths(self) -> list[Path]:
        """All pictures."""
        return [one.path for one in self.found]


def is_folder_name(text: str) -> bool:
    """Whether a name ends with a separator, as only that of a folder does."""
    return text.endswith(tuple(filter(None, (os.sep, os.altsep, "/"))))


def find_inputs(names: Sequence[str], *, recursive: bool = False, skipped: Iterable[Path] = ()) -> Inputs:
    """The pictures of a command line, each once.

    Args:
        names: files, folders, and patterns that the shell has not expanded.
        recursive: include the pictures of subfolders.
        skipped: folders to leave out, such as that of the results.

    Raises:
        InputError: a name is empty, a pattern matches nothing, or there are no pictures.
    """
    expanded = [path for name in names for path in _expanded(name)]
    if len(names) == 1 and expanded == [Path(names[0])] and not expanded[0].is_dir():
        return Inputs([Found(expanded[0])], single=True)
    inputs, seen = Inputs(), set()
    for path in expanded:
        if path.is_dir():
            if _real(path) in seen:  # again, or through a link that goes round in a circle
                continue
            seen.add(_real(path))
            inputs.folders.append(path)
        for one in _pictures_of(path, recursive, set(map(_real, skipped)), alone=len(expanded) == 1):
            if _real(one.path) not in seen:
                seen.add(_real(one.path))
                inputs.found.append(one)
    if not inputs.found:
        raise InputError(f"No pictures in {', '.join(map(str, inputs.folders))}.")
    return inputs


def _real(path: Path) -> str:
    return os.path.realpath(path)


def _expanded(name: str) -> list[Path]:
    if not name:
        raise InputError("The name of an input is empty: give a picture, or a folder of pictures.")
    path = Path(name)
    if not glob.has_magic(name) or os.path.lexists(path):
        return [path]
    matches = sorted(glob.glob(name, recursive=True))  # noqa: PTH207  # Path.glob takes no absolute patterns
    if not matches:
        raise InputError(f"{name}: no file matches this name.")
    return [Path(match) for match in matches]


def _pictures_of(path: Path, recursive: bool, skipped: set[str], *, alone: bool) -> list[Found]:
    if not path.is_dir():
        return [Found(path)]
    try:
        return [Found(one, path) for one in find_pictures(path, recursive=recursive, skipped=skipped)]
    except InputError as error:
        if alone:
            raise
        _log.warning("%s", error)
        return []


def find_pictures(folder: Path, *, recursive: bool = False, skipped: Iterable[str] = ()) -> list[Path]:
    """The pictures of a folder, sorted by name; a line is logged about other files.

    Hidden files are ignored: some systems write them next to pictures, and interrupted runs leave them.

    Raises:
        InputError: there are none.
    """
    left: Counter[str] = Counter()
    pictures = list(_walk(folder, recursive, {*skipped}, left))
    told = _told(left)
    if not pictures:
        further = f"; there are {told}" if told else ""
        raise InputError(f"{folder}: no pictures in this folder{further}.")
    if told:
        _log.info("%s: left out: %s.", folder, told)
    return pictures


_NO_FILE = "broken links and the like"
_SUBFOLDER = "/"
"""The key for subfolders in counts by suffix."""


def _walk(folder: Path, recursive: bool, seen: set[str], left: Counter[str]) -> Iterator[Path]:
    """Pictures of a folder, then of its subfolders; `seen` stops links in a loop."""
    seen.add(_real(folder))
    visible = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    folders = [path for path in visible if path.is_dir() and _real(path) not in seen]
    for path in visible:
        if path.is_file() and path.suffix.lower() in PICTURE_SUFFIXES:
            yield path
        elif not path.is_dir():
            left[path.suffix.lower() if path.is_file() else _NO_FILE] += 1
    if not recursive:
        left[_SUBFOLDER] += len(folders)
        return
    for path in folders:
        yield from _walk(path, recursive, seen, left)


def _told(left: Counter[str]) -> str:
    """What was left out, in words; empty if nothing was."""
    folders = left[_SUBFOLDER]
    kinds = sorted(kind for kind in left if kind != _SUBFOLDER)
    others = sum(left[kind] for kind in kinds)
    named = ", ".join([kind or "no suffix" for kind in kinds[:_MOST_KINDS]] + ["..."] * (len(kinds) > _MOST_KINDS))
    parts = {
        f"{_count(folders, 'subfolder')} (--recursive includes them)": folders,
        f"{_count(others, 'file')} of other kinds ({named})": others,
    }
    return " and ".join(text for text, there in parts.items() if there)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
