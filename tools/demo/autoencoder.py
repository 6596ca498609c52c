"""The demo model's autoencoder, while it learns from TAESD and as a host computes it.

Its layout is SD 1.x's, whose group norm divides by the deviation of a whole picture: what one corner holds would change
another, and flat areas would lose their colour. TAESD, which it learns from, has no norms. So it is trained with an
epsilon of 16 in every norm, which makes it nearly linear, and `folded` writes the same function with the epsilon of the
layout, 1e-6, by making the features smaller.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from tools.demo.networks import VAE_CONFIG

SOFT, LAYOUT = 16.0, 1e-6
"""Epsilon of the norms: while it is trained, and in the layout."""
GROUPS = 32
SCALE = 0.18215
SEALED = 20.0
"""Minus the logarithm of the posterior's variance: its draw is its mean."""
EMPTY = ("encoder.down_blocks.0.resnets.0", "decoder.up_blocks.3.resnets.1")
"""Blocks at the full size that add nothing: they cost the most and bring the least."""


@torch.no_grad()
def build() -> AutoencoderKL:
    """A new one, with the same weights each time. Odd channels begin as the negatives of the even ones before them, so
    that a group's mean is zero and subtracting it loses nothing."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        vae = AutoencoderKL(**VAE_CONFIG)
        for name, module in vae.named_modules():
            if isinstance(module, nn.GroupNorm):
                module.weight.fill_(SOFT**0.5)
            elif isinstance(module, nn.Conv2d):
                _start(name, module)
            elif name.endswith("to_out.0"):
                module.weight.zero_(), module.bias.zero_()
    for name in EMPTY:
        vae.get_submodule(f"{name}.conv2").weight.zero_()
    vae.post_quant_conv.weight.copy_(SCALE * torch.eye(4)[..., None, None])
    vae.quant_conv.weight.zero_(), vae.quant_conv.bias.zero_()
    vae.quant_conv.weight[:4, :4] = torch.eye(4)[..., None, None] / SCALE
    vae.quant_conv.bias[4:] = -SEALED
    return vae.to(memory_format=torch.channels_last)


def _start(name: str, conv: nn.Conv2d) -> None:
    gain = {"conv2": 0.3, "conv_out": 0.4}.get(name.rsplit(".", 1)[-1], 1.0)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="linear")
    conv.weight.mul_(gain)
    conv.bias.zero_()
    if not name.endswith(("conv_out", "quant_conv")):
        conv.weight[1::2] = -conv.weight[0::2]


def softened(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    """Group norm with the large epsilon, in single precision where it matters; the deviation has no gradient."""
    count, channels = x.shape[:2]
    mean = x.float().mean((2, 3)).view(count, GROUPS, -1).mean(2, keepdim=True)
    with torch.no_grad():
        square = x.detach().float().square().mean((2, 3)).view(count, GROUPS, -1).mean(2, keepdim=True)
        inverse = ((square - mean.square()).clamp(min=0) + SOFT).rsqrt()
    mean, inverse = (value.expand(count, GROUPS, channels // GROUPS).reshape(count, -1) for value in (mean, inverse))
    gain = inverse * norm.weight
    return x * gain[..., None, None].to(x.dtype) + (norm.bias - mean * gain)[..., None, None].to(x.dtype)


def _block(block: nn.Module, x: Tensor) -> Tensor:
    hidden = block.conv1(F.silu(softened(block.norm1, x)))
    hidden = block.conv2(F.silu(softened(block.norm2, hidden)))
    return (x if block.conv_shortcut is None else block.conv_shortcut(x)) + hidden


def _end(half: nn.Module, x: Tensor) -> Tensor:
    return half.conv_out(F.silu(softened(half.conv_norm_out, x)))


def encode(vae: AutoencoderKL, picture: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Latents with a deviation of about 1, of pictures in -1..1; and the features at a half, a quarter, an eighth."""
    encoder, features = vae.encoder, []
    x = encoder.conv_in(picture)
    for level, down in enumerate(encoder.down_blocks):
        if level:
            x = _block(down.resnets[0], x)
            features.append(x)
        if down.downsamplers:
            x = down.downsamplers[0].conv(F.pad(x, (0, 1, 0, 1)))
    for block in encoder.mid_block.resnets:
        x = _block(block, x)
    return vae.quant_conv(_end(encoder, x))[:, :4] * SCALE, features


def decode(vae: AutoencoderKL, latent: Tensor, levels: int = 4) -> tuple[Tensor | None, list[Tensor]]:
    """The picture in -1..1 (None where not every level is computed), and the features at an eighth, a quarter, ..."""
    decoder, features = vae.decoder, []
    x = decoder.conv_in(vae.post_quant_conv(latent / SCALE))
    for block in decoder.mid_block.resnets:
        x = _block(block, x)
    for level, up in enumerate(decoder.up_blocks[:levels]):
        for number, block in enumerate(up.resnets):
            if f"decoder.up_blocks.{level}.resnets.{number}" not in EMPTY:
                x = _block(block, x)
        features.append(x)
        if up.upsamplers and level < levels - 1:
            x = up.upsamplers[0].conv(F.interpolate(x, scale_factor=2, mode="nearest"))
    return (_end(decoder, x) if levels == 4 else None), features


def trained(vae: AutoencoderKL, half: str) -> list[nn.Parameter]:
    """The parameters of the encoder or the decoder that learn; attention stays silent."""
    quant = {"encoder": "quant_conv", "decoder": "post_quant_conv"}[half]
    return [
        parameter
        for name, parameter in vae.named_parameters()
        if name.startswith((half, quant)) and "attentions" not in name and not name.startswith(EMPTY)
    ]


def folded(vae: AutoencoderKL) -> AutoencoderKL:
    """The same function with the layout's epsilon: all features are smaller by one factor, which the norms undo."""
    return _scaled(vae, (LAYOUT / SOFT) ** 0.5)


def unfolded(vae: AutoencoderKL) -> AutoencoderKL:
    """The reverse: a finished one, to be trained further."""
    return _scaled(vae, (SOFT / LAYOUT) ** 0.5)


@torch.no_grad()
def _scaled(vae: AutoencoderKL, factor: float) -> AutoencoderKL:
    for name, module in vae.named_modules():
        if not isinstance(module, nn.Conv2d) or name.endswith(("conv_out", "quant_conv")):
            continue
        if name.endswith(("conv_in", "conv1", "conv2")):
            module.weight.mul_(factor)
        module.bias.mul_(factor)
    return vae
