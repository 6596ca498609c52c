"""Finding, checking and loading a tile ControlNet: that of the demo model, a file, a diffusers folder or a hub id."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lib_latent_upscale.checkpoints import FAMILIES, is_controlnet, is_hub_id, text_width
from lib_latent_upscale.errors import InputError, ModelFileError, first_line
from lib_latent_upscale.standalone.engine.models import (
    DEMO,
    DEMO_FILE,
    LatentModel,
    check_weights,
    header_shapes,
    hub_answers,
    model_name,
)

__all__ = ["DEMO_TILE", "TileModel", "checked_tile", "load_tile"]

DEMO_TILE = DEMO_FILE.parents[1] / "demo-tile-controlnet"
"""The folder of the tile ControlNet that belongs to the demo model."""

_WEIGHTS: Mapping[str, str | None] = {
    "diffusion_pytorch_model.safetensors": None,
    "diffusion_pytorch_model.fp16.safetensors": "fp16",
}
"""Weights files in a diffusers folder, and diffusers' names of the variants."""

_PREFIX = "control_model."
"""Prefix of the tensors' names in a ControlNet that was extracted from a whole checkpoint."""
_INPUTS = ("conv_in.weight", "input_blocks.0.0.weight")
"""The convolution that takes the latent, as diffusers and as the original code name it."""
_PICTURE_LAYERS = re.compile(r"(?:controlnet_cond_embedding\.\w+(?:\.\d+)?|input_hint_block\.\d+)\.weight")


@dataclass(frozen=True, eq=False)
class TileModel:
    """A loaded tile ControlNet, checked to fit the model that it was loaded for."""

    name: str
    network: Any
    """diffusers' ControlNetModel."""


@dataclass(frozen=True)
class _Shape:
    """Shape of a network's inputs."""

    channels: int
    """Channels of the latent."""
    width: int
    """Width of the text embeddings."""

    @classmethod
    def of(cls, config: Any) -> _Shape:
        width = config.cross_attention_dim
        return cls(config.in_channels, width if isinstance(width, int) else width[0])


def checked_tile(source: str) -> Path | None:
    """The file or folder of a tile ControlNet; None for a hub id. Only its header is read.

    Raises:
        InputError: it is missing, damaged, a pickle (which could run code), or not a ControlNet.
    """
    path = _found(source)
    if path is not None:
        _header(path)
    return path


def _found(source: str) -> Path | None:
    path = DEMO_TILE if source == DEMO else Path(source)
    if path.exists():
        return path
    if is_hub_id(source):
        return None
    raise InputError(
        f"Tile ControlNet {source!r} does not exist: give 'demo' (for the demo model), a .safetensors file, "
        "a diffusers folder or a hub id."
    )


def load_tile(source: str, model: LatentModel) -> TileModel:
    """Load a tile ControlNet for `model`, on its device and in its UNet's dtype.

    Raises:
        InputError: as for `checked_tile`; or the two are of different families.
    """
    path = _found(source)
    if path is None:
        network = _from_pretrained(source, **({} if hub_answers() else {"local_files_only": True}))
    else:
        _check_fit(source, _header(path), model)
        network = _from_folder(path) if path.is_dir() else _from_file(path, model)
    _check_fit(source, _Shape.of(network.config), model)
    _check_blocks(source, network, model)
    check_weights(source, network)
    network.to(model.device, model.unet.dtype).eval().requires_grad_(False)
    return TileModel(model_name(source), network)


def _weights(folder: Path) -> Path:
    """The weights file in a diffusers folder.

    Raises:
        InputError: it is not the folder of a ControlNet.
    """
    config = folder / "config.json"
    if not config.is_file():
        whole = "a whole diffusers model" if (folder / "model_index.json").is_file() else "no diffusers model"
        raise InputError(f"{folder}: {whole}, not a ControlNet: config.json is missing in this folder.")
    try:
        kind = json.loads(config.read_text(encoding="utf-8")).get("_class_name")
    except (ValueError, AttributeError) as error:
        raise InputError(f"{config}: cannot be read ({first_line(error)}).") from error
    if kind != "ControlNetModel":
        raise InputError(f"{folder}: not a ControlNet but a {kind}; give the folder of a ControlNetModel.")
    found = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if found is None:
        raise InputError(
            f"{folder}: {next(iter(_WEIGHTS))} is missing in this folder; weights in pickles (.bin), which can run "
            "code when they are opened, are not read."
        )
    return found


def _header(path: Path) -> _Shape:
    """Shape of the inputs of the ControlNet in a file or folder.

    Raises:
        InputError: there is no ControlNet in it.
    """
    weights = _weights(path) if path.is_dir() else path
    shapes = {name.removeprefix(_PREFIX): shape for name, shape in header_shapes(weights, path).items()}
    inputs = next((shapes[name] for name in _INPUTS if name in shapes), None)
    width = text_width(shapes)
    if inputs is None or width is None or not is_controlnet(shapes):
        raise ModelFileError(
            f"{path}: not a ControlNet; give a tile ControlNet, such as control_v11f1e_sd15_tile (checkpoints, LoRAs, "
            "control LoRAs and T2I adapters are something else)."
        )
    return _Shape(inputs[1], width)


def _family(width: int) -> str:
    return f"{width} ({FAMILIES[width]})" if width in FAMILIES else str(width)


def _check_fit(source: str, shape: _Shape, model: LatentModel) -> None:
    wanted = _Shape.of(model.unet.config)
    if shape.width != wanted.width:
        raise InputError(
            f"Tile ControlNet {source!r} does not fit the model {model.name!r}: it takes a text width of "
            f"{_family(shape.width)}, the model has {_family(wanted.width)}; give one of the model's family."
        )
    if shape.channels != wanted.channels:
        raise InputError(
            f"Tile ControlNet {source!r} does not fit the model {model.name!r}: it takes latents of {shape.channels} "
            f"channels, the model has {wanted.channels}; give one of the model's family."
        )


_BLOCKS = ("block_out_channels", "layers_per_block", "addition_embed_type")


def _check_blocks(source: str, network: Any, model: LatentModel) -> None:
    """Check that the blocks are like those of the UNet, and that the picture has the right size.

    Raises:
        InputError: they are not, or it has not.
    """
    for name in _BLOCKS:
        ours, wanted = network.config.get(name), model.unet.config.get(name)
        if _plain(ours) != _plain(wanted):
            raise InputError(
                f"Tile ControlNet {source!r} does not fit the model {model.name!r}: its {name} is {ours}, the model's "
                f"{wanted}; give one of the model's family."
            )
    cell = 2 ** (len(network.config.conditioning_embedding_out_channels) - 1)
    if cell != model.vae_scale_factor or network.config.conditioning_channels != 3:
        raise InputError(
            f"Tile ControlNet {source!r} cannot be used: it takes a picture of {network.config.conditioning_channels} "
            f"channels, {cell} pixels a latent cell; an RGB picture, {model.vae_scale_factor} pixels a cell, is needed."
        )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value


def _from_folder(folder: Path) -> Any:
    return _from_pretrained(str(folder), variant=_WEIGHTS[_weights(folder).name], local_files_only=True)


def _from_pretrained(source: str, **options: Any) -> Any:
    import diffusers

    diffusers.utils.logging.set_verbosity_error()
    try:
        network, found = diffusers.ControlNetModel.from_pretrained(
            source, use_safetensors=True, output_loading_info=True, **options
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError) as error:
        offline = options.get("local_files_only") and not Path(source).exists()
        problem = "it is not a file or folder here, and the hub cannot be reached" if offline else first_line(error)
        raise InputError(
            f"Tile ControlNet {source!r} cannot be loaded; weights must be .safetensors ({problem})."
        ) from error
    if found["missing_keys"]:  # diffusers would leave them random
        raise _incomplete(source, found["missing_keys"])
    return network


def _incomplete(source: str | Path, missing: list[str]) -> InputError:
    return InputError(f"{source}: {len(missing)} weights of the ControlNet are missing, such as {missing[0]}.")


def _from_file(path: Path, model: LatentModel) -> Any:
    """The ControlNet in a single file, in diffusers' or the original layout.

    It is built like the model's UNet, whose first half a ControlNet copies, so that no configuration is needed.
    """
    from diffusers import ControlNetModel
    from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint
    from safetensors.torch import load_file

    weights = {key.removeprefix(_PREFIX): value for key, value in load_file(path).items()}
    with torch.device("meta"):
        network = ControlNetModel.from_unet(
            model.unet, load_weights_from_unet=False, conditioning_embedding_out_channels=_picture_channels(weights)
        )
    try:
        # None: of the zero convolutions that the file lacks
        converted = convert_controlnet_checkpoint(weights, network.config)
        state = {key: value for key, value in converted.items() if value is not None}
        missing = sorted(network.state_dict().keys() - state.keys())
        if missing:
            raise _incomplete(path, missing)
        network.load_state_dict(state, assign=True)
    except (KeyError, IndexError, RuntimeError) as error:
        raise InputError(
            f"{path}: the ControlNet does not fit the model {model.name!r} ({first_line(error)}); give one of the "
            "model's family."
        ) from error
    return network


def _picture_channels(weights: Mapping[str, torch.Tensor]) -> tuple[int, ...]:
    """Channels of the layers that shrink the picture to the latent's size, ascending: 16, 32, 96, 256 as published."""
    layers = [value.shape for key, value in weights.items() if _PICTURE_LAYERS.fullmatch(key)]
    return tuple(sorted({shape[1] for shape in layers} - {3}))
