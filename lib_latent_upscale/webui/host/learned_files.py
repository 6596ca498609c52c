"""The user's own latent upscalers in this WebUI: the files of a folder, as methods in the menus.

Only names are read until one is chosen; errors in a file are reported then.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeGuard

from lib_latent_upscale.learned.files import file_hash, find_files
from lib_latent_upscale.method_files import FILES, file_of, method_of_file
from lib_latent_upscale.methods import other_weights
from lib_latent_upscale.options import Allowed, Chosen, SettingsError, shortened
from lib_latent_upscale.settings import UpscaleSettings
from lib_latent_upscale.webui.host import machine as host_machine
from lib_latent_upscale.webui.host.processing import option

__all__ = ["FOLDER", "choices", "file_for", "found_again", "methods", "others", "own_folder", "takes_files"]

FOLDER = "latent_upscale_learned_folder"
"""Name of the host's option for a further folder."""


def own_folder() -> Path:
    """The folder for latent upscalers among the host's models."""
    return host_machine.models_folder() / "latent-upscaler"


def _files() -> Mapping[str, Path]:
    """The files by their names without the suffix; of two with one name, that of the own folder."""
    return find_files(host_machine.searched_folders(own_folder(), option(FOLDER)))


def methods() -> list[str]:
    """The methods of the files, sorted by name; the folders are searched each time."""
    return [method_of_file(name) for name in _files() if FILES.holds(method_of_file(name))]


def takes_files(allowed: Allowed) -> TypeGuard[Chosen]:
    """Whether methods of files are allowed."""
    return isinstance(allowed, Chosen) and FILES in allowed.choices


def choices(allowed: Chosen) -> list[str]:
    """All allowed names, with the files of this WebUI if they are allowed."""
    return [*allowed.names, *(methods() if takes_files(allowed) else [])]


def file_for(method: str) -> Path | None:
    """The file that a method uses; None for methods that use none.

    Raises:
        SettingsError: there is no such file; lists the existing ones and says where to put one.
    """
    name = file_of(method)
    if not name:
        return None
    found = _files()
    if name in found:
        return found[name]
    there = f"there are: {', '.join(found)}" if found else "there is none yet"
    raise SettingsError(
        UpscaleSettings,
        "{method} is {0}, and there is no file of that name; {1}. Put it into {2}, or choose another method",
        shortened(method),
        there,
        own_folder(),
    )


def found_again(method: str, weights: str) -> str:
    """The method of an infotext, with the name that the file with the same weights has here, if there is one.

    Args:
        method: as in the infotext.
        weights: the hash of its weights in the infotext.
    """
    name = file_of(method)
    if not name or not weights:
        return method
    first = sorted(_files().items(), key=lambda item: item[0] != name)  # most likely it has the same name
    return next((method_of_file(each) for each, path in first if _hash(path) == weights), method)


def others(method: str, weights: str) -> list[str]:
    """A sentence if a method's weights here are not those of an infotext; arguments as for `found_again`."""
    name = file_of(method)
    file = _files().get(name) if name else None
    if name and (file is None or not _hash(file)):  # reported when it is used
        return []
    return other_weights(weights, method, file)


def _hash(path: Path) -> str:
    try:
        return file_hash(path)
    except (ValueError, OSError):  # deleted, or not readable
        return ""
