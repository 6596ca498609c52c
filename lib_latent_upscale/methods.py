"""The ways from a picture to the enlarged latents that are then denoised, interpolations and others.

Interpolations work on the small picture's latents. The others are rows of `METHODS`: which picture is encoded for
them, and what is done to its latents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor

from lib_latent_upscale.errors import InputError
from lib_latent_upscale.interpolation import INTERPOLATIONS, interpolate_latent, same_result
from lib_latent_upscale.learned import (
    FAMILIES,
    LATENTS,
    knows,
    restore_latent,
    upscale_latent,
    upscale_with,
    weights_hash,
)
from lib_latent_upscale.learned.files import check_file, file_hash
from lib_latent_upscale.learned.upscalers import LARGEST_FACTOR
from lib_latent_upscale.method_files import FILES
from lib_latent_upscale.options import AUTOMATIC

__all__ = [
    "METHODS",
    "Enlargement",
    "Method",
    "check_family",
    "enlarge",
    "method_named",
    "other_weights",
    "resolved_method",
    "same_method",
    "weights_of",
]

Size = tuple[int, int]


@dataclass(frozen=True)
class Enlargement:
    """What a method is told besides the latent."""

    source: tuple[float, float]
    """(height, width) of the small picture in latent cells, broken ones too."""
    target: Size
    """(height, width) of the result in latent cells."""
    family: str | None
    """Whose latents they are, a name in `learned.LATENTS`; None for all others."""
    keep_statistics: bool = False
    file: Path | None = None
    """Of the person's own network, where the method names one."""

    @property
    def factor(self) -> float:
        """How many times larger, in the mean of both sides."""
        return math.sqrt(math.prod(self.target) / math.prod(self.source))


@dataclass(frozen=True)
class Method:
    """One way to enlarge."""

    apply: Callable[[Tensor, Enlargement], Tensor]
    """Makes the enlarged latents from the encoded ones."""
    summary: str
    """One line for people who choose."""
    resizes_picture: bool = False
    """Whether the picture itself is resized before it is encoded, so that the latents have their size already."""
    network: str = ""
    """Which of the learned networks it needs: "restore", "enlarge", "file" for the person's own, or none."""


def _interpolated(latent: Tensor, asked: Enlargement, name: str) -> Tensor:
    return interpolate_latent(latent, asked.target, name, keep_statistics=asked.keep_statistics)


def _learned(latent: Tensor, asked: Enlargement, family: str) -> Tensor:
    """By a network as far as it reaches (a small masked region is enlarged more), the rest by interpolation."""
    small = (latent.shape[-2], latent.shape[-1])
    reached = [
        max(one, min(wanted, int(LARGEST_FACTOR * one))) for one, wanted in zip(small, asked.target, strict=True)
    ]
    made = upscale_latent(latent, (reached[0], reached[1]), family)
    return interpolate_latent(made, asked.target, "bicubic-antialiased")


def _by_file(latent: Tensor, asked: Enlargement, method: str) -> Tensor:
    return upscale_with(_given_file(method, asked.file), latent, asked.target, asked.family)


def _given_file(method: str, file: Path | None) -> Path:
    if file is None:
        raise InputError(f"method is {method!r}, and there is no such file: choose another method")
    return file


def _unresolved(_: Tensor, __: Enlargement) -> Tensor:
    raise InputError(f"method is {AUTOMATIC!r}: UpscaleSettings.resolved says which one that is here")


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "automatic": Method(_unresolved, "learned if a network knows the latents, else pixels"),
        "pixels": Method(lambda latent, _: latent, "the picture is resized and encoded: Just resize", True),
        "learned": Method(
            lambda latent, asked: restore_latent(latent, asked.factor, check_family("learned", asked.family)),
            "the picture is resized and encoded, and a network makes its latents crisp",
            True,
            "restore",
        ),
        "learned-latent": Method(
            lambda latent, asked: _learned(latent, asked, check_family("learned-latent", asked.family)),
            "a network enlarges the small latents",
            network="enlarge",
        ),
    }
)
"""Methods besides the interpolations, by name."""


def resolved_method(method: str, family: str | None, factor: float) -> str:
    """The method that runs: another than the asked one where that is "automatic".

    That is "learned" where a network knows the latents, else "pixels": at no denoising strength was an interpolation
    clearly nearer to the original (docs/evidence.md). Pictures that are not enlarged are resized, too.

    Args:
        method: as asked for.
        family: whose latents they are, a name in `learned.LATENTS`; None for all others.
        factor: how many times larger the result is, in the mean of both sides.
    """
    if method != AUTOMATIC:
        return method
    return "learned" if factor > 1 and family is not None and knows("restore", family) else "pixels"


def method_named(name: str) -> Method:
    """The row of a method; an interpolation's is made on the spot.

    Raises:
        ValueError: a name that is neither in `METHODS` nor in `INTERPOLATIONS`, nor that of a file; they are listed.
    """
    if name in METHODS:
        return METHODS[name]
    if FILES.holds(name):
        by_file = partial(_by_file, method=name)
        return Method(by_file, "the person's own network enlarges the small latents", network="file")
    if name not in INTERPOLATIONS:
        raise InputError(f"method is {name!r}; choose one of: {', '.join([*INTERPOLATIONS, *METHODS, FILES.text])}")
    return Method(partial(_interpolated, name=name), "interpolation of the small latents")


def enlarge(method: str, latent: Tensor, asked: Enlargement) -> Tensor:
    """The enlarged latents.

    Args:
        method: a name in `METHODS` or `INTERPOLATIONS`.
        latent: (batch, channels, h, w); of the resized picture where `method_named(method).resizes_picture`.
        asked: sizes and what else the method needs.

    Raises:
        ValueError: an unknown method, or one without a network for these latents.
    """
    return method_named(method).apply(latent, asked)


def check_family(method: str, family: str | None) -> str:
    """The family itself, where the network of a method knows its latents.

    Raises:
        ValueError: it does not; says which it knows and what to do.
    """
    kind = METHODS[method].network
    if family is None or not knows(kind, family):
        known = ", ".join(one.title for name, one in FAMILIES.items() if knows(kind, name))
        own = LATENTS.get(family or "")
        model = "this model's" if own is None else f"those of {own.title}"
        raise InputError(f"method is {method!r}; it knows the latents of {known}, not {model}: choose another method")
    return family


def weights_of(method: str, family: str | None, file: Path | None = None) -> str:
    """The hash of the weights that a method uses, for the infotext; empty where it uses none.

    Raises:
        ValueError: no network knows the latents, or a file cannot be used for them; nothing but its header was read.
    """
    network = method_named(method).network
    if network == "file":
        path = _given_file(method, file)
        check_file(path, family)
        return file_hash(path)
    return weights_hash(network, check_family(method, family)) if network else ""  # type: ignore[arg-type]


def other_weights(written: str, method: str, file: Path | None = None) -> list[str]:
    """A sentence where a method's weights are not those that made a picture; none where they are, or it uses none.

    Args:
        written: the hash in the picture's infotext; empty where there is none.
        method: a name; one that is not known uses none.
        file: of the person's own, which takes the method's place.
    """
    if not written:
        return []
    known: set[str] = set()
    if file is not None:
        known = {file_hash(file)}
    elif method in METHODS and METHODS[method].network:
        kind: Any = METHODS[method].network
        known = {weights_hash(kind, family) for family in FAMILIES if knows(kind, family)}
    if not known or written in known:
        return []
    return [f"it was made with the weights {written}; those here are {', '.join(sorted(known))}."]


def same_method(first: str, second: str, source: Size, target: Size) -> bool:
    """Whether two methods give bit-identical latents, see `same_result`."""
    if first not in INTERPOLATIONS or second not in INTERPOLATIONS:
        return first == second
    return same_result(first, second, source, target)
