"""File formats of results; each has the infotext where the WebUI writes it."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from lib_latent_upscale.errors import InputError, SizeError
from lib_latent_upscale.options import AUTOMATIC
from lib_latent_upscale.standalone.files.images import Picture
from lib_latent_upscale.standalone.files.metadata import exif_with, xmp_segment
from lib_latent_upscale.standalone.files.settings import FileSettings
from lib_latent_upscale.writing import write_whole

__all__ = ["FORMATS", "SUFFIXES", "Format", "check_format", "encoded", "format_of", "save_picture"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Format:
    """A file format."""

    name: str
    """Pillow's name, also shown to users."""
    suffixes: tuple[str, ...]
    """The first is used for names that the user has not given."""
    longest_side: int
    """The longest possible side in pixels."""
    transparent: bool = True
    """Whether it supports transparency."""
    longest_text: int | None = None
    """The most characters of an infotext; None if there is no relevant limit."""


FORMATS: Mapping[str, Format] = {
    "png": Format("PNG", (".png",), 2**31 - 1),
    "jpeg": Format("JPEG", (".jpg", ".jpeg"), 65_535, transparent=False, longest_text=30_000),
    "webp": Format("WebP", (".webp",), 16_383),
}
"""Formats by their names in `FileSettings.format`."""

SUFFIXES = tuple(suffix for one in FORMATS.values() for suffix in one.suffixes)


def format_of(settings: FileSettings, output: Path | None = None) -> Format:
    """The format in the settings; if it is automatic, that of the suffix of `output`, or PNG.

    Raises:
        InputError: the settings and the suffix contradict each other.
    """
    named = next((one for one in FORMATS.values() if output and output.suffix.lower() in one.suffixes), None)
    if settings.format == AUTOMATIC:
        return named or FORMATS["png"]
    chosen = FORMATS[settings.format]
    if named is not None and named is not chosen:
        raise InputError(f"{output}: --format {settings.format} writes {chosen.suffixes[0]}; give only one of the two.")
    return chosen


def check_format(chosen: Format, size: tuple[int, int], parameters: str) -> None:
    """Check that a result of `size` (width, height) and its infotext fit into a format.

    Raises:
        SizeError: the result is too large; smaller ones of several pictures may fit.
        InputError: the infotext is too long.
    """
    if max(size) > chosen.longest_side:
        raise SizeError(
            f"The result's size {size[0]}x{size[1]} is too large for {chosen.name}, whose sides have at most "
            f"{chosen.longest_side} pixels; write a PNG."
        )
    if chosen.longest_text is not None and len(parameters) > chosen.longest_text:
        raise InputError(f"The prompt is too long to be written into a {chosen.name}; write a PNG.")


def save_picture(
    image: Image.Image, path: Path, parameters: str | None, source: Picture, quality: int, *, overwrite: bool = False
) -> Path:
    """Write a result as `write_whole` does it; other arguments as for `encoded`."""
    return write_whole(path, encoded(image, path, parameters, source, quality), overwrite=overwrite)


def encoded(image: Image.Image, path: Path, parameters: str | None, source: Picture, quality: int) -> bytes:
    """The content of a result's file; the same picture gives the same bytes.

    Args:
        image: RGB.
        path: where it will be written; the suffix, one of `SUFFIXES`, decides the format.
        parameters: the infotext.
        source: the picture that it was made from; transparency, profile, EXIF, XMP and density are kept.
        quality: quality of JPEG and WebP, 1 to 100.
    """
    chosen = next(one for one in FORMATS.values() if path.suffix.lower() in one.suffixes)
    finished = source.with_alpha(image)
    if finished.mode == "RGBA" and not chosen.transparent:
        _log.warning("%s: %s holds no transparency; what was transparent is white.", path, chosen.name)
        finished = _on_white(finished)
    options = {"PNG": _png, "JPEG": _jpeg, "WebP": _webp}[chosen.name](parameters, source, quality)
    file = io.BytesIO()
    finished.save(file, chosen.name, icc_profile=source.icc_profile, **options)
    return file.getvalue()


def _on_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def _png(parameters: str | None, source: Picture, quality: int) -> dict[str, Any]:  # noqa: ARG001
    info = PngImagePlugin.PngInfo()
    if parameters is not None:
        info.add_text("parameters", parameters)
    if source.xmp:
        info.add_itxt("XML:com.adobe.xmp", source.xmp)
    return {"pnginfo": info, **_given(exif=source.exif, dpi=source.density)}


def _jpeg(parameters: str | None, source: Picture, quality: int) -> dict[str, Any]:
    exif = exif_with(source.exif, parameters, None)
    segment = xmp_segment(source.xmp)
    if source.xmp and not segment:
        _log.warning("The XMP data of a picture is too long for a JPEG, and left out.")
    return {"quality": quality, "subsampling": "4:4:4", **_given(exif=exif, dpi=source.density, extra=segment)}


def _webp(parameters: str | None, source: Picture, quality: int) -> dict[str, Any]:
    return {"quality": quality, "exif": exif_with(source.exif, parameters, source.density), "xmp": source.xmp.encode()}


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value}
