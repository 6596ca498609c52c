"""Pictures in and out: whatever a person has becomes RGB plus transparency; results appear whole or not at all."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, PngImagePlugin, UnidentifiedImageError

from lib_latent_upscale.standalone.engine.generation import LARGEST_SIDE, SMALLEST_SIDE, check_size
from lib_latent_upscale.standalone.errors import InputError
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

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.rgb.size

    def dressed(self, result: Image.Image) -> Image.Image:
        """`result` with this picture's transparency, enlarged to fit."""
        if self.alpha is None:
            return result
        dressed = result.convert("RGBA")
        dressed.putalpha(self.alpha.resize(result.size, Image.Resampling.BICUBIC))
        return dressed


def load_picture(path: Path, smallest: int = SMALLEST_SIDE) -> Picture:
    """Read a picture in any mode that Pillow knows; of several frames, the first.

    Raises InputError for what is not a picture, empty, truncated, with a side below `smallest` pixels, or too large to
    work on.
    """
    image = _open(path)
    check_size(*image.size, what=f"{path}: a picture of", smallest=smallest)
    exif, density = kept_exif(image), kept_density(image)
    try:
        image.load()
        image = ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise InputError(f"{path}: the picture is damaged or truncated ({error}).") from error
    return replace(_normal(image), exif=exif, density=density)


def _open(path: Path) -> Image.Image:
    if not path.exists():
        raise InputError(f"{path}: no such file.")
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
    image = _eight_bits(image)
    if image.mode == "CMYK":
        return Picture(_cmyk_to_srgb(image, profile))
    keeps_profile = image.mode in ("RGB", "RGBA", "P", "PA")  # a profile for grey values does not fit RGB ones
    profile = profile if keeps_profile else None
    if not _has_transparency(image):
        return Picture(image.convert("RGB"), icc_profile=profile)
    rgba = image.convert("RGBA")
    return Picture(_filled(rgba), rgba.getchannel("A"), profile)


def _has_transparency(image: Image.Image) -> bool:
    return "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey pictures of 16 bits, 32 bits or floats, scaled to 8 bits; Pillow's own convert would cut them off."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image, dtype=np.float64)
    highest = float(values.max(initial=0.0))
    full = 1.0 if highest <= 1 else 255.0 if image.mode == "F" and highest <= 255 else 65535.0
    return Image.fromarray(np.rint(values.clip(0, full) / full * 255).astype(np.uint8), "L")


def _cmyk_to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    if profile:
        try:
            converted = ImageCms.profileToProfile(
                image, ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
        except (ImageCms.PyCMSError, OSError):
            converted = None
        if converted is not None:
            return converted
    return image.convert("RGB")


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
