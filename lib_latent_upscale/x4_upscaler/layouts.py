"""Recognising a model file or folder by headers and configurations, before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lib_latent_upscale.checkpoints import PICKLES, Header, kind_of, latent_channels, read_header
from lib_latent_upscale.errors import ModelFileError

__all__ = [
    "SINGLE_FILE_PARTS",
    "check_folder",
    "check_single_file",
    "folder_variant",
    "read_config",
    "weights_file",
]

SINGLE_FILE_PARTS = {
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
    "text_encoder": "cond_stage_model.model.",
}
"""Prefix of every part's tensors in a file of Stability AI's layout."""

_NOISE_LEVELS = "model.diffusion_model.label_emb.weight"
_WEIGHTS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
_WANTED = (
    "the x4 upscaler is needed: x4-upscaler-ema.safetensors, or the folder stabilityai/stable-diffusion-x4-upscaler"
)


def check_single_file(path: Path) -> Header:
    """The header of an x4 upscaler in a single file.

    Raises:
        ModelFileError: it is something else; says what.
    """
    header = read_header(path)
    if not (latent_channels(header.shapes) == 7 and _NOISE_LEVELS in header.shapes):
        raise ModelFileError(f"{path.name} is {kind_of(header.shapes)}; {_WANTED}.")
    missing = [part for part, prefix in SINGLE_FILE_PARTS.items() if not header.numbers(prefix)]
    if missing:
        raise ModelFileError(f"{path.name} lacks its {' and '.join(missing)}; {_WANTED}.")
    return header


def read_config(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ModelFileError: there is none.
    """
    try:
        values = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{_short(path)} cannot be read ({error}); {_WANTED}.") from error
    if not isinstance(values, dict):
        raise ModelFileError(f"{_short(path)} is not a JSON object; {_WANTED}.")
    return values


def _short(path: Path) -> str:
    return "/".join(path.parts[-3:])


def check_folder(folder: Path) -> None:
    """Check by its configurations that a Hugging Face folder is an x4 upscaler.

    Raises:
        ModelFileError: says what it is instead.
    """
    config = read_config(folder / "unet" / "config.json")
    if config.get("in_channels") != 7 or not config.get("num_class_embeds"):
        found = folder / "model_index.json"
        kind = read_config(found).get("_class_name", "unknown") if found.is_file() else "unknown"
        raise ModelFileError(
            f"{folder.name} is not an x4 upscaler (its pipeline is {kind}, its UNet has "
            f"{config.get('in_channels')} input channels instead of 7); {_WANTED}."
        )
    levels = len(read_config(folder / "vae" / "config.json").get("block_out_channels", ()))
    if levels != 3:
        raise ModelFileError(
            f"the VAE of {folder.name} enlarges {2 ** max(levels - 1, 0)} times instead of 4; {_WANTED}."
        )


def weights_file(folder: Path, part: str, variant: str | None) -> Path:
    """The weights file of a part in a folder."""
    return folder / part / ".".join(filter(None, (_WEIGHTS[part], variant, "safetensors")))


def folder_variant(folder: Path, part: str) -> str | None:
    """The variant of a part's weights that the folder holds: None for the plain ones, else "fp16".

    Raises:
        ModelFileError: there are none, only pickles, or damaged ones.
    """
    for variant in (None, "fp16"):
        path = weights_file(folder, part, variant)
        if path.is_file():
            read_header(path)
            return variant
    pickled = any(path.suffix in PICKLES for path in (folder / part).glob("*"))
    hint = "there are only pickles, which can run code when they are loaded" if pickled else "there are none"
    raise ModelFileError(f"{folder.name}/{part} needs its weights as {_WEIGHTS[part]}.safetensors; {hint}.")
