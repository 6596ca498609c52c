"""Enlarging (or shrinking) latents: one function and one row of `INTERPOLATIONS` per method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["INTERPOLATIONS", "interpolate_latent", "same_result"]

Size = tuple[int, int]
Interpolation = Callable[[Tensor, Size], Tensor]

_LANCZOS_LOBES = 3
_PARALLEL = 1 - 1e-5  # the cosine beyond which an arc is a straight line in float32


def _torch_resize(latent: Tensor, size: Size, *, mode: str, antialias: bool = False) -> Tensor:
    """`torch.nn.functional.interpolate`, on the CPU where the device has no kernel for the mode."""
    if antialias and size[1] == 1 < size[0]:
        # torch 2.15 on the CPU repeats the first row when the antialiased result is one cell wide.
        return _torch_resize(latent.mT, (1, size[0]), mode=mode, antialias=True).mT.contiguous()
    try:
        return F.interpolate(latent, size=size, mode=mode, antialias=antialias)
    except (NotImplementedError, RuntimeError):
        # Seen on Apple's MPS: no antialiased kernels, and `area` only where one size divides the other.
        if latent.device.type == "cpu":
            raise
        return F.interpolate(latent.cpu(), size=size, mode=mode, antialias=antialias).to(latent.device)


def _source_positions(source: int, target: int, like: Tensor) -> Tensor:
    """Where the middle of each target cell lies, counted in source cells (half-pixel centres)."""
    index = torch.arange(target, dtype=like.dtype, device=like.device)
    return (index + 0.5) * (source / target) - 0.5


def _lanczos_weights(source: int, target: int, like: Tensor) -> Tensor:
    """Rows of weights (target, source) that sum to 1; the window widens when shrinking (antialiasing)."""
    centre = _source_positions(source, target, like)[:, None]
    distance = (torch.arange(source, dtype=like.dtype, device=like.device) - centre) / max(source / target, 1.0)
    window = torch.where(distance.abs() < _LANCZOS_LOBES, torch.sinc(distance / _LANCZOS_LOBES), 0.0)
    weights = torch.sinc(distance) * window
    return weights / weights.sum(dim=1, keepdim=True)


def _lanczos(latent: Tensor, size: Size) -> Tensor:
    """Windowed sinc with three lobes, separable (Duchon 1979); at borders the window is cut and renormalised."""
    rows = _lanczos_weights(latent.shape[-2], size[0], latent)
    columns = _lanczos_weights(latent.shape[-1], size[1], latent)
    return rows @ (latent @ columns.T)


def _slerp(first: Tensor, second: Tensor, ratio: Tensor) -> Tensor:
    """Turn the channel vectors (dim 1) of `first` towards `second` along the arc; their lengths change linearly.

    Where there is no arc (parallel, opposite or zero vectors) the vectors are mixed linearly.
    """
    first_norm, second_norm = first.norm(dim=1, keepdim=True), second.norm(dim=1, keepdim=True)
    cosine = (first * second).sum(dim=1, keepdim=True) / (first_norm * second_norm)
    has_arc = cosine.abs() < _PARALLEL  # false for nan, too: a zero vector has no direction
    angle = torch.where(has_arc, cosine, 0.0).acos()
    length = torch.lerp(first_norm, second_norm, ratio) / angle.sin()
    first_weight = torch.where(has_arc, ((1 - ratio) * angle).sin() * length / first_norm, 1 - ratio)
    second_weight = torch.where(has_arc, (ratio * angle).sin() * length / second_norm, ratio)
    return first * first_weight + second * second_weight


def _slerp_axis(latent: Tensor, length: int, dim: int) -> Tensor:
    source = latent.shape[dim]
    position = _source_positions(source, length, latent).clamp(0, source - 1)
    lower = position.long()
    ratio = (position - lower).view([-1 if axis == dim else 1 for axis in range(4)])
    upper = (lower + 1).clamp(max=source - 1)
    return _slerp(latent.index_select(dim, lower), latent.index_select(dim, upper), ratio)


def _bislerp(latent: Tensor, size: Size) -> Tensor:
    """Spherical interpolation of the channel vectors, along the width, then along the height.

    The definition is ComfyUI's (`comfy/utils.py`, `bislerp`), except that nearly parallel vectors are mixed linearly
    there, too, instead of taking the first one.
    """
    return _slerp_axis(_slerp_axis(latent, size[1], dim=3), size[0], dim=2)


INTERPOLATIONS: Mapping[str, Interpolation] = MappingProxyType(
    {
        "nearest": partial(_torch_resize, mode="nearest"),
        "nearest-exact": partial(_torch_resize, mode="nearest-exact"),
        "area": partial(_torch_resize, mode="area"),
        "bilinear": partial(_torch_resize, mode="bilinear"),
        "bilinear-antialiased": partial(_torch_resize, mode="bilinear", antialias=True),
        "bicubic": partial(_torch_resize, mode="bicubic"),
        "bicubic-antialiased": partial(_torch_resize, mode="bicubic", antialias=True),
        "lanczos": _lanczos,
        "bislerp": _bislerp,
    }
)
"""Interpolations by name, in the order of the user interface. Each takes a float32 or float64 latent
(batch, channels, h, w) and (height, width), and returns (batch, channels, height, width)."""


def interpolate_latent(latent: Tensor, size: Size, method: str, *, keep_statistics: bool = False) -> Tensor:
    """Resize a latent with a method of `INTERPOLATIONS`.

    Args:
        latent: (batch, channels, h, w), any float dtype and device; need not be contiguous.
        size: height and width in latent cells (one cell is 8 pixels for Stable Diffusion).
        method: a name in `INTERPOLATIONS`.
        keep_statistics: give each channel of each sample the mean and standard deviation that it had before.
            What interpolation loses in variance is seen as blur.

    Returns:
        A new tensor (batch, channels, height, width) of the same dtype on the same device. At the latent's own size
        its values are the latent's, whatever the method. 16-bit latents are computed in float32.

    Raises:
        ValueError: the method is unknown, the latent is not a 4-D float tensor with at least one cell, or a side of
            the size is not a positive integer.
    """
    _check(latent, size, method)
    if tuple(latent.shape[-2:]) == tuple(size):
        return latent.clone()
    source = latent if latent.dtype == torch.float64 else latent.float()
    result = INTERPOLATIONS[method](source, size)
    if keep_statistics:
        result = _with_statistics_of(source, result)
    return result.to(latent.dtype)


def _with_statistics_of(source: Tensor, result: Tensor) -> Tensor:
    std, mean = torch.std_mean(source, dim=(-2, -1), correction=0, keepdim=True)
    result_std, result_mean = torch.std_mean(result, dim=(-2, -1), correction=0, keepdim=True)
    scale = torch.where(result_std > 0, std / result_std, 1.0)
    return (result - result_mean) * scale + mean


def _check(latent: Tensor, size: Size, method: str) -> None:
    _check_method(method)
    if not isinstance(latent, Tensor) or latent.dim() != 4 or not latent.is_floating_point():
        given = f"{latent.dtype} {tuple(latent.shape)}" if isinstance(latent, Tensor) else type(latent).__name__
        raise ValueError(f"latent is {given}; a float tensor (batch, channels, height, width) is needed")
    if latent.numel() == 0:
        raise ValueError(f"latent of shape {tuple(latent.shape)} is empty; at least 1 channel and 1x1 cells are needed")
    if len(size) != 2 or not all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in size):
        raise ValueError(f"size {size!r} is not (height, width) in latent cells; both must be integers of at least 1")


def _check_method(method: str) -> None:
    if method not in INTERPOLATIONS:
        raise ValueError(f"unknown interpolation method {method!r}; choose one of: {', '.join(INTERPOLATIONS)}")


_BLOCKS = frozenset({"nearest", "nearest-exact", "area"})


def same_result(first: str, second: str, source: Size, target: Size) -> bool:
    """Whether two methods give bit-identical latents when resizing from `source` to `target` (height, width).

    Comparing such a pair compares nothing: every method keeps the values at the same size, and nearest,
    nearest-exact and area all repeat each cell when both sides grow by integer factors. When enlarging, the two
    bilinear methods are the same formula but differ by float rounding, so they do not count as identical.

    Raises:
        ValueError: one of the methods is unknown.
    """
    for method in (first, second):
        _check_method(method)
    if first == second or tuple(source) == tuple(target):
        return True
    whole = all(new % old == 0 for old, new in zip(source, target, strict=True))
    return whole and {first, second} <= _BLOCKS
