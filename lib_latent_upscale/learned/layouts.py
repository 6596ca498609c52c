"""Latent upscalers that others have published, built from the names and shapes of the tensors in their files.

Each class is one layout. Widths and depths come from the tensors, so that variants can be read, too. The networks are
written from their authors' descriptions and the keys of their files:

- `Stacked`: city96/SD-Latent-Upscaler, convolutions after a nearest enlargement.
- `Embedded`: Ttl/ComfyUi_NNLatentUpscale and its fork for Flux, residual blocks with an embedding of the factor.
- `Gated`: LoganBooker/SesquiLSR, wide gated blocks before and after a learned resampling.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import partial
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib_latent_upscale.checkpoints import Shapes
from lib_latent_upscale.errors import ModelFileError

__all__ = ["Embedded", "Gated", "Stacked", "Unknown"]

Size: TypeAlias = tuple[int, int]


class Unknown(ModelFileError, LookupError):  # noqa: N818
    """The keys or shapes are not those of the layout."""


def _shape(shapes: Shapes, name: str, sides: int) -> tuple[int, ...]:
    """The shape of a tensor with `sides` dimensions.

    Raises:
        Unknown: there is no such tensor, or it has another number of dimensions.
    """
    found = shapes.get(name, ())
    if len(found) != sides:
        raise Unknown(name)
    return found


def _numbered(shapes: Shapes, before: str) -> list[int]:
    """The numbers that follow `before` in the keys, ascending."""
    found = (re.match(rf"{re.escape(before)}\.(\d+)\.", name) for name in shapes)
    return sorted({int(one[1]) for one in found if one})


def _counted(shapes: Shapes, before: str) -> list[int]:
    """The same, checked to be 0, 1, 2 and so on.

    Raises:
        Unknown: they are not, or there are none.
    """
    found = _numbered(shapes, before)
    if not found or found != list(range(len(found))):
        raise Unknown(before)
    return found


class Stacked(nn.Module):
    """A convolution, nearest enlargement, further convolutions; a ReLU after each but the last."""

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        places = _numbered(shapes, "sequential")
        if len(places) < 3 or places != [0, *range(4, 2 * len(places) + 1, 2)]:
            raise Unknown("sequential")
        weights = [_shape(shapes, f"sequential.{place}.weight", 4) for place in places]
        layers: list[nn.Module] = [nn.Identity() for _ in range(places[-1] + 1)]
        for place, (outward, inward, side, _) in zip(places, weights, strict=True):
            layers[place] = nn.Conv2d(inward, outward, side, padding=side // 2)
        self.sequential = nn.ModuleList(layers)
        self._places = places
        self.channels = weights[0][1]

    def forward(self, latent: Tensor, size: Size) -> Tensor:
        first, *others = (self.sequential[place] for place in self._places)
        features = F.interpolate(F.relu(first(latent)), size, mode="nearest")
        for number, convolution in enumerate(others, 1):
            features = convolution(features)
            features = features if number == len(others) else F.relu(features)
        return features


_GROUPS = 32


class _Residual(nn.Module):
    """A residual block to which the embedding of the factor is added."""

    def __init__(self, width: int, embedding: int, side: int) -> None:
        super().__init__()
        convolution = partial(nn.Conv2d, width, width, side, padding=side // 2)
        self.in_layers = nn.Sequential(nn.GroupNorm(_GROUPS, width), nn.SiLU(), convolution())
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, width))
        self.out_layers = nn.Sequential(nn.GroupNorm(_GROUPS, width), nn.SiLU(), nn.Identity(), convolution())

    def forward(self, features: Tensor, embedding: Tensor) -> Tensor:
        inner = self.in_layers(features) + self.emb_layers(embedding)[..., None, None]
        result: Tensor = features + self.out_layers(inner)
        return result


class _Attention(nn.Module):
    """Self-attention over all cells, with one head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(_GROUPS, width)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, features: Tensor, _embedding: Tensor) -> Tensor:
        normal = self.norm(features)
        lists = [part(normal).flatten(2).transpose(1, 2) for part in (self.q, self.k, self.v)]
        seen = F.scaled_dot_product_attention(*lists).transpose(1, 2).reshape(features.shape)
        result: Tensor = features + self.proj_out(seen)
        return result


class Embedded(nn.Module):
    """Blocks at the small size, bilinear enlargement of the features, blocks at the large size."""

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        width, self.channels, *_ = _shape(shapes, "conv_in.weight", 4)
        embedding = _shape(shapes, "embed.2.weight", 2)[0]
        if width % _GROUPS:
            raise Unknown("conv_in.weight")
        self.conv_in = nn.Conv2d(self.channels, width, 3, padding=1)
        self.embed = nn.Sequential(nn.Linear(1, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.in_blocks, self.out_blocks = (
            nn.ModuleList(_embedded_blocks(shapes, before, width, embedding)) for before in ("in_blocks", "out_blocks")
        )
        self.norm_out = nn.GroupNorm(_GROUPS, width)
        self.conv_out = nn.Conv2d(width, self.channels, 3, padding=1)

    def forward(self, latent: Tensor, size: Size) -> Tensor:
        factor = math.sqrt(math.prod(size) / math.prod(latent.shape[-2:]))
        embedding = self.embed(latent.new_tensor([[factor - 1]]))
        features = self.conv_in(latent)
        for block in self.in_blocks:
            features = block(features, embedding)
        features = F.interpolate(features, size, mode="bilinear", align_corners=False)
        for block in self.out_blocks:
            features = block(features, embedding)
        result: Tensor = self.conv_out(F.silu(self.norm_out(features)))
        return result


def _embedded_blocks(shapes: Shapes, before: str, width: int, embedding: int) -> Iterator[nn.Module]:
    for number in _counted(shapes, before):
        if f"{before}.{number}.q.weight" in shapes:
            yield _Attention(width)
        else:
            yield _Residual(width, embedding, _shape(shapes, f"{before}.{number}.in_layers.2.weight", 4)[-1])


_reflecting = partial(nn.Conv2d, padding_mode="reflect")


class _Normalised(nn.Module):
    """Features normalised to mean 0 and deviation 1 over the whole picture, with a weight for each channel.

    Returns them and the deviation that they had.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        variance, mean = torch.var_mean(features, (1, 2, 3), correction=0, keepdim=True)
        deviation = (variance + 1e-6).sqrt()
        return (features - mean) / deviation * self.weight[:, None, None], deviation


class _Wide(nn.Module):
    """A residual block that is wide inside; each gate controls several neighbouring channels."""

    def __init__(self, shapes: Shapes, name: str) -> None:
        super().__init__()
        hidden, width, *_ = _shape(shapes, f"{name}.up.weight", 4)
        middle, self.values, *_ = _shape(shapes, f"{name}.down.weight", 4)
        self.gates = hidden - self.values
        if self.gates < 1 or self.values % self.gates:
            raise Unknown(name)
        self.norm = _Normalised(width)
        self.up = nn.Conv2d(width, hidden, 1, bias=False)
        self.down = nn.Conv2d(self.values, middle, 1, bias=False)
        self.mix = _reflecting(middle, width, 3, padding=1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        even, deviation = self.norm(features)
        values, gates = self.up(even).split([self.values, self.gates], 1)
        open_ = torch.tanh(gates / 2).repeat_interleave(self.values // self.gates, 1)
        result: Tensor = features + self.mix(self.down(F.mish(values) * open_)) * deviation
        return result


class _Waves(nn.Module):
    """Sines and cosines of a position, at the frequencies in the file."""

    freqs: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        self.register_buffer("freqs", torch.zeros(count))

    def forward(self, position: Tensor) -> Tensor:
        angles = position[:, None] * self.freqs * math.pi
        return torch.cat([angles.sin(), angles.cos()], 1)


_NEIGHBOURS = (-1, 0, 1, 2)
_LARGEST_CHANGE = 0.2
"""The largest change of a tap's learned base."""


class _Resampled(nn.Module):
    """Enlarged twice by pixel shuffle, refined, then resampled to any size: each line is a sum of four neighbours.

    Their weights are a learned base plus a change, which a small network computes from the line's position between two
    lines. The filter is a weighted sum of `rank` separable ones.
    """

    def __init__(self, shapes: Shapes, name: str) -> None:
        super().__init__()
        rank, axes, width, taps = _shape(shapes, f"{name}.base_taps", 4)
        lifted = _shape(shapes, f"{name}.lift_expand.weight", 4)[0]
        inner, inputs = _shape(shapes, f"{name}.filter_net.0.weight", 2)
        waves = _shape(shapes, f"{name}.pe.freqs", 1)[0]
        embedded = [_shape(shapes, f"{name}.{one}_emb.weight", 2)[1] for one in ("axis", "rank")]
        if axes != 2 or taps != len(_NEIGHBOURS) or inputs != 2 * waves + 1 + sum(embedded):
            raise Unknown(name)
        self.ps_expand = nn.Conv2d(width, 4 * width, 1)
        self.lift_expand = nn.Conv2d(width, lifted, 1, bias=False)
        self.lift_mix = _reflecting(lifted // 4, width, 3, padding=1, bias=False)
        self.refine = _Wide(shapes, f"{name}.refine")
        self.base_taps = nn.Parameter(torch.zeros(rank, axes, width, taps))
        self.pe = _Waves(waves)
        self.axis_emb, self.rank_emb = nn.Embedding(axes, embedded[0]), nn.Embedding(rank, embedded[1])
        self.filter_net = nn.Sequential(nn.Linear(inputs, inner), nn.Mish(), nn.Linear(inner, width * taps))
        self.rank_gain = nn.Parameter(torch.zeros(rank))

    def forward(self, features: Tensor, size: Size) -> Tensor:
        twice = F.pixel_shuffle(self.ps_expand(features), 2)
        twice = self.refine(twice + self.lift_mix(F.pixel_shuffle(self.lift_expand(features), 2)))
        shares = self.rank_gain.sigmoid()
        return torch.stack([share * self._filtered(twice, size, rank) for rank, share in enumerate(shares)]).sum(0)

    def _filtered(self, features: Tensor, size: Size, rank: int) -> Tensor:
        for axis in (1, 0):
            features = self._along(features, axis, size[axis], rank)
        return features

    def _along(self, features: Tensor, axis: int, length: int, rank: int) -> Tensor:
        """`features` at another length down (axis 0) or across (axis 1)."""
        present = features.shape[axis + 2]
        centre = (torch.arange(length, device=features.device) + 0.5) * (present / length) - 0.5
        line = centre.floor().long().clamp(0, present - 1)
        taps = self._taps(centre - line, math.log2(present / length), axis, rank)  # (length, width, taps)
        result = torch.zeros(1, device=features.device)
        for number, offset in enumerate(_NEIGHBOURS):
            neighbours = features.index_select(axis + 2, (line + offset).clamp(0, present - 1))
            weights = taps[..., number].T
            result = result + neighbours * (weights[:, :, None] if axis == 0 else weights[:, None])
        return result

    def _taps(self, place: Tensor, shrinking: float, axis: int, rank: int) -> Tensor:
        known = [
            self.pe(place),
            place.new_full((len(place), 1), shrinking),
            self.axis_emb.weight[axis].expand(len(place), -1),
            self.rank_emb.weight[rank].expand(len(place), -1),
        ]
        base = self.base_taps[rank, axis]
        change = _LARGEST_CHANGE * torch.tanh(self.filter_net(torch.cat(known, 1)).view(len(place), *base.shape))
        result: Tensor = base + change - change.mean(-1, keepdim=True)
        return result


class Gated(nn.Module):
    """Gated blocks, learned resampling, gated blocks; the result is added to the bicubic enlargement."""

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        half, self.channels, *_ = _shape(shapes, "head_conv.0.weight", 4)
        width = _shape(shapes, "head_conv.2.weight", 4)[0]
        self.head_conv = nn.Sequential(
            _reflecting(self.channels, half, 3, padding=1, bias=False),
            nn.Mish(),
            _reflecting(half, width, 3, padding=1),
        )
        self.in_blocks, self.out_blocks = (
            nn.Sequential(*(_Wide(shapes, f"{before}.{number}") for number in _counted(shapes, before)))
            for before in ("in_blocks", "out_blocks")
        )
        self.upsample = _Resampled(shapes, "upsample")
        last = _shape(shapes, "tail_conv.0.weight", 4)[0]
        self.tail_conv = nn.Sequential(
            nn.Conv2d(width, last, 1, bias=False), nn.Mish(), _reflecting(last, self.channels, 3, padding=1)
        )
        self.skip_conv = _reflecting(self.channels, self.channels, 5, padding=2, bias=False)

    def forward(self, latent: Tensor, size: Size) -> Tensor:
        features = self.upsample(self.in_blocks(self.head_conv(latent)), size)
        found: Tensor = self.tail_conv(self.out_blocks(features))
        skipped: Tensor = self.skip_conv(F.interpolate(latent, size, mode="bicubic", align_corners=False))
        return found + skipped
