"""The networks whose weights come with the package, as functions of latents."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from lib_latent_upscale.checkpoints import short_hash
from lib_latent_upscale.errors import SizeError
from lib_latent_upscale.learned.families import LATENTS, Family
from lib_latent_upscale.learned.networks import Enlarge, Restore, in_float32, load_network

__all__ = ["FAMILIES", "LARGEST_FACTOR", "Family", "Kind", "knows", "restore_latent", "upscale_latent", "weights_hash"]

Kind: TypeAlias = Literal["restore", "enlarge"]

LARGEST_FACTOR = 4.0
"""The networks were trained up to this factor."""

WEIGHTS = Path(__file__).parents[1] / "weights" / "learned"


_NETWORKS: Mapping[Kind, type[Restore] | type[Enlarge]] = MappingProxyType({"restore": Restore, "enlarge": Enlarge})


def knows(kind: str, family: str) -> bool:
    """Whether there is a network of this kind for a family's latents: its weights are in the package."""
    return _file(kind, family).is_file()


def _file(kind: str, family: str) -> Path:
    return WEIGHTS / f"{kind}-{family}.safetensors"


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {name: one for name, one in LATENTS.items() if any(knows(kind, name) for kind in _NETWORKS)}
)
"""Families with at least one network. Latents are as the denoising model sees them, with a deviation of about 1."""


def restore_latent(latent: Tensor, factor: float, family: str) -> Tensor:
    """The latents of a resized picture, made as sharp as those of a picture of that size.

    Args:
        latent: (batch, channels, height, width), of the picture that was enlarged and then encoded.
        factor: how many times it was enlarged, the geometric mean of both sides; up to 1 nothing is changed, and
            above `LARGEST_FACTOR` it counts as that.
        family: a name in `FAMILIES`.

    Returns:
        Latents of the same shape, dtype and device; computed in float32.

    Raises:
        ValueError: an unknown family, a shape that does not fit it, or a factor that is not a positive number.
    """
    _check("restore", latent, family)
    if not (math.isfinite(factor) and factor > 0):
        raise ValueError(f"factor is {factor!r}; a positive number is needed")
    if factor <= 1:
        return latent
    return _run("restore", latent, family, min(float(factor), LARGEST_FACTOR))


def upscale_latent(latent: Tensor, size: tuple[int, int], family: str) -> Tensor:
    """The latents of a larger picture of exactly the given size, in one pass.

    Args:
        latent: (batch, channels, height, width).
        size: (height, width) of the result in cells, each 1 to `LARGEST_FACTOR` times the latent's.
        family: a name in `FAMILIES`.

    Returns:
        (batch, channels, *size), the dtype and device of `latent`; computed in float32.

    Raises:
        ValueError: an unknown family, or a shape that does not fit it.
        SizeError: a size that is smaller or too large.
    """
    _check("enlarge", latent, family)
    small = (latent.shape[-2], latent.shape[-1])
    if tuple(size) == small:
        return latent
    if any(not one <= asked <= LARGEST_FACTOR * one for asked, one in zip(size, small, strict=True)):
        raise SizeError(
            f"size is {size[0]}x{size[1]} cells for a latent of {small[0]}x{small[1]}; the learned upscaler makes each "
            f"side 1 to {LARGEST_FACTOR:g} times as long: choose another size or another method"
        )
    return _run("enlarge", latent, family, (int(size[0]), int(size[1])))


def weights_hash(kind: Kind, family: str) -> str:
    """The hash of a network's file, as written in infotexts."""
    return short_hash(_file(kind, family))


def _check(kind: Kind, latent: Tensor, family: str) -> None:
    known = [name for name in FAMILIES if knows(kind, name)]
    if family not in known:
        raise ValueError(f"family is {family!r}; choose one of: {', '.join(known)}")
    channels = FAMILIES[family].channels
    if latent.ndim != 4 or latent.shape[1] != channels or not latent.is_floating_point():
        raise ValueError(
            f"latent is {tuple(latent.shape)}, {latent.dtype}; latents of {FAMILIES[family].title} are floating-point "
            f"numbers in (batch, {channels}, height, width)"
        )


def _run(kind: Kind, latent: Tensor, family: str, told: float | tuple[int, int]) -> Tensor:
    network = _network(kind, family, latent.device)
    return in_float32(lambda values: network(values, told), latent)


@cache
def _network(kind: Kind, family: str, device: torch.device) -> nn.Module:
    """Read when first used, and kept: 3 MB each."""
    return load_network(_file(kind, family), lambda _: _NETWORKS[kind](FAMILIES[family].channels), device)
