"""Names and shapes of tensors in a file of Stability AI's layout, made from those of diffusers and transformers.

The rules are written from the code of github.com/Stability-AI/stablediffusion (openaimodel.py, model.py) and OpenCLIP;
test_x4_loading.py compares their result for the true size with a digest computed from that code itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

Rule = tuple[str, str | Callable[[re.Match[str]], str]]

RESNET: tuple[Rule, ...] = (
    (r"\.norm1\.", ".in_layers.0."),
    (r"\.conv1\.", ".in_layers.2."),
    (r"\.time_emb_proj\.", ".emb_layers.1."),
    (r"\.norm2\.", ".out_layers.0."),
    (r"\.conv2\.", ".out_layers.3."),
    (r"\.conv_shortcut\.", ".skip_connection."),
)

UNET: tuple[Rule, ...] = (
    (r"^conv_in\.", "input_blocks.0.0."),
    (r"^time_embedding\.linear_1\.", "time_embed.0."),
    (r"^time_embedding\.linear_2\.", "time_embed.2."),
    (r"^class_embedding\.", "label_emb."),
    (r"^conv_norm_out\.", "out.0."),
    (r"^conv_out\.", "out.2."),
    (r"^down_blocks\.(\d)\.resnets\.(\d)\.", lambda m: f"input_blocks.{3 * int(m[1]) + int(m[2]) + 1}.0."),
    (r"^down_blocks\.(\d)\.attentions\.(\d)\.", lambda m: f"input_blocks.{3 * int(m[1]) + int(m[2]) + 1}.1."),
    (r"^down_blocks\.(\d)\.downsamplers\.0\.conv\.", lambda m: f"input_blocks.{3 * int(m[1]) + 3}.0.op."),
    (r"^mid_block\.resnets\.(\d)\.", lambda m: f"middle_block.{2 * int(m[1])}."),
    (r"^mid_block\.attentions\.0\.", "middle_block.1."),
    (r"^up_blocks\.(\d)\.resnets\.(\d)\.", lambda m: f"output_blocks.{3 * int(m[1]) + int(m[2])}.0."),
    (r"^up_blocks\.(\d)\.attentions\.(\d)\.", lambda m: f"output_blocks.{3 * int(m[1]) + int(m[2])}.1."),
    (r"^up_blocks\.(\d)\.upsamplers\.0\.conv\.", lambda m: f"output_blocks.{3 * int(m[1]) + 2}.2.conv."),
)

VAE: tuple[Rule, ...] = (
    (r"\.down_blocks\.(\d)\.resnets\.", r".down.\1.block."),
    (r"\.down_blocks\.(\d)\.downsamplers\.0\.", r".down.\1.downsample."),
    (r"\.up_blocks\.(\d)\.resnets\.", lambda m: f".up.{2 - int(m[1])}.block."),
    (r"\.up_blocks\.(\d)\.upsamplers\.0\.", lambda m: f".up.{2 - int(m[1])}.upsample."),
    (r"\.mid_block\.resnets\.(\d)\.", lambda m: f".mid.block_{int(m[1]) + 1}."),
    (r"\.mid_block\.attentions\.0\.", ".mid.attn_1."),
    (r"\.attn_1\.group_norm\.", ".attn_1.norm."),
    (r"\.attn_1\.to_([qkv])\.", r".attn_1.\1."),
    (r"\.attn_1\.to_out\.0\.", ".attn_1.proj_out."),
    (r"\.conv_norm_out\.", ".norm_out."),
    (r"\.conv_shortcut\.", ".nin_shortcut."),
)

TEXT: tuple[Rule, ...] = (
    (r"^text_model\.", ""),
    (r"^embeddings\.token_embedding\.", "token_embedding."),
    (r"^embeddings\.position_embedding\.weight$", "positional_embedding"),
    (r"^final_layer_norm\.", "ln_final."),
    (r"^encoder\.layers\.", "transformer.resblocks."),
    (r"\.layer_norm([12])\.", r".ln_\1."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
    (r"\.self_attn\.", ".attn."),
)


def _rename(name: str, rules: tuple[Rule, ...]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _unet(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    def rename(name: str) -> str:
        short = _rename(name, UNET)
        return _rename(short, RESNET) if ".attentions." not in name else short

    return {"model.diffusion_model." + rename(name): tensor for name, tensor in tensors.items()}


def _vae(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The attention is 1x1 convolutions there."""
    renamed = {"first_stage_model." + _rename(name, VAE): tensor for name, tensor in tensors.items()}
    return {
        name: tensor[:, :, None, None] if ".attn_1." in name and tensor.ndim == 2 else tensor
        for name, tensor in renamed.items()
    }


def _text(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Query, key and value are one; one more layer and the projection are there that the model does not use."""
    renamed = {_rename(name, TEXT): tensor for name, tensor in tensors.items() if not name.endswith("position_ids")}
    for name in [name for name in renamed if ".attn.q_proj." in name]:
        parts = [renamed.pop(name.replace("q_proj", f"{letter}_proj")) for letter in "qkv"]
        renamed[name.replace("q_proj.", "in_proj_")] = torch.cat(parts)
    layers = len({name.split(".")[2] for name in renamed if name.startswith("transformer.")})
    last = {name: tensor for name, tensor in renamed.items() if name.startswith(f"transformer.resblocks.{layers - 1}.")}
    unused = {name.replace(f".{layers - 1}.", f".{layers}.", 1): torch.randn_like(t) for name, t in last.items()}
    width = renamed["ln_final.weight"].shape[0]
    rest = {"text_projection": torch.empty(width, width), "logit_scale": torch.empty(())}
    return {"cond_stage_model.model." + name: tensor for name, tensor in {**renamed, **unused, **rest}.items()}


def single_file_tensors(parts: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a single file from its three models."""
    return {
        **_unet(parts["unet"].state_dict()),
        **_vae(parts["vae"].state_dict()),
        **_text(parts["text_encoder"].state_dict()),
    }
