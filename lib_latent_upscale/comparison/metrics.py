"""Metrics of upscaled pictures, and where several of them differ most.

The metrics are those of scikit-image and, for one of them, piq; both are imported when something is measured.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lib_latent_upscale.errors import InputError

__all__ = ["Box", "Metrics", "ReferenceMetrics", "choose_crops", "difference_map", "measure", "plain_resize"]

Box = tuple[int, int, int, int]
"""left, top, right, bottom in pixels, as in Pillow."""

_Values = NDArray[np.float64]


def plain_resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture resized to `size` (width, height) without any model: Lanczos."""
    return image.resize(size, Image.Resampling.LANCZOS)


@dataclass(frozen=True)
class ReferenceMetrics:
    """How close a result is to a known original."""

    psnr: float
    """Decibels; higher is closer."""
    ssim: float
    """Structural similarity, up to 1."""
    gmsd: float | None
    """Gradient magnitude similarity deviation; lower is closer. None without the package piq."""


@dataclass(frozen=True)
class Metrics:
    """Metrics of one result."""

    sharpness: float
    """Gradient energy relative to that of the plain resize: above 1 is sharper; noise counts, too."""
    faithful_psnr: float
    """PSNR in decibels of the result, shrunk to the input's size, and the input; higher is more faithful."""
    faithful_ssim: float
    """Structural similarity of the same pair, up to 1."""
    colour_shift: float
    """Mean CIEDE2000 difference of the same pair; 1 is just noticeable."""
    seconds: float | None = None
    """Time of the variant, without the work that all variants share."""
    reference: ReferenceMetrics | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; infinite ones (identical pictures) become None."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    def lines(self) -> list[str]:
        """Short lines for users."""
        lines = [
            f"sharpness {self.sharpness:.2f} (picture resized: 1)",
            f"shrunk, compared with the input: {_decibel(self.faithful_psnr)}, SSIM {self.faithful_ssim:.3f}",
            f"colour shift {self.colour_shift:.2f} (CIEDE2000, 1 is just visible)",
        ]
        if self.reference is not None:
            gmsd = "" if self.reference.gmsd is None else f", GMSD {self.reference.gmsd:.3f}"
            original = f"{_decibel(self.reference.psnr)}, SSIM {self.reference.ssim:.3f}{gmsd}"
            lines.append(f"compared with the original: {original}")
        return lines


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _decibel(value: float) -> str:
    return f"{value:.1f} dB" if math.isfinite(value) else "exact"


def measure(
    result: Image.Image,
    source: Image.Image,
    *,
    seconds: float | None = None,
    reference: Image.Image | None = None,
) -> Metrics:
    """Measure a result.

    Args:
        result: the upscaled picture.
        source: the picture that it was made from.
        seconds: time that it took.
        reference: the known original, at the size of the result.

    Raises:
        InputError: the reference has another size.
        ImportError: scikit-image is missing.
    """
    result, source = result.convert("RGB"), source.convert("RGB")
    shrunk = result.resize(source.size, Image.Resampling.BOX)
    return Metrics(
        sharpness=_gradient_energy(result) / max(_gradient_energy(plain_resize(source, result.size)), 1e-12),
        faithful_psnr=_psnr(source, shrunk),
        faithful_ssim=_ssim(source, shrunk),
        colour_shift=_colour_shift(source, shrunk),
        seconds=seconds,
        reference=None if reference is None else _against(reference.convert("RGB"), result),
    )


def _against(reference: Image.Image, result: Image.Image) -> ReferenceMetrics:
    if reference.size != result.size:
        raise InputError(
            f"the reference is {reference.width}x{reference.height} and the result {result.width}x{result.height}; "
            "they must have the same size"
        )
    return ReferenceMetrics(_psnr(reference, result), _ssim(reference, result), _gmsd(reference, result))


def _array(image: Image.Image) -> _Values:
    return np.asarray(image, dtype=np.float64) / 255


def _gradient_energy(image: Image.Image) -> float:
    from skimage.filters import sobel

    return float(np.mean(sobel(_array(image.convert("L"))) ** 2))


def _psnr(first: Image.Image, second: Image.Image) -> float:
    from skimage.metrics import peak_signal_noise_ratio

    with np.errstate(divide="ignore"):
        return float(peak_signal_noise_ratio(_array(first), _array(second), data_range=1))


def _ssim(first: Image.Image, second: Image.Image) -> float:
    """Mean over RGB with a Gaussian window (Wang et al. 2004); a smaller window for pictures below 11 pixels."""
    from skimage.metrics import structural_similarity

    gaussian = min(first.size) >= 11
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False} if gaussian else {"win_size": 3}
    return float(structural_similarity(_array(first), _array(second), data_range=1, channel_axis=-1, **options))


def _colour_shift(first: Image.Image, second: Image.Image) -> float:
    from skimage.color import deltaE_ciede2000, rgb2lab

    return float(np.mean(deltaE_ciede2000(rgb2lab(_array(first)), rgb2lab(_array(second)))))


def _gmsd(first: Image.Image, second: Image.Image) -> float | None:
    """GMSD (Xue et al. 2014) by piq; None if it is not installed."""
    try:
        piq = importlib.import_module("piq")
    except ImportError:
        return None
    import torch

    def batch(image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.asarray(image, dtype=np.float32) / 255).permute(2, 0, 1)[None]

    return float(piq.gmsd(batch(first), batch(second)))


def _spread(pictures: Sequence[Image.Image]) -> _Values:
    """The largest difference between any two of the pictures at each pixel, (height, width) in 0 to 1."""
    values = [_array(picture.convert("RGB")) for picture in pictures]
    spread: _Values = (np.maximum.reduce(values) - np.minimum.reduce(values)).mean(axis=-1)
    return spread


def choose_crops(pictures: Sequence[Image.Image], count: int = 2, share: float = 1 / 6) -> list[Box]:
    """Where pictures of one size differ most: up to `count` squares without overlap, the most different first.

    The side of a square is `share` of the picture's shorter side, at least 24 pixels if the picture is that large.
    """
    spread = _spread(pictures)
    height, width = spread.shape
    side = min(max(round(min(height, width) * share), 24), height, width)
    sums = np.pad(spread, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    total = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    boxes: list[Box] = []
    while len(boxes) < count and np.isfinite(total).any():
        top, left = (int(place) for place in np.unravel_index(np.argmax(total), total.shape))
        boxes.append((left, top, left + side, top + side))
        total[max(top - side + 1, 0) : top + side, max(left - side + 1, 0) : left + side] = -np.inf
    return boxes


def difference_map(first: Image.Image, second: Image.Image) -> Image.Image:
    """Where two pictures of one size differ: black where they are equal, white where they differ most; mode L."""
    spread = _spread([first, second])
    highest = float(np.percentile(spread, 99.5)) or 1.0
    return Image.fromarray(np.rint(np.clip(spread / highest, 0, 1) * 255).astype(np.uint8))
