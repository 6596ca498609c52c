"""The demo model's networks, their names in the layout of an SD 1.x checkpoint, and its files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

VAE_CONFIG = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [64, 64, 64, 128],
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "sample_size": 256,
    "scaling_factor": 0.18215,
}
"""The layout's norm has 32 groups, so no level may have fewer than 64 channels: a group of one forgets its mean."""
UNET_CONFIG = {
    "sample_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ["DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D"],
    "block_out_channels": [64, 128],
    "layers_per_block": 1,
    "cross_attention_dim": 64,
    "attention_head_dim": 4,
    "norm_num_groups": 32,
}
TEXT_CONFIG = {
    "vocab_size": 514,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 77,
    "projection_dim": 64,
    "bos_token_id": 512,
    "eos_token_id": 513,
    "pad_token_id": 513,
}
SCHEDULER_CONFIG = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "prediction_type": "epsilon",
}
HOST_TOKENIZER = "models/Stable-diffusion/demo-model/diffusers/tokenizer"
"""Relative to the WebUI's folder: the demo model's folder is copied as a whole."""


def build_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(**UNET_CONFIG)


def build_tile_controlnet(unet: UNet2DConditionModel) -> ControlNetModel:
    """A copy of the UNet's first half that is shown a picture; it says nothing before it is trained."""
    return ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(16, 32, 64, 128))


def build_text_encoder() -> CLIPTextModel:
    """The text encoder keeps its first random weights, the same ones each time: it only has to tell prompts apart."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = CLIPTextModel(CLIPTextConfig(**TEXT_CONFIG)).requires_grad_(False).eval()
    # The WebUI (modules/sd_emphasis.py) divides by the mean of the output, which a fresh layer norm makes zero.
    for name, parameter in encoder.named_parameters():
        if name.endswith("final_layer_norm.bias"):
            parameter.fill_(0.1)
    return encoder


# Names: diffusers' to those of an SD 1.x checkpoint.

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}


def unet_prefixes(config: dict[str, object]) -> dict[str, str]:
    """Prefix in diffusers to prefix in the SD 1.x layout, which counts all of a UNet's blocks in one row."""
    layers, kinds = int(str(config["layers_per_block"])), config["down_block_types"]
    levels = len(list(kinds))  # type: ignore[call-overload]
    result = dict(UNET_ENDS)
    for i in range(levels):
        for j in range(layers):
            result[f"down_blocks.{i}.resnets.{j}"] = f"input_blocks.{1 + i * (layers + 1) + j}.0"
            result[f"down_blocks.{i}.attentions.{j}"] = f"input_blocks.{1 + i * (layers + 1) + j}.1"
        result[f"down_blocks.{i}.downsamplers.0.conv"] = f"input_blocks.{(i + 1) * (layers + 1)}.0.op"
        for j in range(layers + 1):
            result[f"up_blocks.{i}.resnets.{j}"] = f"output_blocks.{i * (layers + 1) + j}.0"
            result[f"up_blocks.{i}.attentions.{j}"] = f"output_blocks.{i * (layers + 1) + j}.1"
        position = 2 if "CrossAttn" in list(config["up_block_types"])[i] else 1  # type: ignore[call-overload]
        result[f"up_blocks.{i}.upsamplers.0.conv"] = f"output_blocks.{i * (layers + 1) + layers}.{position}.conv"
    return result


def unet_name(key: str, prefixes: dict[str, str]) -> str:
    prefix = max((p for p in prefixes if key.startswith(p + ".")), key=len)
    rest = key[len(prefix) + 1 :]
    part = rest.rsplit(".", 1)[0]
    return f"{prefixes[prefix]}.{rest.replace(part, RESNET.get(part, part)) if '.resnets.' in prefix else rest}"


VAE_PARTS = [
    (r"(en|de)coder\.mid_block\.resnets\.0", r"\1coder.mid.block_1"),
    (r"(en|de)coder\.mid_block\.resnets\.1", r"\1coder.mid.block_2"),
    (r"(en|de)coder\.mid_block\.attentions\.0", r"\1coder.mid.attn_1"),
    (r"encoder\.down_blocks\.(\d)\.resnets\.(\d)", r"encoder.down.\1.block.\2"),
    (r"encoder\.down_blocks\.(\d)\.downsamplers\.0", r"encoder.down.\1.downsample"),
    (r"decoder\.up_blocks\.(\d)\.resnets\.(\d)", r"decoder.up.<\1>.block.\2"),
    (r"decoder\.up_blocks\.(\d)\.upsamplers\.0", r"decoder.up.<\1>.upsample"),
    (r"conv_norm_out", "norm_out"),
    (r"conv_shortcut", "nin_shortcut"),
    (r"group_norm", "norm"),
    (r"to_([qkv])\.", r"\1."),
    (r"to_out\.0", "proj_out"),
]


def vae_name(key: str, levels: int = 4) -> str:
    """The layout counts the decoder's levels from the finest, diffusers from the coarsest."""
    for pattern, replacement in VAE_PARTS:
        key = re.sub(pattern, replacement, key)
    return re.sub(r"<(\d)>", lambda m: str(levels - 1 - int(m[1])), key)


def checkpoint(vae: AutoencoderKL, unet: UNet2DConditionModel, text: CLIPTextModel) -> dict[str, Tensor]:
    """All weights under the names of an SD 1.x checkpoint, in half precision."""
    prefixes, result = unet_prefixes(UNET_CONFIG), {}
    for key, value in unet.state_dict().items():
        result[f"model.diffusion_model.{unet_name(key, prefixes)}"] = value
    for key, value in vae.state_dict().items():
        name = vae_name(key)
        linear = ".attn_1." in name and value.ndim == 2
        result[f"first_stage_model.{name}"] = value[..., None, None] if linear else value
    for key, value in text.state_dict().items():
        result[f"cond_stage_model.transformer.text_model.{key.removeprefix('text_model.')}"] = value
    return {
        key: value.half().contiguous() if value.is_floating_point() else value.contiguous()
        for key, value in result.items()
    }


# Files

HOST_CONFIG = """\
# What the WebUI builds before it loads demo.safetensors: Stable Diffusion 1.x with fewer channels.
model:
  target: ldm.models.diffusion.ddpm.LatentDiffusion
  params:
    linear_start: 0.00085
    linear_end: 0.0120
    num_timesteps_cond: 1
    log_every_t: 200
    timesteps: 1000
    first_stage_key: jpg
    cond_stage_key: txt
    image_size: 32
    channels: 4
    cond_stage_trainable: false
    conditioning_key: crossattn
    scale_factor: 0.18215
    use_ema: false
    unet_config:
      target: ldm.modules.diffusionmodules.openaimodel.UNetModel
      params:
        image_size: 32
        in_channels: 4
        out_channels: 4
        model_channels: 64
        channel_mult: [1, 2]
        num_res_blocks: 1
        attention_resolutions: []
        num_heads: 4
        use_spatial_transformer: true
        transformer_depth: 1
        context_dim: 64
        use_checkpoint: false
        legacy: false
    first_stage_config:
      target: ldm.models.autoencoder.AutoencoderKL
      params:
        embed_dim: 4
        ddconfig:
          double_z: true
          z_channels: 4
          resolution: 256
          in_channels: 3
          out_ch: 3
          ch: 64
          ch_mult: [1, 1, 1, 2]
          num_res_blocks: 1
          attn_resolutions: []
          dropout: 0.0
        lossconfig:
          target: torch.nn.Identity
    cond_stage_config:
      target: ldm.modules.encoders.modules.FrozenCLIPEmbedder
      params:
        version: {text_encoder}
"""


def byte_characters() -> list[str]:
    """A printable character for each byte, as byte-level vocabularies write them: unprintable ones move above 255."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = iter(range(256, 512))
    return [chr(b) if b in printable else chr(next(moved)) for b in range(256)]


def write_tokenizer(folder: Path) -> None:
    """CLIP's tokenizer without merges: each byte is a token, in two forms, inside a word and at its end."""
    characters = byte_characters()
    tokens = [*characters, *(c + "</w>" for c in characters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    end = "<|endoftext|>"
    special = {"bos_token": "<|startoftext|>", "eos_token": end, "unk_token": end, "pad_token": end}
    write_json(folder / "vocab.json", vocabulary)
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77} | special)
    write_json(folder / "special_tokens_map.json", special)


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def export(folder: Path, vae: AutoencoderKL, unet: UNet2DConditionModel, text: CLIPTextModel) -> None:
    """Write the checkpoint, the WebUI's description of it, and the configurations that diffusers wants beside it."""
    parts = folder / "diffusers"
    parts.mkdir(parents=True, exist_ok=True)
    save_file(checkpoint(vae, unet, text), folder / "demo.safetensors")
    (folder / "demo.safetensors").chmod(0o644)
    (folder / "demo.yaml").write_text(HOST_CONFIG.format(text_encoder=HOST_TOKENIZER), "utf-8")
    write_json(parts / "vae/config.json", {"_class_name": "AutoencoderKL"} | VAE_CONFIG)
    write_json(parts / "unet/config.json", {"_class_name": "UNet2DConditionModel"} | UNET_CONFIG)
    text_config = {"architectures": ["CLIPTextModel"], "model_type": "clip_text_model"} | TEXT_CONFIG
    write_json(parts / "text_encoder/config.json", text_config)
    # The WebUI reads the text encoder's configuration and its tokenizer from one folder.
    write_json(parts / "tokenizer/config.json", text_config)
    write_tokenizer(parts / "tokenizer")
    write_json(parts / "scheduler/scheduler_config.json", {"_class_name": "DDIMScheduler"} | SCHEDULER_CONFIG)
    classes = {
        "scheduler": "DDIMScheduler",
        "text_encoder": "CLIPTextModel",
        "tokenizer": "CLIPTokenizer",
        "unet": "UNet2DConditionModel",
        "vae": "AutoencoderKL",
    }
    libraries = {"text_encoder": "transformers", "tokenizer": "transformers"}
    index = {name: [libraries.get(name, "diffusers"), kind] for name, kind in classes.items()}
    absent = {"safety_checker": [None, None], "feature_extractor": [None, None]}
    write_json(parts / "model_index.json", {"_class_name": "StableDiffusionPipeline"} | index | absent)


def export_tile_controlnet(folder: Path, controlnet: ControlNetModel) -> None:
    """Write the tile ControlNet as a diffusers folder beside the model's, in half precision.

    Not within it: users copy that one to the WebUI, which would take the ControlNet for a checkpoint.
    """
    parts = folder.with_name("demo-tile-controlnet")
    config = {key: value for key, value in controlnet.config.items() if not key.startswith("_")}
    write_json(parts / "config.json", {"_class_name": "ControlNetModel"} | config)
    weights = {key: value.half().contiguous() for key, value in controlnet.state_dict().items()}
    save_file(weights, parts / "diffusion_pytorch_model.safetensors")
    (parts / "diffusion_pytorch_model.safetensors").chmod(0o644)
