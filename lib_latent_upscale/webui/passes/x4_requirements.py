"""Whether the x4 upscaler can run in this WebUI: it needs diffusers, which Forge and reForge bring, v1.10.1 does not.

Where the host has none, `install.py` puts one package, without dependencies, into the extension's own folder, so that
nothing of the host's changes and removing the extension removes it. Only the standard library is imported here, and
nothing is loaded to find out: `install.py` asks at every start of the WebUI.
"""

from __future__ import annotations

import csv
import importlib.metadata
import importlib.util
import re
import sys
from pathlib import Path

__all__ = ["FAILURE", "PACKAGES", "VERSION", "host_has_diffusers", "is_installed", "make_importable", "missing"]

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ROOT / "packages"
"""The extension's own folder of packages; git ignores it."""
FAILURE = PACKAGES / "failure.txt"
"""Why the last attempt to install failed; it goes with the folder when one succeeds."""
VERSION = "0.31.0"
"""The newest diffusers that runs beside what WebUI v1.10.1 pins, and the oldest that the x4 upscaler works with."""

_FROM_THE_HOST = ("transformers", "tokenizers", "safetensors", "huggingface_hub")


def missing() -> str | None:
    """Why the x4 upscaler cannot run here and what to do about it, for the panel; None where it can.

    Takes milliseconds: packages are looked for, not imported.
    """
    lacking = [package for package in _FROM_THE_HOST if not _is_present(package)]
    if lacking:
        return f"The x4 upscaler needs the Python package {lacking[0]}, which this WebUI lacks."
    if host_has_diffusers():
        return _unfit()
    return None if is_installed() else _not_installed()


def make_importable() -> None:
    """Let diffusers be imported, from the extension's own folder where the host has none.

    To be called before a model of the x4 upscaler is loaded, not at start. The folder goes to the end of `sys.path`,
    behind everything of the host's.
    """
    if not host_has_diffusers() and is_installed():
        sys.path.append(str(PACKAGES))
        importlib.invalidate_caches()


def host_has_diffusers() -> bool:
    """Whether diffusers can be imported without our own copy, in whatever version."""
    return _is_present("diffusers")


def is_installed(folder: Path = PACKAGES) -> bool:
    """Whether our own copy is complete: an installation may have been interrupted, or files removed."""
    record = folder / f"diffusers-{VERSION}.dist-info" / "RECORD"
    try:
        rows = list(csv.reader(record.read_text("utf-8").splitlines()))
        sizes = {folder / name: int(size) for name, _, size in rows if name.startswith("diffusers/")}
        return bool(sizes) and all(path.stat().st_size == size for path, size in sizes.items())
    except (OSError, ValueError):
        return False


def _is_present(package: str) -> bool:
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:  # a module without a specification is in sys.modules
        return True
    return spec is not None and spec.origin is not None  # a mere folder of that name has no origin


def _unfit() -> str | None:
    """What to tell the user if the host's own diffusers is too old."""
    try:
        version = importlib.metadata.version("diffusers")
    except importlib.metadata.PackageNotFoundError:
        return None
    if _release(version) >= _release(VERSION):
        return None
    return (
        f"The x4 upscaler needs diffusers {VERSION} or newer; this WebUI has {version}, which is left alone, since "
        f'another extension may need it. If none does: "{sys.executable}" -m pip install --no-deps diffusers=={VERSION}'
    )


def _release(version: str) -> tuple[int, ...]:
    """Major and minor version."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def _not_installed() -> str:
    try:
        reason = f"which could not be installed ({FAILURE.read_text('utf-8').strip()})"
    except OSError:
        reason = "which is not installed yet"
    return (
        f"The x4 upscaler needs diffusers {VERSION}, {reason}. Connect to the internet and run: "
        f'"{sys.executable}" "{ROOT / "install.py"}" --now'
    )
