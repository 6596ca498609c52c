"""The upscale methods: interpolations of the small picture's latents, and the rows of `METHODS`.

A row says whether the small picture or the resized one is encoded, and what is done to its latents.
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
    """What a method needs besides the latent."""

    source: tuple[float, float]
    """(height, width) of the small picture in latent cells; may be fractions."""
    target: Size
    """(height, width) of the result in latent cells."""
    family: str | None
    """Model family of the latents, a name in `learned.LATENTS`; None for all others."""
    keep_statistics: bool = False
    file: Path | None = None
    """The user's own network, if the method names one."""

    @property
    def factor(self) -> float:
        """Scale factor, the geometric mean of both sides."""
        return math.sqrt(math.prod(self.target) / math.prod(self.source))


@dataclass(frozen=True)
class Method:
    """An upscale method."""

    apply: Callable[[Tensor, Enlargement], Tensor]
    """Encoded latents to enlarged ones."""
    summary: str
    """One line for users who choose a method."""
    resizes_picture: bool = False
    """Whether the picture is resized before it is encoded, so that its latents already have the target size."""
    network: str = ""
    """The network that it needs: "restore", "enlarge", "file" for the user's own; empty for none."""


def _interpolated(latent: Tensor, asked: Enlargement, name: str) -> Tensor:
    return interpolate_latent(latent, asked.target, name, keep_statistics=asked.keep_statistics)


def _learned(latent: Tensor, asked: Enlargement, family: str) -> Tensor:
    """By the network up to its largest factor, the rest by interpolation: a small masked region needs more."""
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
    """The method that runs: `method` itself, unless it is "automatic".

    Automatic is "learned" if a network knows the latents, else "pixels": at no denoising strength was an interpolation
    clearly closer to the original (docs/evidence.md). It is also "pixels" if the picture is not enlarged.

    Args:
        method: the requested one.
        family: model family of the latents, a name in `learned.LATENTS`; None for all others.
        factor: scale factor, the geometric mean of both sides.
    """
    if method != AUTOMATIC:
        return method
    return "learned" if factor > 1 and family is not None and knows("restore", family) else "pixels"


def method_named(name: str) -> Method:
    """The row of a method; those of interpolations and of files are made here.

    Raises:
        InputError: an unknown name; lists the known ones.
    """
    if name in METHODS:
        return METHODS[name]
    if FILES.holds(name):
        by_file = partial(_by_file, method=name)
        return Method(by_file, "the user's own network enlarges the small latents", network="file")
    if name not in INTERPOLATIONS:
        raise InputError(f"method is {name!r}; choose one of: {', '.join([*INTERPOLATIONS, *METHODS, FILES.text])}")
    return Method(partial(_interpolated, name=name), "interpolation of the small latents")


def enlarge(method: str, latent: Tensor, asked: Enlargement) -> Tensor:
    """The enlarged latents, (batch, channels, *asked.target).

    Args:
        method: a name in `METHODS` or `INTERPOLATIONS`, or that of a file.
        latent: (batch, channels, height, width); of the resized picture if the method has `resizes_picture`.
        asked: the sizes, and whatever else the method needs.

    Raises:
        ValueError: an unknown method, or one that has no network for these latents.
    """
    return method_named(method).apply(latent, asked)


def check_family(method: str, family: str | None) -> str:
    """`family`, checked: the network of a method knows its latents.

    Raises:
        InputError: it does not; lists the families that it knows.
    """
    kind = METHODS[method].network
    if family is None or not knows(kind, family):
        known = ", ".join(one.title for name, one in FAMILIES.items() if knows(kind, name))
        own = LATENTS.get(family or "")
        model = "this model's" if own is None else f"those of {own.title}"
        raise InputError(f"method is {method!r}; it knows the latents of {known}, not {model}: choose another method")
    return family


def weights_of(method: str, family: str | None, file: Path | None = None) -> str:
    """The hash of the weights that a method uses, for the infotext; empty if it uses none.

    Of a file of the user's own only the header is checked.

    Raises:
        InputError: no network knows the latents, or the file cannot be used for them.
    """
    network = method_named(method).network
    if network == "file":
        path = _given_file(method, file)
        check_file(path, family)
        return file_hash(path)
    return weights_hash(network, check_family(method, family)) if network else ""  # type: ignore[arg-type]


def other_weights(written: str, method: str, file: Path | None = None) -> list[str]:
    """A sentence for the user if a method's weights are not those that made a picture; otherwise nothing.

    Args:
        written: the hash in the picture's infotext; empty if it has none.
        method: any name; unknown methods use no weights.
        file: the user's own network, which is used instead of the method's.
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
    """Whether two methods give bit-identical latents for these sizes (height, width); see `same_result`."""
    if first not in INTERPOLATIONS or second not in INTERPOLATIONS:
        return first == second
    return same_result(first, second, source, target)
