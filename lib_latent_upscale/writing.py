"""Writing files whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

__all__ = ["numbered", "write_whole"]

TEMPORARY = ".latent-upscale-"
"""Start of the names of unfinished files, which are hidden, and of the same length for every file."""


def write_whole(path: Path, content: bytes, *, overwrite: bool = False) -> Path:
    """Write a file whole or not at all; its folder is created if necessary.

    Returns:
        Where the file is: `path`, or without `overwrite` the next free name if something is there by now, such as the
        result of another run.

    Raises:
        OSError: it cannot be written; names `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _part_of(path) as part:
        part.write_bytes(content)
        with suppress(PermissionError):  # some file systems have no permissions
            part.chmod(0o666 & ~_umask())  # mkstemp makes the file private
        if overwrite:
            return part.replace(path)
        return next(one for one in (numbered(path, number) for number in count()) if _named(part, one))


def numbered(path: Path, number: int) -> Path:
    """`name-1.png` for `name.png` and 1; for 0 the path itself."""
    return path.with_name(f"{path.stem}-{number}{path.suffix}") if number else path


@contextmanager
def _part_of(path: Path) -> Iterator[Path]:
    try:
        handle, name = tempfile.mkstemp(prefix=TEMPORARY, suffix=path.suffix, dir=path.parent)
        os.close(handle)
        try:
            yield Path(name)
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def _named(part: Path, path: Path) -> bool:
    """Give a finished file the name `path`; False if that is taken."""
    try:
        path.hardlink_to(part)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links: an empty file takes the name first
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            return False
        part.replace(path)
    return True


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
