"""What a model file or folder is, read from headers and configurations before anything is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from lib_latent_upscale.errors import ModelFileError

__all__ = [
    "PICKLES",
    "SINGLE_FILE_PARTS",
    "Header",
    "check_folder",
    "check_single_file",
    "folder_variant",
    "read_config",
    "read_header",
    "weights_file",
]

PICKLES = frozenset({".ckpt", ".pt", ".pth", ".bin", ".pkl"})
SINGLE_FILE_PARTS = {
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
    "text_encoder": "cond_stage_model.model.",
}
"""Prefix of every part's tensors in a file of Stability AI's layout."""

_FIRST_CONVOLUTION = "model.diffusion_model.input_blocks.0.0.weight"
_NOISE_LEVELS = "model.diffusion_model.label_emb.weight"
_LARGEST_HEADER = 100_000_000
_WEIGHTS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
_WANTED = (
    "the x4 upscaler is wanted: x4-upscaler-ema.safetensors, or the folder stabilityai/stable-diffusion-x4-upscaler"
)

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Header:
    """What a safetensors file says about itself."""

    shapes: Shapes
    """Shape of every tensor."""

    def numbers(self, prefix: str) -> int:
        """How many numbers the tensors below a prefix have."""
        return sum(prod(shape) for name, shape in self.shapes.items() if name.startswith(prefix))


def read_header(path: Path) -> Header:
    """Read the header of a safetensors file and check that the file is whole; no tensor is read.

    Raises ModelFileError for a pickle, a file that is no safetensors file, and one that is shorter than it says.
    """
    if path.suffix.lower() in PICKLES:
        raise ModelFileError(f"{path.name} is a pickle, which can run code when it is loaded: use a .safetensors file.")
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(_LARGEST_HEADER, size - 8):
            raise ModelFileError(_corrupt(path))
        text = file.read(length)
    try:
        tensors = {name: entry for name, entry in json.loads(text).items() if name != "__metadata__"}
        shapes = {name: tuple(entry["shape"]) for name, entry in tensors.items()}
        end = max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
    except (ValueError, AttributeError, KeyError, TypeError, IndexError) as error:
        raise ModelFileError(_corrupt(path)) from error
    if 8 + length + end != size:
        raise ModelFileError(f"{path.name} has {size} bytes but should have {8 + length + end}: download it again.")
    return Header(shapes)


def _corrupt(path: Path) -> str:
    return f"{path.name} is not a safetensors file, or it is damaged: download it again; pickles are not loaded."


def _channels(shapes: Shapes, channels: int) -> bool:
    return shapes.get(_FIRST_CONVOLUTION, (0, 0))[1] == channels


_KINDS: tuple[tuple[str, Callable[[Shapes], bool]], ...] = (
    ("an SDXL checkpoint", lambda shapes: "model.diffusion_model.label_emb.0.0.weight" in shapes),
    ("an inpainting checkpoint", lambda shapes: _channels(shapes, 9)),
    ("a depth or pix2pix checkpoint", lambda shapes: _channels(shapes, 5) or _channels(shapes, 8)),
    ("a normal Stable Diffusion checkpoint", lambda shapes: _channels(shapes, 4)),
    ("a LoRA", lambda shapes: any("lora" in name for name in shapes)),
    ("a ControlNet", lambda shapes: any(name.startswith(("control_model.", "controlnet_")) for name in shapes)),
    ("an upscaler of another kind", lambda shapes: any("rrdb" in name.lower() or "body." in name for name in shapes)),
    ("a VAE", lambda shapes: any(name.startswith(("decoder.", "first_stage_model.")) for name in shapes)),
)
"""(what it is, test of its tensors), the first that fits; only for words to the person."""


def _kind(shapes: Shapes) -> str:
    return next((kind for kind, fits in _KINDS if fits(shapes)), "some other model")


def check_single_file(path: Path) -> Header:
    """The header of an x4 upscaler in one file; ModelFileError says what the file is instead."""
    header = read_header(path)
    if not (_channels(header.shapes, 7) and _NOISE_LEVELS in header.shapes):
        raise ModelFileError(f"{path.name} is {_kind(header.shapes)}; {_WANTED}.")
    missing = [part for part, prefix in SINGLE_FILE_PARTS.items() if not header.numbers(prefix)]
    if missing:
        raise ModelFileError(f"{path.name} lacks its {' and '.join(missing)}; {_WANTED}.")
    return header


def read_config(path: Path) -> dict[str, Any]:
    """A JSON object; ModelFileError where there is none."""
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
    """Where a folder has the weights of a part."""
    return folder / part / ".".join(filter(None, (_WEIGHTS[part], variant, "safetensors")))


def folder_variant(folder: Path, part: str) -> str | None:
    """The variant of a part's weights that the folder holds: None for the plain ones, else "fp16".

    Raises ModelFileError where there are none, only pickles, or damaged ones.
    """
    for variant in (None, "fp16"):
        path = weights_file(folder, part, variant)
        if path.is_file():
            read_header(path)
            return variant
    pickled = any(path.suffix in PICKLES for path in (folder / part).glob("*"))
    hint = "there are only pickles, which can run code when they are loaded" if pickled else "there are none"
    raise ModelFileError(f"{folder.name}/{part} needs its weights as {_WEIGHTS[part]}.safetensors; {hint}.")
