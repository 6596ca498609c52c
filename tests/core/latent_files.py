"""Files of latent upscalers in the published layouts, with random numbers in them; keys and shapes are written out."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

WIDTH = 32


def _drawn(shapes: Mapping[str, tuple[int, ...]], seed: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) * 0.1 for name, shape in shapes.items()}


def _convolution(name: str, outward: int, inward: int, side: int, bias: bool = True) -> dict[str, tuple[int, ...]]:
    weights = {f"{name}.weight": (outward, inward, side, side)}
    return {**weights, f"{name}.bias": (outward,)} if bias else weights


def city96(channels: int = 4, depth: int = 3) -> dict[str, Tensor]:
    shapes = _convolution("sequential.0", WIDTH, channels, 3)
    for place in range(4, 4 + 2 * depth, 2):
        shapes |= _convolution(f"sequential.{place}", WIDTH, WIDTH, 3)
    return _drawn({**shapes, **_convolution(f"sequential.{4 + 2 * depth}", channels, WIDTH, 3)})


def _told(name: str) -> dict[str, tuple[int, ...]]:
    normal = {
        f"{name}.{part}.0.{kind}": (WIDTH,) for part in ("in_layers", "out_layers") for kind in ("weight", "bias")
    }
    return {
        **normal,
        **_convolution(f"{name}.in_layers.2", WIDTH, WIDTH, 3),
        f"{name}.emb_layers.1.weight": (WIDTH, 8),
        f"{name}.emb_layers.1.bias": (WIDTH,),
        **_convolution(f"{name}.out_layers.3", WIDTH, WIDTH, 3),
    }


def _attending(name: str) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {f"{name}.norm.weight": (WIDTH,), f"{name}.norm.bias": (WIDTH,)}
    for part in ("q", "k", "v", "proj_out"):
        shapes |= _convolution(f"{name}.{part}", WIDTH, WIDTH, 1)
    return shapes


def nnlatent(channels: int = 4) -> dict[str, Tensor]:
    shapes = _convolution("conv_in", WIDTH, channels, 3)
    shapes |= {"embed.0.weight": (8, 1), "embed.0.bias": (8,), "embed.2.weight": (8, 8), "embed.2.bias": (8,)}
    for side in ("in_blocks", "out_blocks"):
        shapes |= {**_told(f"{side}.0"), **_attending(f"{side}.1"), **_told(f"{side}.2")}
    shapes |= {"norm_out.weight": (WIDTH,), "norm_out.bias": (WIDTH,)}
    return _drawn({**shapes, **_convolution("conv_out", channels, WIDTH, 3)})


def _wide(name: str, values: int = 32, gates: int = 4) -> dict[str, tuple[int, ...]]:
    return {
        f"{name}.norm.weight": (WIDTH,),
        **_convolution(f"{name}.up", values + gates, WIDTH, 1, bias=False),
        **_convolution(f"{name}.down", 24, values, 1, bias=False),
        **_convolution(f"{name}.mix", WIDTH, 24, 3, bias=False),
    }


def sesqui(channels: int = 4) -> dict[str, Tensor]:
    shapes = {
        **_convolution("head_conv.0", 16, channels, 3, bias=False),
        **_convolution("head_conv.2", WIDTH, 16, 3),
        **_wide("in_blocks.0"),
        **_wide("in_blocks.1"),
        **_convolution("upsample.ps_expand", 4 * WIDTH, WIDTH, 1),
        **_convolution("upsample.lift_expand", 64, WIDTH, 1, bias=False),
        **_convolution("upsample.lift_mix", WIDTH, 16, 3, bias=False),
        **_wide("upsample.refine"),
        "upsample.base_taps": (2, 2, WIDTH, 4),
        "upsample.pe.freqs": (4,),
        "upsample.axis_emb.weight": (2, 8),
        "upsample.rank_emb.weight": (2, 8),
        "upsample.filter_net.0.weight": (64, 25),
        "upsample.filter_net.0.bias": (64,),
        "upsample.filter_net.2.weight": (4 * WIDTH, 64),
        "upsample.filter_net.2.bias": (4 * WIDTH,),
        "upsample.rank_gain": (2,),
        **_wide("out_blocks.0"),
        **_convolution("tail_conv.0", 16, WIDTH, 1, bias=False),
        **_convolution("tail_conv.2", channels, 16, 3),
        **_convolution("skip_conv", channels, channels, 5, bias=False),
    }
    return _drawn(shapes)


def saved(tensors: Mapping[str, Tensor], path: Path) -> Path:
    """The numbers as a safetensors file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(dict(tensors), path)
    return path
