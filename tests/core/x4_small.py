"""Small, randomly initialised x4 upscalers in the layouts that users have: a folder and a single file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from lib_latent_upscale.x4_upscaler.loading import CONFIGURATION
from lib_latent_upscale.x4_upscaler.tokenizer import ClipTokenizer, find_merges

UNET = {
    "block_out_channels": [16, 32, 32, 32],
    "cross_attention_dim": 32,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
}
VAE = {"block_out_channels": [8, 16, 16], "norm_num_groups": 4}
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "projection_dim": 32,
}
SMALL = {"unet": UNET, "vae": VAE, "text_encoder": TEXT}


def write_configuration(folder: Path, **changes: dict[str, Any]) -> Path:
    """The published configurations, with narrower layers."""
    for source in CONFIGURATION.rglob("*.json"):
        target = folder / source.relative_to(CONFIGURATION)
        target.parent.mkdir(parents=True, exist_ok=True)
        config = {**json.loads(source.read_text()), **SMALL.get(target.parent.name, {})}
        target.write_text(json.dumps({**config, **changes.get(target.parent.name, {})}))
    return folder


def build(configuration: Path, seed: int = 0) -> dict[str, Any]:
    """UNet, VAE and text encoder with random weights, by part."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(seed)
    config = CLIPTextConfig(**json.loads((configuration / "text_encoder" / "config.json").read_text()))
    return {
        "unet": UNet2DConditionModel.from_config(
            UNet2DConditionModel.load_config(str(configuration), subfolder="unet")
        ),
        "vae": AutoencoderKL.from_config(AutoencoderKL.load_config(str(configuration), subfolder="vae")),
        "text_encoder": CLIPTextModel(config),
    }


def write_folder(folder: Path, **changes: dict[str, Any]) -> Path:
    """A small x4 upscaler as diffusers saves it, tokenizer included."""
    write_configuration(folder, **changes)
    for part, model in build(folder).items():
        model.save_pretrained(folder / part, safe_serialization=True)
    write_tokenizer(folder / "tokenizer")
    index = {
        "_class_name": "StableDiffusionUpscalePipeline",
        "low_res_scheduler": ["diffusers", "DDPMScheduler"],
        "max_noise_level": 350,
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def write_tokenizer(folder: Path) -> None:
    """CLIP's tokenizer as transformers reads it, padded with "!" as the published x4 upscaler is."""
    import gzip

    folder.mkdir()
    lines = gzip.decompress(find_merges(folder).read_bytes()).decode().splitlines()[1 : 49152 - 256 - 2 + 1]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *lines]) + "\n", "utf-8")
    vocabulary = ClipTokenizer.from_file(folder / "merges.txt").backend.get_vocab()
    (folder / "vocab.json").write_text(json.dumps(vocabulary), "utf-8")
    tokens = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "!",
    }
    (folder / "special_tokens_map.json").write_text(json.dumps(tokens))
    config = {**tokens, "tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
