"""What kind of model a file holds, from a safetensors header: only names and shapes of tensors are read.

To recognise a new kind of file, add a row to `_KINDS`; a new family of models, a row to `FAMILIES`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

from lib_latent_upscale.errors import ModelFileError

__all__ = [
    "FAMILIES",
    "PICKLES",
    "SD1_WIDTH",
    "SD2_WIDTH",
    "SDXL_WIDTH",
    "UNET_INPUT",
    "UNET_OUTPUT",
    "Header",
    "Shapes",
    "check_readable",
    "is_controlnet",
    "is_hub_id",
    "is_quantised",
    "is_sdxl",
    "is_whole_checkpoint",
    "kind_of",
    "latent_channels",
    "read_header",
    "short_hash",
    "text_width",
]

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
"""Shapes of tensors by their names."""

PICKLES = frozenset({".ckpt", ".pt", ".pth", ".bin", ".pkl"})
"""Suffixes of files that can run code when they are opened; none is ever opened here."""

SD1_WIDTH, SD2_WIDTH, SDXL_WIDTH = 768, 1024, 2048
"""Widths of text embeddings."""

FAMILIES: Mapping[int, str] = MappingProxyType({SD1_WIDTH: "SD 1.x", SD2_WIDTH: "SD 2.x", SDXL_WIDTH: "SDXL"})
"""Model families by the width of their text embeddings."""

UNET_INPUT = "model.diffusion_model.input_blocks.0.0.weight"
"""The convolution of a whole checkpoint that takes the latent; (channels, latent's channels, 3, 3)."""
UNET_OUTPUT = "model.diffusion_model.out.2.weight"
"""The convolution that returns one; (latent's channels, channels, 3, 3)."""

_VAE = "first_stage_model.decoder.conv_in.weight"
_SDXL = (
    "conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight",
    "conditioner.embedders.1.model.ln_final.weight",
)
_TEXT_INPUT = "attn2.to_k.weight"
_PICTURE_INPUTS = ("controlnet_cond_embedding.conv_in.weight", "input_hint_block.0.weight")
"""The convolution that takes the control picture, as diffusers and the authors name it: only a ControlNet has it."""
_QUANTISED = frozenset({"BOOL", "I8", "U8", "F4", "F6_E2M3", "F6_E3M2"})
"""Dtypes of quantised weights, some of them packed."""
_SCALES = ("scaled_fp8", ".scale_weight", ".weight_scale", ".weight_scale_inv", ".absmax")
"""Ends of the names of what quantised weights are multiplied by."""
_LARGEST_HEADER = 100_000_000
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Header:
    """The header of a safetensors file."""

    shapes: Shapes
    """Shape of every tensor."""
    dtypes: Mapping[str, str] = field(default_factory=dict)
    """The same for its dtype, as safetensors names it."""

    def numbers(self, prefix: str) -> int:
        """The number of values in all tensors whose names begin with `prefix`."""
        return sum(prod(shape) for name, shape in self.shapes.items() if name.startswith(prefix))


def read_header(path: Path) -> Header:
    """Read the header of a safetensors file and check that the file is whole; no tensor is read.

    Raises:
        ModelFileError: it is a pickle, not a safetensors file, truncated, or may not be read.
    """
    if path.suffix.lower() in PICKLES:
        raise ModelFileError(f"{path.name} is a pickle, which can run code when it is loaded: use a .safetensors file.")
    check_readable(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(_LARGEST_HEADER, size - 8):
            raise ModelFileError(_corrupt(path))
        text = file.read(length)
    try:
        tensors = {name: entry for name, entry in json.loads(text).items() if name != "__metadata__"}
        shapes = {name: tuple(entry["shape"]) for name, entry in tensors.items()}
        dtypes = {name: str(entry["dtype"]) for name, entry in tensors.items()}
        end = max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
    except (ValueError, AttributeError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise ModelFileError(_corrupt(path)) from error
    if 8 + length + end != size:
        raise ModelFileError(f"{path.name} has {size} bytes but should have {8 + length + end}: download it again.")
    return Header(shapes, dtypes)


def check_readable(path: Path) -> None:
    """Check that a file can be opened: safetensors says of one that may not be read that it does not exist.

    Raises:
        ModelFileError: it cannot.
    """
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise ModelFileError(f"{path} cannot be read: it is not a file.")
    try:
        path.open("rb").close()
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}.") from error


def _corrupt(path: Path) -> str:
    return f"{path.name} is not a safetensors file, or it is damaged: download it again; pickles are not loaded."


def is_hub_id(source: str) -> bool:
    """Whether a model's name can be an id of the Hugging Face hub, and not the name of a weights file."""
    return bool(_HUB_ID.fullmatch(source)) and Path(source).suffix.lower() not in {".safetensors", *PICKLES}


def short_hash(path: Path) -> str:
    """The first ten digits of a file's SHA-256, as written in infotexts."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:10]


def latent_channels(shapes: Shapes) -> int:
    """Input channels of the UNet of a whole checkpoint; 0 if there is none."""
    return shapes.get(UNET_INPUT, (0, 0))[1]


def text_width(shapes: Shapes) -> int | None:
    """Width of the text embeddings, a key of `FAMILIES` if the family is known; None for models without text."""
    return next((shape[1] for name, shape in shapes.items() if name.endswith(_TEXT_INPUT)), None)


def is_controlnet(shapes: Shapes) -> bool:
    """Whether there is a ControlNet in the file, in diffusers' or the authors' layout."""
    return any(name.endswith(_PICTURE_INPUTS) for name in shapes)


def is_whole_checkpoint(shapes: Shapes) -> bool:
    """Whether the file holds a UNet and a VAE in Stability AI's layout."""
    return UNET_INPUT in shapes and _VAE in shapes


def is_quantised(header: Header) -> bool:
    """Whether weights are whole numbers, or floats with scales of their own: as they are, both make noise."""
    whole = any(dtype in _QUANTISED for name, dtype in header.dtypes.items() if name.endswith(".weight"))
    return whole or any(name.endswith(_SCALES) for name in header.shapes)


def is_sdxl(shapes: Shapes) -> bool:
    """Whether a whole checkpoint has the text encoders of SDXL."""
    return any(name in shapes for name in _SDXL)


def _takes(*channels: int) -> Callable[[Shapes], bool]:
    return lambda shapes: latent_channels(shapes) in channels


_KINDS: tuple[tuple[str, Callable[[Shapes], bool]], ...] = (
    ("an SDXL checkpoint", lambda shapes: "model.diffusion_model.label_emb.0.0.weight" in shapes),
    ("an inpainting checkpoint", _takes(9)),
    ("a depth or pix2pix checkpoint", _takes(5, 8)),
    ("a normal Stable Diffusion checkpoint", _takes(4)),
    ("a LoRA", lambda shapes: any("lora" in name for name in shapes)),
    ("a ControlNet", lambda shapes: any(name.startswith(("control_model.", "controlnet_")) for name in shapes)),
    ("an upscaler of another kind", lambda shapes: any("rrdb" in name.lower() or "body." in name for name in shapes)),
    ("a VAE", lambda shapes: any(name.startswith(("decoder.", "first_stage_model.")) for name in shapes)),
)
"""Kinds of files, each with a test of the tensors; the first that fits counts."""


def kind_of(shapes: Shapes) -> str:
    """What a file holds, in words for the user."""
    return next((kind for kind, fits in _KINDS if fits(shapes)), "some other model")
