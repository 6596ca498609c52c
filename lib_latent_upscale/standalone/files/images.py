"""Reading pictures of any mode as RGB plus transparency, and writing PNGs."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from lib_latent_upscale.errors import InputError
from lib_latent_upscale.pictures import eight_bits, filled, has_transparency
from lib_latent_upscale.standalone.engine.generation import LARGEST_SIDE, SMALLEST_SIDE, check_size
from lib_latent_upscale.standalone.files.metadata import BROKEN, is_turned, kept_density, kept_exif, kept_xmp
from lib_latent_upscale.writing import write_whole

__all__ = [
    "Picture",
    "load_picture",
    "save_png",
    "upright_size",
]


@dataclass(frozen=True)
class Picture:
    """A picture that was read: rotated as its EXIF says, with 8 bits per channel."""

    rgb: Image.Image
    """Mode RGB; fully transparent pixels have the colours of their surroundings."""
    alpha: Image.Image | None = None
    """Mode L; None for a picture without transparency."""
    icc_profile: bytes | None = None
    """The colour profile of `rgb`; None for sRGB."""
    exif: bytes = b""
    """Those parts of its EXIF that are also true of a larger picture."""
    xmp: str = ""
    """The same parts of its XMP."""
    density: tuple[float, float] | None = None
    """Pixels per inch, across and down."""
    notes: tuple[str, ...] = ()
    """What the user should know about how it was read."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.rgb.size

    def with_alpha(self, result: Image.Image) -> Image.Image:
        """`result` with this picture's transparency, resized to fit, and its colour profile."""
        finished = result.copy()
        if self.alpha is not None:
            finished.putalpha(self.alpha.resize(result.size, Image.Resampling.BICUBIC))
        finished.info["icc_profile"] = self.icc_profile
        return finished

    def matched(self, other: Picture) -> Image.Image:
        """`rgb`, converted to the colour space of `other`."""
        if self.icc_profile == other.icc_profile:
            return self.rgb
        return _converted(self.rgb, self.icc_profile, other.icc_profile) or self.rgb


def load_picture(path: Path, smallest: int = SMALLEST_SIDE) -> Picture:
    """Read a picture in any mode that Pillow knows; of several frames, the first.

    Raises:
        InputError: it is not a picture, empty, truncated, or has a side that is below `smallest` pixels or too large.
    """
    image = _open(path)
    check_size(*image.size, what=f"{path}: a picture of", smallest=smallest)
    notes = _frames(image)
    try:
        image.load()  # before its EXIF, for which Pillow loads PNGs, and says only once that they are damaged
        exif, density, xmp = kept_exif(image), kept_density(image), kept_xmp(image)
        image = ImageOps.exif_transpose(image)
    except BROKEN as error:
        raise InputError(f"{path}: the picture is damaged or truncated ({error}).") from error
    picture = _normal(image)
    return replace(picture, exif=exif, xmp=xmp, density=density, notes=(*notes, *picture.notes))


def upright_size(path: Path) -> tuple[int, int]:
    """(width, height) that a picture has once it is read; only its header is looked at.

    Raises:
        InputError: it is not a picture, empty, or too small or large to work on.
    """
    image = _open(path)
    check_size(*image.size, what=f"{path}: a picture of")
    return (image.height, image.width) if is_turned(image) else image.size


_STILL = frozenset({"MPO"})
"""Formats whose further frames show the same picture: phones and stereo cameras write them."""


def _frames(image: Image.Image) -> tuple[str, ...]:
    try:
        count = getattr(image, "n_frames", 1)
    except BROKEN:  # damaged after the first one
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
    except BROKEN as error:
        raise InputError(f"{path}: the picture cannot be read ({error}).") from error


def _normal(image: Image.Image) -> Picture:
    profile = image.info.get("icc_profile")
    image, notes = eight_bits(image)
    if image.mode == "CMYK":
        return Picture((profile and _converted(image, profile, None)) or image.convert("RGB"))
    if not has_transparency(image):
        rgb, profile = _rgb(image, profile)
        return Picture(rgb, icc_profile=profile, notes=notes)
    rgba = image.convert("RGBA")
    if image.mode in ("LA", "La") or (image.mode == "L" and profile):
        rgb, profile = _rgb(rgba.getchannel("R"), profile)
        rgba = Image.merge("RGBA", (*rgb.split(), rgba.getchannel("A")))
    return Picture(filled(rgba), rgba.getchannel("A"), profile, notes=notes)


def _rgb(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, bytes | None]:
    """RGB and its profile; grey values with a profile are converted to sRGB."""
    if image.mode in ("RGB", "P"):
        return image.convert("RGB"), profile
    converted = _converted(image, profile, None) if profile and image.mode == "L" else None
    return converted or image.convert("RGB"), None


def _converted(image: Image.Image, profile: bytes | None, wanted: bytes | None) -> Image.Image | None:
    """RGB, converted from one profile to another (None for sRGB); None if a profile does not fit the picture."""
    try:
        return ImageCms.profileToProfile(image, _profile(profile), _profile(wanted), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None


def _profile(content: bytes | None) -> ImageCms.ImageCmsProfile:
    if content is None:
        return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    return ImageCms.ImageCmsProfile(io.BytesIO(content))


def save_png(image: Image.Image, path: Path, icc_profile: bytes | None = None, *, overwrite: bool = False) -> Path:
    """Write a PNG as `write_whole` does. It contains no date: the same picture gives the same bytes."""
    file = io.BytesIO()
    image.save(file, "PNG", icc_profile=icc_profile)
    return write_whole(path, file.getvalue(), overwrite=overwrite)
