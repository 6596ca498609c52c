"""Tile ControlNets that fit the checkpoint, by the names in the menu."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_latent_upscale.checkpoints import (
    FAMILIES,
    PICKLES,
    SD1_WIDTH,
    SD2_WIDTH,
    SDXL_WIDTH,
    Shapes,
    is_controlnet,
    read_header,
    text_width,
)
from lib_latent_upscale.errors import ModelFileError
from lib_latent_upscale.options import AUTOMATIC, SettingsError, shortened
from lib_latent_upscale.tile_settings import TileSettings
from lib_latent_upscale.webui.host import controlnet
from lib_latent_upscale.webui.host import machine as host_machine

__all__ = ["TileModel", "choose_model", "offered_models", "where_to_put"]

_PREFERRED = "control_v11f1e_sd15_tile"

_OF_TRANSFORMERS = (".gguf",)
"""Suffixes of files with transformers, whose headers are not read here."""

_IN_NAMES = (("sd15", SD1_WIDTH), ("sd14", SD1_WIDTH), ("sd21", SD2_WIDTH), ("xl", SDXL_WIDTH))
"""Text widths by parts of names, for files without a header; from sd-webui-controlnet's `detect_from_model_name`."""


@dataclass(frozen=True)
class TileModel:
    """A tile ControlNet."""

    name: str
    """The file's name, in the menu and in infotexts."""
    key: str
    """ControlNet's name for it, with a hash."""
    width: int | None
    """Width of its text embeddings; None if the file does not say."""
    fault: str | None = None
    """Why it cannot be loaded; None if it can."""


@dataclass(frozen=True)
class _Checkpoint:
    name: str
    width: int | None
    other: bool = False
    """Whether it is not a U-Net, such as Flux's transformer, for which no tile model is known here."""

    @property
    def kind(self) -> str:
        return "no U-Net of Stable Diffusion" if self.other else _family(self.width)

    @property
    def advice(self) -> str:
        return "Choose another checkpoint, or switch tile ControlNet off" if self.other else where_to_put()

    def takes(self, model: TileModel) -> bool:
        fits = not self.other and (self.width is None or model.width in (None, self.width))
        return model.fault is None and fits


def offered_models(*, refresh: bool = False) -> list[str]:
    """Names of the tile models that fit the current checkpoint, the best first."""
    checkpoint = _checkpoint({})
    return [model.name for model in _tile_models(refresh=refresh) if checkpoint.takes(model)]


def choose_model(name: str, overrides: Mapping[str, Any]) -> TileModel:
    """The tile model with this name; the best that fits for "automatic".

    Args:
        name: of the file, with or without the hash that ControlNet puts behind it.
        overrides: the settings of this generation, which may name another checkpoint.

    Raises:
        SettingsError: there is none, or it does not fit or is damaged; lists the others, and says where to put one.
    """
    checkpoint = _checkpoint(overrides)
    models = _tile_models(refresh=False)
    wanted = _wanted(name, models, checkpoint)
    if not wanted:  # it may have been put there a minute ago
        models = _tile_models(refresh=True)
        wanted = _wanted(name, models, checkpoint)
    if not wanted:
        raise _not_found(name, models, checkpoint)
    found = wanted[0]
    if found.fault is not None:
        raise SettingsError(TileSettings, "{model} {0} cannot be loaded: {1}", found.name, found.fault)
    if not checkpoint.takes(found):
        raise SettingsError(
            TileSettings,
            "{model} {0} is made for {1}, but the checkpoint {2} is {3}. {4}",
            found.name,
            _family(found.width),
            checkpoint.name,
            checkpoint.kind,
            checkpoint.advice if checkpoint.other else f"A tile model of that family is needed. {checkpoint.advice}",
        )
    return found


def _wanted(name: str, models: Sequence[TileModel], checkpoint: _Checkpoint) -> list[TileModel]:
    """The models with this name, even if they do not fit; for "automatic", those that fit."""
    if name in ("", AUTOMATIC):
        return [model for model in models if checkpoint.takes(model)]
    return [model for model in models if name in (model.name, model.key)]


def _not_found(name: str, models: Sequence[TileModel], checkpoint: _Checkpoint) -> SettingsError:
    if name not in ("", AUTOMATIC):
        whole = [model.name for model in models if model.fault is None]
        there = f"choose one of: {', '.join(whole)}" if whole else "there is none yet"
        return SettingsError(TileSettings, "{model} is {0}; {1}. {2}", shortened(name), there, where_to_put())
    if not models:
        said = "tile ControlNet needs a tile model, and there is none yet. {0}"
        return SettingsError(TileSettings, said, where_to_put())
    known = ", ".join(f"{model.name} ({'damaged' if model.fault else _family(model.width)})" for model in models)
    said = "no tile model fits the checkpoint {0}, which is {1}; there are: {2}. {3}"
    return SettingsError(TileSettings, said, checkpoint.name, checkpoint.kind, known, checkpoint.advice)


def where_to_put() -> str:
    """A sentence that says which file is needed, and where to put it."""
    folder = host_machine.models_folder() / "ControlNet"
    return f"Put tile models, such as {_PREFERRED}.safetensors for {FAMILIES[SD1_WIDTH]}, into {folder}"


def _family(width: int | None) -> str:
    return FAMILIES.get(width or 0, f"another kind, text width {width}")


def _tile_models(*, refresh: bool) -> list[TileModel]:
    found = [_described(key, path) for key, path in controlnet.find_models(refresh=refresh).items() if _is_tile(key)]
    return sorted((model for model in found if model is not None), key=lambda model: model.name != _PREFERRED)


def _is_tile(key: str) -> bool:
    return "tile" in _plain(key).lower()


def _plain(key: str) -> str:
    """A name without the hash behind it."""
    return key.rsplit(" [", 1)[0]


def _described(key: str, path: Path) -> TileModel | None:
    """The model; None if the file is not a ControlNet."""
    name = _plain(key)
    if path.suffix.lower() in PICKLES:
        return TileModel(name, key, next((width for text, width in _IN_NAMES if text in name.lower()), None))
    try:
        shapes = read_header(path).shapes
    except (ModelFileError, OSError) as error:
        return TileModel(name, key, None, fault=str(error))
    return TileModel(name, key, text_width(shapes)) if is_controlnet(shapes) else None


def _checkpoint(overrides: Mapping[str, Any]) -> _Checkpoint:
    """The checkpoint that the generation will use; it need not be loaded yet."""
    chosen = host_machine.chosen_checkpoint(overrides)
    if chosen is None:
        return _Checkpoint("", None)
    name, path = chosen
    shapes = _shapes(path)
    width = text_width(shapes)
    other = path.suffix.lower() in _OF_TRANSFORMERS or (bool(shapes) and width is None)
    return _Checkpoint(name, width, other)


def _shapes(path: Path) -> Shapes:
    """Shapes of the tensors in a file; none if its header cannot be read, as for pickles."""
    try:
        return read_header(path).shapes
    except (ModelFileError, OSError):
        return {}
