"""Tiny, randomly initialised models in diffusers' folders: everything but good pictures."""

from __future__ import annotations

import json
from pathlib import Path

import diffusers
import torch
import transformers

CHUNK = 16
"""Tokens of a chunk of the tiny tokenizers, start and end included."""


def _byte_symbols() -> list[str]:
    """The characters that CLIP's byte-level vocabulary uses for the 256 bytes (GPT-2's encoder.py)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return [chr(byte) for byte in shown] + [chr(256 + index) for index in range(len(hidden))]


def make_tokenizer(folder: Path) -> transformers.CLIPTokenizer:
    symbols = _byte_symbols()
    entries = [*symbols, *(symbol + "</w>" for symbol in symbols), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({entry: index for index, entry in enumerate(entries)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return transformers.CLIPTokenizer(
        str(folder / "vocab.json"),
        str(folder / "merges.txt"),
        model_max_length=CHUNK,
        pad_token="<|endoftext|>",
    )


def _text_config(width: int) -> transformers.CLIPTextConfig:
    return transformers.CLIPTextConfig(
        vocab_size=514,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CHUNK,
        projection_dim=width,
        bos_token_id=512,
        eos_token_id=513,
        pad_token_id=513,
    )


def make_vae(channels: int = 4, scaling_factor: float = 0.18215, **options) -> diffusers.AutoencoderKL:
    return diffusers.AutoencoderKL(
        block_out_channels=(32, 32, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=channels,
        scaling_factor=scaling_factor,
        **options,
    )


def make_unet(
    channels: int = 4, inputs: int | None = None, width: int = 32, **options
) -> diffusers.UNet2DConditionModel:
    return diffusers.UNet2DConditionModel(
        in_channels=inputs or channels,
        out_channels=channels,
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        attention_head_dim=8,
        cross_attention_dim=width,
        sample_size=64,
        **options,
    )


def make_scheduler(prediction: str = "epsilon", **options) -> diffusers.EulerDiscreteScheduler:
    return diffusers.EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction,
        steps_offset=1,
        **options,
    )


def save_sd1(folder: Path, *, prediction: str = "epsilon", channels: int = 4, inputs: int | None = None) -> Path:
    """An SD 1.x-like model; `inputs` makes the UNet take more channels than it returns."""
    torch.manual_seed(0)
    diffusers.StableDiffusionImg2ImgPipeline(
        vae=make_vae(channels),
        text_encoder=transformers.CLIPTextModel(_text_config(32)),
        tokenizer=make_tokenizer(folder / "bytes"),
        unet=make_unet(channels, inputs),
        scheduler=make_scheduler(prediction),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def save_sdxl(folder: Path) -> Path:
    torch.manual_seed(0)
    diffusers.StableDiffusionXLImg2ImgPipeline(
        vae=make_vae(),
        text_encoder=transformers.CLIPTextModel(_text_config(32)),
        text_encoder_2=transformers.CLIPTextModelWithProjection(_text_config(32)),
        tokenizer=make_tokenizer(folder / "bytes"),
        tokenizer_2=make_tokenizer(folder / "bytes2"),
        unet=make_unet(
            width=64,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 32,
        ),
        scheduler=make_scheduler(),
    ).save_pretrained(folder)
    return folder


def save_controlnet(folder: Path, model_folder: Path, **options) -> Path:
    """A ControlNet for a tiny model whose last layers are not zero, as a fresh one's are: it changes the picture."""
    torch.manual_seed(1)
    unet = diffusers.UNet2DConditionModel.from_pretrained(model_folder / "unet")
    options = {"conditioning_embedding_out_channels": (8, 16, 24, 32), **options}
    controlnet = diffusers.ControlNetModel.from_unet(unet, **options)
    for name, parameter in controlnet.named_parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1 if name.endswith("weight") else 0.02)
    controlnet.save_pretrained(folder)
    return folder
