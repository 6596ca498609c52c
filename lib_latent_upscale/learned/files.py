"""The user's own latent upscalers: safetensors files in one of the layouts of `layouts.py`.

    upscale_with(path, latent, (height, width), family)     small latents -> large ones
    check_file(path, family)                                an error before any work, if that cannot be done

The keys and shapes in a file say which network it holds. The family of its latents, and the factor of a network that
has only one, are in the file's name as its author chose it; a file whose name says no family is used for every family
with that number of channels.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from lib_latent_upscale.checkpoints import PICKLES, Shapes, check_readable, short_hash
from lib_latent_upscale.errors import ModelFileError, SizeError
from lib_latent_upscale.learned.families import LATENTS
from lib_latent_upscale.learned.layouts import Embedded, Gated, Stacked, Unknown
from lib_latent_upscale.learned.networks import in_float32, load_network

__all__ = [
    "SUFFIX",
    "check_file",
    "check_kind",
    "check_size",
    "converted_pickle",
    "file_hash",
    "find_files",
    "upscale_with",
]

Size: TypeAlias = tuple[int, int]

SUFFIX = ".safetensors"

_SMALLEST_SIDE = 3
"""Cells; padding by reflection needs them."""


@dataclass(frozen=True)
class _Layout:
    """A published kind of upscaler."""

    title: str
    first: str
    """A key that only this kind has."""
    network: type[Stacked | Embedded | Gated]
    families: tuple[str, ...]
    """Families that it was published for."""
    inward: Callable[[Tensor, str], Tensor]
    """From the latents of a family, a name in `LATENTS`, to the network's input."""
    outward: Callable[[Tensor, str], Tensor]
    """From the network's output back to latents of the family."""
    largest: float = 2.0
    """The largest factor, if it can make any size."""
    fixed: bool = False
    """Whether it has only one factor, which the file's name says."""


def _raw(latent: Tensor, family: str) -> Tensor:
    return LATENTS[family].raw(latent)


def _own(raw: Tensor, family: str) -> Tensor:
    return LATENTS[family].own(raw)


_EMBEDDED_SCALES = {LATENTS[name].channels: LATENTS[name].scale for name in ("sdxl", "flux1")}
"""What NNLatentUpscale multiplies the autoencoder's output by, for each number of channels: SD 1.x has SDXL's scale,
and Flux no shift."""


def _scaled(latent: Tensor, family: str) -> Tensor:
    return _raw(latent, family) * _EMBEDDED_SCALES[LATENTS[family].channels]


def _unscaled(latent: Tensor, family: str) -> Tensor:
    return _own(latent / _EMBEDDED_SCALES[LATENTS[family].channels], family)


_LAYOUTS = (
    _Layout("SD-Latent-Upscaler", "sequential.0.weight", Stacked, ("sd1", "sdxl"), _raw, _own, fixed=True),
    _Layout("NNLatentUpscale", "conv_in.weight", Embedded, ("sd1", "sdxl", "flux1"), _scaled, _unscaled),
    _Layout("SesquiLSR", "head_conv.0.weight", Gated, ("sdxl", "flux1"), _raw, _own),
)

_NAMED: Mapping[str, str] = MappingProxyType(
    {
        r"flux[._-]?2": "Flux.2",
        r"flux": "flux1",
        r"wan|qwen": "Wan 2.1 and Qwen-Image",
        r"sd[._-]?3": "sd3",
        r"sd[._-]?xl|[._-]xl(?![a-z])": "sdxl",
        r"sd[._-]?v?[12](?!\d\d)": "sd1",
    }
)
"""Families in names of files: the first pattern that matches counts. Those not in `LATENTS` are not supported."""


@dataclass(frozen=True)
class _Described:
    """What a file says about itself."""

    layout: _Layout
    families: tuple[str, ...]
    """Families that it can be used for, names in `LATENTS`; none if its name says an unsupported one."""
    said: str
    """The same in words, for errors."""
    factor: float | None
    """Its only factor; None if it makes any size."""


def find_files(folders: Iterable[Path]) -> Mapping[str, Path]:
    """The files in folders by their names without the suffix, sorted; of two with one name, that of the first folder.

    Pickles are included, so that choosing one gives an error that says what to do; a safetensors file of the same name
    takes precedence.
    """
    found = [path for folder in folders for path in _files_in(folder)]
    wanted = sorted(found, key=lambda path: path.suffix.lower() != SUFFIX)
    named = {path.stem: path for path in reversed(wanted)}
    return {name: named[name] for name in sorted(named, key=str.lower)}


def _files_in(folder: Path) -> list[Path]:
    try:
        return [path for path in sorted(folder.iterdir()) if path.suffix.lower() in {SUFFIX, *PICKLES}]
    except OSError:  # no such folder, or none that may be read
        return []


def check_kind(path: Path) -> None:
    """Check that a file holds a supported latent upscaler, whatever its family; only its header is read.

    Raises:
        ModelFileError: it is a pickle, damaged, or of an unknown kind; says what to do.
    """
    _described(path, _stamp(path))


def check_file(path: Path, family: str | None) -> None:
    """Check that a file can enlarge latents of a family; only its header is read.

    Args:
        path: a safetensors file.
        family: a name in `LATENTS`; None for models with other latents.

    Raises:
        ModelFileError: it is a pickle, damaged, of an unknown kind, or for another family; says what to do.
    """
    _checked(path, family)


def check_size(path: Path, small: Size, size: Size) -> None:
    """Check that a file's network can enlarge one size to another; only its header is read.

    Args:
        path: a safetensors file.
        small, size: (height, width) in cells, before and after.

    Raises:
        ModelFileError: as for `check_file`.
        SizeError: it cannot; says which factors it makes.
    """
    if small != size:
        _check_size(path, _described(path, _stamp(path)), small, size)


def upscale_with(path: Path, latent: Tensor, size: Size, family: str | None) -> Tensor:
    """The latents of a larger picture, by the network in a file.

    Args:
        path: a safetensors file.
        latent: (batch, channels, height, width), as the denoising model sees it.
        size: (height, width) of the result in cells.
        family: model family of the latents, a name in `LATENTS`.

    Returns:
        (batch, channels, *size), the dtype and device of `latent`; computed in float32.

    Raises:
        ModelFileError: as for `check_file`; or the network returned values that are not numbers.
        SizeError: the network cannot make this size.
    """
    described, known = _checked(path, family)
    small = (latent.shape[-2], latent.shape[-1])
    if tuple(size) == small:
        return latent
    _check_size(path, described, small, size)
    return _run(path, described.layout, latent, (int(size[0]), int(size[1])), known)


def file_hash(path: Path) -> str:
    """The hash of a file, as written in infotexts; computed again only when the file changes.

    Raises:
        ModelFileError: there is no such file.
    """
    return _hash(path, _stamp(path))


def converted_pickle(source: Path) -> bytes:
    """The tensors of a pickle as the content of a safetensors file; torch reads nothing but tensors from it.

    Raises:
        ModelFileError: it does not hold named tensors only, or no supported upscaler.
    """
    tensors = {name: value.contiguous().clone() for name, value in _unpickled(source).items()}
    _recognised(source, {name: tuple(value.shape) for name, value in tensors.items()})
    from safetensors.torch import save

    content: bytes = save(tensors)
    return content


def _unpickled(path: Path) -> Mapping[str, Tensor]:
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:
        raise ModelFileError(
            f"{path.name} cannot be read as weights only, and nothing else is read from a pickle, since it could run "
            "code: it is damaged, or not a weights file"
        ) from error
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping) or not all(isinstance(one, Tensor) for one in found.values()):
        raise ModelFileError(f"{path.name} does not hold named tensors only: it is not a latent upscaler")
    return found


def _checked(path: Path, family: str | None) -> tuple[_Described, str]:
    described = _described(path, _stamp(path))
    if family not in described.families:
        model = "this model's, which none supports" if family is None else f"those of {LATENTS[family].title}"
        raise ModelFileError(
            f"{path.name} is for the latents of {described.said}, not for {model}: choose another file or method"
        )
    return described, str(family)


def _check_size(path: Path, described: _Described, small: Size, size: Size) -> None:
    """One small cell more or less counts as the same factor: a picture's last cells may be cut."""
    factor, largest = described.factor, described.layout.largest
    asked = f"{size[0]}x{size[1]} cells from {small[0]}x{small[1]}"
    if min(small) < _SMALLEST_SIDE:
        raise SizeError(f"{path.name} cannot enlarge {small[0]}x{small[1]} cells; each side needs {_SMALLEST_SIDE}")
    if factor is not None and any(abs(large - factor * one) > factor for large, one in zip(size, small, strict=True)):
        raise SizeError(
            f"{path.name} makes pictures {factor:g} times larger, but {asked} are requested: choose that size, or "
            "another file or method"
        )
    if factor is None and any(not one <= large <= largest * one + 1 for large, one in zip(size, small, strict=True)):
        raise SizeError(
            f"{path.name} makes pictures 1 to {largest:g} times larger, but {asked} are requested: choose such a "
            "size, or another file or method"
        )


def _stamp(path: Path) -> tuple[int, int]:
    """A file's time and size, which change when it is replaced.

    Raises:
        ModelFileError: there is no such file.
    """
    try:
        found = path.stat()
    except OSError:
        raise ModelFileError(f"{path} no longer exists: choose another file or method") from None
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=64)
def _described(path: Path, _: tuple[int, int]) -> _Described:
    if path.suffix.lower() in PICKLES:
        raise ModelFileError(
            f"{path.name} is a pickle, which could run code: convert it to a {SUFFIX} file with "
            f"`latent-upscale convert {path.name}`"
        )
    check_readable(path)
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"{path.name} is not a safetensors file, or it is damaged: download it again") from error
    layout, network = _recognised(path, shapes)
    return _with_name(path, layout, network.channels)


def _recognised(path: Path, shapes: Shapes) -> tuple[_Layout, Stacked | Embedded | Gated]:
    """The layout that these keys and shapes are, each and every one, and its network without weights."""
    try:
        layout = next(one for one in _LAYOUTS if one.first in shapes)
        network = _built(layout, shapes)
    except (StopIteration, Unknown, ValueError, RuntimeError) as error:  # torch's own words for sides that do not fit
        raise ModelFileError(
            f"{path.name} does not hold a supported latent upscaler; supported are those of "
            f"{', '.join(one.title for one in _LAYOUTS)}"
        ) from error
    return layout, network


def _built(layout: _Layout, shapes: Shapes) -> Stacked | Embedded | Gated:
    with torch.device("meta"):
        network = layout.network(shapes)
    if {name: tuple(value.shape) for name, value in network.state_dict().items()} != dict(shapes):
        raise Unknown(layout.title)
    return network


def _with_name(path: Path, layout: _Layout, channels: int) -> _Described:
    said = next((family for words, family in _NAMED.items() if re.search(words, path.stem, re.IGNORECASE)), None)
    able = tuple(name for name in layout.families if LATENTS[name].channels == channels)
    families = able if said is None else tuple(name for name in able if name == said)
    titles = [said] if said and said not in LATENTS else [LATENTS[one].title for one in ([said] if said else able)]
    return _Described(
        layout, families, " or ".join(titles) or f"a model with {channels} channels", _factor(path, layout)
    )


def _factor(path: Path, layout: _Layout) -> float | None:
    if not layout.fixed:
        return None
    found = re.search(r"x(\d+(?:\.\d+)?)$", path.stem)
    if found is None or not 1 < float(found[1]) <= 8:
        raise ModelFileError(
            f"{path.name} enlarges by one factor, given at the end of its name, as in -x1.5{SUFFIX}: give it its "
            "original name again"
        )
    return float(found[1])


def _run(path: Path, layout: _Layout, latent: Tensor, size: Size, family: str) -> Tensor:
    network = _network(path, _stamp(path), latent.device)
    result = in_float32(lambda values: layout.outward(network(layout.inward(values, family), size), family), latent)
    if not result.isfinite().all():
        raise ModelFileError(f"{path.name} gives values that are not numbers for these latents: choose another file")
    return result


@lru_cache(maxsize=1)
def _network(path: Path, _: tuple[int, int], device: torch.device) -> nn.Module:
    """The last one is kept: up to 25 MB."""
    return load_network(path, lambda shapes: _recognised(path, shapes)[1], device)


@lru_cache(maxsize=64)
def _hash(path: Path, _: tuple[int, int]) -> str:
    return short_hash(path)
