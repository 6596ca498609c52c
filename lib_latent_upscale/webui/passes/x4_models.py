"""The x4 upscalers of this WebUI, by the names in the menu."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lib_latent_upscale.checkpoints import PICKLES, read_header
from lib_latent_upscale.options import SettingsError, shortened
from lib_latent_upscale.webui.host import machine as host_machine
from lib_latent_upscale.webui.host.options import X4_FOLDER, option_name
from lib_latent_upscale.webui.host.processing import option
from lib_latent_upscale.x4_settings import X4Settings

__all__ = ["choose_model", "find_models", "own_folder"]


def own_folder() -> Path:
    """The folder for x4 upscalers among the host's models."""
    return host_machine.models_folder() / "x4-upscaler"


def find_models() -> Mapping[str, Path]:
    """Safetensors files and Hugging Face folders by name, in the own folder and in that of a setting.

    If two have the same name, that of the second includes its folder.
    """
    found: dict[str, Path] = {}
    for place in host_machine.searched_folders(own_folder(), option(option_name(X4_FOLDER))):
        for path in _models_in(place):
            name = path.name if path.is_dir() else path.stem
            found[f"{place.name}/{path.name}" if name in found else name] = path
    return found


def _models_in(place: Path) -> list[Path]:
    if place.is_file() or _is_model(place):
        return [place]
    return sorted(path for path in place.iterdir() if _is_model(path)) if place.is_dir() else []


def _is_model(path: Path) -> bool:
    """Whether a path looks like a model; it is checked when it is chosen."""
    if path.is_dir():
        return (path / "model_index.json").is_file() or (path / "unet").is_dir()
    return path.suffix.lower() == ".safetensors"


def choose_model(name: str) -> tuple[str, Path]:
    """(name, path) of the model with this name; for an empty name, the only one.

    Raises:
        SettingsError: there is none of this name, or several for no name; lists them or says where to put one.
        ModelFileError: there are only pickles.
    """
    found = find_models()
    if not name and len(found) == 1:
        (only,) = found.items()
        return only
    if name in found:
        return name, found[name]
    said = f"is {shortened(name)}" if name else "is needed"
    if found:
        raise SettingsError(X4Settings, "{model} {0}; choose one of: {1}", said, ", ".join(found))
    for path in _pickles():
        read_header(path)  # says what a pickle is
    raise SettingsError(
        X4Settings,
        "{model} {0}, but there is no x4 upscaler yet: put x4-upscaler-ema.safetensors, or the folder of "
        "stabilityai/stable-diffusion-x4-upscaler, into {1}",
        said,
        own_folder(),
    )


def _pickles() -> list[Path]:
    return [path for path in sorted(own_folder().glob("*")) if path.suffix.lower() in PICKLES]
