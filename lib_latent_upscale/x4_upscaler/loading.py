"""Loads the x4 upscaler from a Hugging Face folder, a single file or a hub id; diffusers is imported here, lazily."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lib_latent_upscale.checkpoints import Header, is_hub_id
from lib_latent_upscale.errors import ModelFileError
from lib_latent_upscale.memory import default_device, memory_errors
from lib_latent_upscale.noise_tables import NoiseTable
from lib_latent_upscale.x4_upscaler.layouts import (
    SINGLE_FILE_PARTS,
    check_folder,
    check_single_file,
    folder_variant,
    read_config,
    weights_file,
)
from lib_latent_upscale.x4_upscaler.tokenizer import ClipTokenizer, find_merges

__all__ = ["CONFIGURATION", "X4Model", "check_x4", "load_x4"]

_log = logging.getLogger(__name__)

CONFIGURATION = Path(__file__).with_name("configuration")
"""Configurations of the published model, in the layout of its Hugging Face folder."""

_SCALING_FACTOR = 0.08333
"""Of the published model; early configurations of its VAE do not have it."""
_HUB_CONFIGURATIONS = ["*/config.json", "*/scheduler_config.json", "model_index.json"]
_HUB_WEIGHTS = ["unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors",
                "text_encoder/model.safetensors", "tokenizer/*"]  # fmt: skip


@dataclass(frozen=True, eq=False)
class X4Model:
    """A loaded x4 upscaler. Its weights may be on another device than `device`."""

    unet: Any
    """diffusers' UNet2DConditionModel."""
    vae: Any
    """diffusers' AutoencoderKL, in float32: it overflows in half precision."""
    text_encoder: Any
    """transformers' CLIPTextModel."""
    tokenizer: ClipTokenizer
    noise: NoiseTable
    """Noise table of the latents."""
    low_resolution_noise: NoiseTable
    """Noise table of the input picture."""
    device: torch.device
    """Where the work is done; a part is moved there only while it is needed."""
    name: str = ""
    """File or folder name, for infotext and messages."""
    scaling_factor: float = _SCALING_FACTOR
    """Latents are the VAE's values times this."""


def load_x4(
    path: str | Path,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    configuration: Path = CONFIGURATION,
    download: bool = True,
) -> X4Model:
    """Load an x4 upscaler, checked before anything large is read. Only safetensors are loaded.

    Args:
        path: a Hugging Face folder, a .safetensors file in Stability AI's layout (x4-upscaler-ema.safetensors) or a hub
            id such as "stabilityai/stable-diffusion-x4-upscaler".
        device: where it will work; by default the accelerator.
        dtype: of the UNet and the text encoder; by default float16 on an accelerator, otherwise float32.
        configuration: a folder that describes a single file.
        download: whether a hub id may be downloaded.

    Raises:
        OutOfMemory: the model does not fit into memory.
        ModelFileError: it cannot be loaded; says why.
    """
    target = default_device() if device is None else torch.device(device)
    if dtype is None:
        dtype = torch.float32 if target.type == "cpu" else torch.float16
    place = Path(path).expanduser()
    with memory_errors(f"the x4 upscaler {place.name}", target):
        if place.is_dir():
            model = _load_folder(place, target, dtype)
        elif place.is_file():
            model = _load_single_file(place, target, dtype, configuration)
        else:
            model = _load_folder(_hub_folder(str(path), download), target, dtype, str(path))
    _log.info("Loaded the x4 upscaler %s.", model.name)
    return model


def check_x4(path: str | Path) -> None:
    """Check that a folder or file is a complete x4 upscaler, before any work.

    Only headers and configurations are read, which takes milliseconds and does not need diffusers.

    Raises:
        ModelFileError: it is not; says why.
    """
    place = Path(path).expanduser()
    if place.is_dir():
        _check_parts(place)
    elif place.is_file():
        check_single_file(place)
        find_merges(place)
    else:
        raise ModelFileError(f"there is no x4 upscaler at {path}.")


def _check_parts(folder: Path) -> tuple[dict[str, str | None], Path]:
    """(variant of every part's weights, list of merges) of a folder that is an x4 upscaler."""
    check_folder(folder)
    variants = {part: folder_variant(folder, part) for part in SINGLE_FILE_PARTS}
    merges = folder / "tokenizer" / "merges.txt"
    if not merges.is_file():
        raise ModelFileError(f"{folder.name} lacks tokenizer/merges.txt: download the whole folder.")
    return variants, merges


def _hub_folder(path: str, download: bool) -> Path:
    if not is_hub_id(path):
        raise ModelFileError(
            f"there is no x4 upscaler at {path}: give a folder, a .safetensors file or a hub id (owner/name)."
        )
    try:
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(path, allow_patterns=_HUB_CONFIGURATIONS, local_files_only=not download))
        check_folder(folder)
        snapshot_download(path, allow_patterns=_HUB_CONFIGURATIONS + _HUB_WEIGHTS, local_files_only=not download)
    except (ImportError, OSError) as error:
        reason = error if download else "it has not been downloaded before, and the hub cannot be reached"
        raise ModelFileError(f"{path} is not a folder here and cannot be downloaded from the hub: {reason}") from error
    return folder


def _load_folder(folder: Path, device: torch.device, dtype: torch.dtype, name: str = "") -> X4Model:
    variants, merges = _check_parts(folder)
    unet_class, vae_class, text_class = _classes()

    def part(cls: Any, subfolder: str, as_type: torch.dtype) -> Any:
        loaded, info = cls.from_pretrained(
            str(folder),
            subfolder=subfolder,
            variant=variants[subfolder],
            torch_dtype=as_type,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            low_cpu_mem_usage=False,  # diffusers 0.32 with accelerate 0.21 (reForge) loads only so
        )
        if info["missing_keys"]:
            raise ModelFileError(
                f"{folder.name}/{subfolder} lacks {len(info['missing_keys'])} of its tensors: download it again."
            )
        return loaded.eval()

    return X4Model(
        unet=part(unet_class, "unet", dtype),
        vae=part(vae_class, "vae", torch.float32),
        text_encoder=_text_encoder(
            text_class,
            _tensors(weights_file(folder, "text_encoder", variants["text_encoder"]), "", dtype),
            folder / "text_encoder" / "config.json",
            folder.name,
        ),
        tokenizer=ClipTokenizer.from_file(merges),
        device=device,
        name=name or folder.name,
        **_numbers(folder),
    )


def _classes() -> tuple[Any, Any, Any]:
    try:
        from diffusers import AutoencoderKL, UNet2DConditionModel
        from transformers import CLIPTextModel
    except (ImportError, RuntimeError) as error:  # diffusers raises RuntimeError where a package does not fit
        raise ModelFileError(f"the x4 upscaler needs the packages diffusers and transformers: {error}") from error
    return UNet2DConditionModel, AutoencoderKL, CLIPTextModel


def _numbers(folder: Path) -> dict[str, Any]:
    """The model's figures from the configurations in `folder`."""
    return {
        "noise": _noise(folder / "scheduler"),
        "low_resolution_noise": _noise(folder / "low_res_scheduler"),
        "scaling_factor": read_config(folder / "vae" / "config.json").get("scaling_factor", _SCALING_FACTOR),
    }


def _noise(folder: Path) -> NoiseTable:
    path = folder / "scheduler_config.json"
    try:
        return NoiseTable.from_config(read_config(path))
    except ValueError as error:
        raise ModelFileError(f"{path}: {error}") from error


def _load_single_file(path: Path, device: torch.device, dtype: torch.dtype, configuration: Path) -> X4Model:
    header = check_single_file(path)
    merges = find_merges(path)
    unet_class, vae_class, text_class = _classes()

    def part(cls: Any, name: str, as_type: torch.dtype) -> Any:
        _check_size(path, header, name, cls.load_config(str(configuration), subfolder=name), cls)
        # `config` and `local_files_only`: without them diffusers asks the hub what the file is.
        return cls.from_single_file(
            _tensors(path, SINGLE_FILE_PARTS[name], as_type),
            config=str(configuration),
            subfolder=name,
            local_files_only=True,
            torch_dtype=as_type,
        ).eval()

    config = configuration / "text_encoder" / "config.json"
    tensors = convert_open_clip(
        _tensors(path, SINGLE_FILE_PARTS["text_encoder"], dtype), read_config(config)["num_hidden_layers"]
    )
    return X4Model(
        unet=part(unet_class, "unet", dtype),
        vae=part(vae_class, "vae", torch.float32),
        text_encoder=_text_encoder(text_class, tensors, config, path.name),
        tokenizer=ClipTokenizer.from_file(merges),
        device=device,
        name=path.stem,
        **_numbers(configuration),
    )


def _check_size(path: Path, header: Header, part: str, config: dict[str, Any], cls: Any) -> None:
    """Count before loading: diffusers would leave what a file lacks at random values."""
    with torch.device("meta"):
        wanted = sum(tensor.numel() for tensor in cls.from_config(config).state_dict().values())
    found = header.numbers(SINGLE_FILE_PARTS[part])
    if found != wanted:
        raise ModelFileError(f"the {part} in {path.name} has {found} numbers, but the x4 upscaler's has {wanted}.")


def _tensors(path: Path, prefix: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """The tensors below a prefix, under their whole names; the rest of the file is not read."""
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        return {name: file.get_tensor(name).to(dtype) for name in file.keys() if name.startswith(prefix)}  # noqa: SIM118


_OPEN_CLIP_NAMES = (
    ("token_embedding.", "embeddings.token_embedding."),
    ("positional_embedding", "embeddings.position_embedding.weight"),
    ("ln_final.", "final_layer_norm."),
    ("transformer.resblocks.", "encoder.layers."),
    (".ln_1.", ".layer_norm1."),
    (".ln_2.", ".layer_norm2."),
    (".mlp.c_fc.", ".mlp.fc1."),
    (".mlp.c_proj.", ".mlp.fc2."),
    (".attn.out_proj.", ".self_attn.out_proj."),
)
"""(part of a name in OpenCLIP, in transformers)."""


def convert_open_clip(tensors: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """OpenCLIP's text tower as transformers names it, its first `layers` layers; the rest is left out."""
    converted: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        short = name.removeprefix(SINGLE_FILE_PARTS["text_encoder"])
        layer = re.match(r"transformer\.resblocks\.(\d+)\.", short)
        if short in ("text_projection", "logit_scale", "attn_mask") or (layer and int(layer[1]) >= layers):
            continue
        for theirs, ours in _OPEN_CLIP_NAMES:
            short = short.replace(theirs, ours)
        if ".attn.in_proj_" in short:
            block, kind = short.split(".attn.in_proj_")
            for letter, third in zip("qkv", tensor.chunk(3), strict=True):
                converted[f"{block}.self_attn.{letter}_proj.{kind}"] = third.clone()
        else:
            converted[short] = tensor
    return converted


def _text_encoder(cls: Any, tensors: Mapping[str, Tensor], config: Path, name: str) -> Any:
    """CLIP's text tower from tensors named as transformers names them, of any version; `name` is for messages."""
    from transformers import CLIPTextConfig

    values = CLIPTextConfig.from_dict(read_config(config))
    with torch.device("meta"):  # without drawing 354 million random numbers that are thrown away
        model = cls(values)
    # transformers 5 dropped "text_model." from the names, and so do folders that it has saved.
    prefix = "text_model." if any(known.startswith("text_model.") for known in model.state_dict()) else ""
    named = {prefix + known.removeprefix("text_model."): tensor for known, tensor in tensors.items()}
    try:
        missing = model.load_state_dict(named, strict=False, assign=True)
    except RuntimeError as error:
        raise ModelFileError(f"the text encoder in {name} does not fit the x4 upscaler: {error}") from error
    wanting = [known for known in missing.missing_keys if not known.endswith("position_ids")]
    if wanting:
        raise ModelFileError(f"the text encoder in {name} lacks {len(wanting)} tensors, such as {wanting[0]}.")
    for module in model.modules():  # no file need hold these
        if hasattr(module, "position_ids"):
            module.position_ids = torch.arange(values.max_position_embeddings)[None]
    return model.eval()
