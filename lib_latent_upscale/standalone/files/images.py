"""Pictures in and out: whatever a person has becomes RGB plus transparency; results appear whole or not at all."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageOps, PngImagePlugin, UnidentifiedImageError

from lib_latent_upscale.errors import InputError
from lib_latent_upscale.standalone.engine.generation import LARGEST_SIDE, SMALLEST_SIDE, check_size
from lib_latent_upscale.standalone.files.metadata import kept_density, kept_exif

__all__ = [
    "Picture",
    "load_picture",
    "save_png",
    "written_whole",
]

TEMPORARY = ".latent-upscale-"
"""How names of half-written files begin: hidden, and of one length, however long the file's own name is."""


@dataclass(frozen=True)
class Picture:
    """A picture that was read: upright, 8 bits a channel."""

    rgb: Image.Image
    """Mode RGB; places that were fully transparent are filled with the colours around them."""
    alpha: Image.Image | None = None
    """Mode L, where the picture had transparency."""
    icc_profile: bytes | None = None
    """The colour profile that the values of `rgb` are meant in; None for sRGB."""
    exif: bytes = b""
    """What its EXIF says that also holds for a larger picture."""
    density: tuple[float, float] | None = None
    """Pixels per inch, across and down."""
    notes: tuple[str, ...] = ()
    """What a person should know about how it was read."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.rgb.size

    def dressed(self, result: Image.Image) -> Image.Image:
        """`result` with this picture's transparency, enlarged to fit, and its colour profile."""
        dressed = result.copy()
        if self.alpha is not None:
            dressed.putalpha(self.alpha.resize(result.size, Image.Resampling.BICUBIC))
        dressed.info["icc_profile"] = self.icc_profile
        return dressed

    def matched(self, other: Picture) -> Image.Image:
        """This picture's colours in the colour space of `other`."""
        if self.icc_profile == other.icc_profile:
            return self.rgb
        return _converted(self.rgb, self.icc_profile, other.icc_profile) or self.rgb


def load_picture(path: Path, smallest: int = SMALLEST_SIDE) -> Picture:
    """Read a picture in any mode that Pillow knows; of several frames, the first.

    Raises InputError for what is not a picture, empty, truncated, with a side below `smallest` pixels, or too large to
    work on.
    """
    image = _open(path)
    check_size(*image.size, what=f"{path}: a picture of", smallest=smallest)
    exif, density, notes = kept_exif(image), kept_density(image), _frames(image)
    try:
        image.load()
        image = ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise InputError(f"{path}: the picture is damaged or truncated ({error}).") from error
    picture = _normal(image)
    return replace(picture, exif=exif, density=density, notes=(*notes, *picture.notes))


_STILL = frozenset({"MPO"})
"""Formats whose further frames are the same picture again: phones and stereo cameras."""


def _frames(image: Image.Image) -> tuple[str, ...]:
    try:
        count = getattr(image, "n_frames", 1)
    except (OSError, SyntaxError, ValueError, EOFError):  # damaged behind the first one
        return ()
    if count == 1 or image.format in _STILL:
        return ()
    return (f"only the first of {count} {'pages' if image.format == 'TIFF' else 'frames'} is taken.",)


def _open(path: Path) -> Image.Image:
    if not path.exists():
        raise InputError(f"{path}: no such file.")
    if path.is_dir():
        raise InputError(f"{path}: this is a folder; a picture is needed here.")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty.")
    try:
        return Image.open(path)
    except UnidentifiedImageError:
        raise InputError(f"{path}: not a picture that can be read, or one of an unknown format.") from None
    except Image.DecompressionBombError:
        raise InputError(
            f"{path}: the picture is too large: each side may be {SMALLEST_SIDE} to {LARGEST_SIDE} pixels."
        ) from None
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{path}: the picture cannot be read ({error}).") from error


def _normal(image: Image.Image) -> Picture:
    profile = image.info.get("icc_profile")
    if image.mode.startswith(("I", "F")):
        return _from_numbers(image)
    if image.mode == "CMYK":
        return Picture((profile and _converted(image, profile, None)) or image.convert("RGB"))
    if not _has_transparency(image):
        rgb, profile = _rgb(image, profile)
        return Picture(rgb, icc_profile=profile)
    rgba = image.convert("RGBA")
    if image.mode in ("LA", "La") or (image.mode == "L" and profile):
        rgb, profile = _rgb(rgba.getchannel("R"), profile)
        rgba = Image.merge("RGBA", (*rgb.split(), rgba.getchannel("A")))
    return Picture(_filled(rgba), rgba.getchannel("A"), profile)


def _rgb(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, bytes | None]:
    """RGB and the profile of its values; what a profile of grey values says is carried out."""
    if image.mode in ("RGB", "P"):
        return image.convert("RGB"), profile
    converted = _converted(image, profile, None) if profile and image.mode == "L" else None
    return converted or image.convert("RGB"), None


def _has_transparency(image: Image.Image) -> bool:
    return "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa")


def _from_numbers(image: Image.Image) -> Picture:
    """Grey pictures of 16 bits, 32 bits or floats in 8 bits; Pillow's own convert would cut them off."""
    values = np.asarray(image, dtype=np.float64)
    finite = np.isfinite(values)
    deep = image.mode.startswith("I;") or image.format == "PNG"  # older Pillow opens a PNG of 16 bits as 32
    full = 65535.0 if deep else _full(values[finite], whole=image.mode == "I")
    shown = np.nan_to_num(values, nan=0.0, posinf=full, neginf=0.0).clip(0, full) / full * 255
    grey = Image.fromarray(np.rint(shown).astype(np.uint8))
    notes = () if deep else (_range_told(values[finite], full, int((~finite).sum())),)
    rgb, _ = _rgb(grey, image.info.get("icc_profile"))
    key = image.info.get("transparency")
    if not isinstance(key, int):
        return Picture(rgb, notes=notes)
    alpha = Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8))
    return Picture(_filled(Image.merge("RGBA", (*rgb.split(), alpha))), alpha, notes=notes)


_OVERSHOOT = 1.05
"""How far above white sharpening and resizing go."""


def _full(values: np.ndarray[Any, np.dtype[np.float64]], *, whole: bool) -> float:
    """The value of white: 1, 255, 65535 or the largest one, from what there is.

    Args:
        values: finite ones.
        whole: whether they are integers by their type. Floats that are mostly in 0 to 1 are so with highlights above,
            as renderers and raw converters write them, unless all are whole numbers.
    """
    highest = float(values.max(initial=0.0))
    positive = values[values > 0]
    whole = whole or (highest > 1 and bool((values == np.rint(values)).all()))
    if not whole and (highest <= _OVERSHOOT or float(np.median(positive)) <= 1):
        return 1.0
    return next((full for full in (255.0, 65535.0) if highest <= (full if whole else full * _OVERSHOOT)), highest)


def _range_told(values: np.ndarray[Any, np.dtype[np.float64]], full: float, broken: int) -> str:
    lowest, highest = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    no_numbers = f", {broken} that are no finite numbers" if broken else ""
    return f"values from {lowest:g} to {highest:g}{no_numbers}; 0 is taken as black and {full:g} as white."


def _converted(image: Image.Image, profile: bytes | None, wanted: bytes | None) -> Image.Image | None:
    """RGB in the colour space of `wanted`, None meaning sRGB, as `profile`; None where a profile does not fit."""
    try:
        return ImageCms.profileToProfile(image, _profile(profile), _profile(wanted), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None


def _profile(content: bytes | None) -> ImageCms.ImageCmsProfile:
    if content is None:
        return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    return ImageCms.ImageCmsProfile(io.BytesIO(content))


def _filled(rgba: Image.Image) -> Image.Image:
    """RGB of a transparent picture: colours of invisible places come from their surroundings, coarse to fine.

    What editors leave there (mostly black) would bleed into the visible edges through the latents.
    """
    premultiplied = rgba.convert("RGBa")
    sizes = [rgba.size]
    while max(sizes[-1]) > 1:
        sizes.append((max(sizes[-1][0] // 2, 1), max(sizes[-1][1] // 2, 1)))
    filled = Image.new("RGB", (1, 1))
    for size in reversed(sizes):
        level = premultiplied.resize(size, Image.Resampling.BOX).convert("RGBA")
        visible = level.getchannel("A").point(lambda alpha: 255 if alpha else 0)
        filled = filled.resize(size, Image.Resampling.BILINEAR)
        filled.paste(level.convert("RGB"), mask=visible)
    return filled


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to, which then takes its place; on any failure nothing is left behind."""
    handle, name = tempfile.mkstemp(prefix=TEMPORARY, suffix=path.suffix, dir=path.parent)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        part.chmod(0o666 & ~_umask())  # mkstemp makes the file private
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def save_png(image: Image.Image, path: Path, parameters: str | None = None, icc_profile: bytes | None = None) -> None:
    """Write a PNG whole or not at all, without a date in it: the same picture gives the same bytes."""
    info = PngImagePlugin.PngInfo()
    if parameters is not None:
        info.add_text("parameters", parameters)
    with written_whole(path) as part:
        image.save(part, "PNG", pnginfo=info, icc_profile=icc_profile)
