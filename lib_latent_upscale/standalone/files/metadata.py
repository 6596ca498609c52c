"""Metadata of pictures: EXIF, XMP and density, which results keep, and the infotext."""

from __future__ import annotations

import logging
import re
import struct
from pathlib import Path

from PIL import Image

__all__ = [
    "BROKEN",
    "exif_with",
    "is_turned",
    "kept_density",
    "kept_exif",
    "kept_xmp",
    "read_parameters",
    "xmp_segment",
]

_log = logging.getLogger(__name__)

_EXIF, _GPS = 0x8769, 0x8825
"""Tags that point to further tags."""
_USER_COMMENT = 0x9286
"""EXIF's tag for the infotext of a JPEG or WebP, as in the WebUI."""
_UNICODE = b"UNICODE\0"
"""Start of a comment in big-endian UTF-16, as `piexif.helper.UserComment`, which the WebUI uses, writes it."""
_ORIENTATION, _SIDEWAYS = 0x0112, range(5, 9)
_DENSITY, _UNIT, _INCH = (0x011A, 0x011B), 0x0128, 2

_UNITS = {_INCH: 1.0, 3: 2.54}
"""Factors from densities per inch and per centimetre to those per inch."""

_KEPT = frozenset({0x010E, 0x010F, 0x0110, *_DENSITY, _UNIT, 0x0131, 0x0132, 0x013B, 0x013C, 0x4746, 0x8298})
"""Description, camera, density, software, date, artist, computer, rating and copyright. Other tags, such as orientation
or a TIFF's strips, describe the old pixels."""
_KEPT_WINDOWS = range(0x9C9B, 0x9CA0)
"""Title, comment, author, keywords and subject."""
_DROPPED = frozenset({_USER_COMMENT, 0x927C, 0xA002, 0xA003, 0xA005})
"""The comment, which the WebUI reads as infotext; the maker's note, which contains offsets into the old file; and the
old size."""
BROKEN = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, NotImplementedError, OSError, SyntaxError, TypeError),
    *(ValueError, struct.error, Image.DecompressionBombError),
)
"""What Pillow raises for damaged EXIF."""


def kept_exif(image: Image.Image) -> bytes:
    """Those parts of a picture's EXIF that are also true of a larger one; empty if there are none or it is damaged."""
    try:
        return _kept(image.getexif())
    except BROKEN as error:
        _log.warning("The EXIF data of a picture is damaged and left out (%s).", error)
        return b""


def _kept(found: Image.Exif) -> bytes:
    kept = Image.Exif()
    for tag in sorted({*_KEPT, *_KEPT_WINDOWS} & set(found)):
        kept[tag] = found[tag]
    for pointer in (_EXIF, _GPS):
        further = {tag: value for tag, value in found.get_ifd(pointer).items() if tag not in _DROPPED}
        if further:
            kept[pointer] = further
    return kept.tobytes() if len(kept) else b""


def is_turned(image: Image.Image) -> bool:
    """Whether a picture's sides change places when it is made upright."""
    try:
        return image.getexif().get(_ORIENTATION) in _SIDEWAYS
    except BROKEN:
        return False


_XMP, _XMP_TAG = "XML:com.adobe.xmp", 700
"""Where PNGs and TIFFs have XMP."""
_XMP_HEAD = b"http://ns.adobe.com/xap/1.0/\0"
"""Start of a JPEG's XMP segment."""
_LONGEST_SEGMENT = 0xFFFF - 2
_OF_OLD_PIXELS = re.compile(
    r"""\s+({0})\s*=\s*("[^"]*"|'[^']*')|<({0})>[^<]*</\3>""".format(
        r"tiff:(?:Orientation|ImageWidth|ImageLength)|exif:Pixel[XY]Dimension|xmpNote:HasExtendedXMP"
    )
)
"""Properties that are not true of a larger picture in another file, as attributes and as elements."""
_OF_FURTHER_PARTS = re.compile("ns.google.com/photos|hdr-gain-map")
"""XMP about the position of a gain map or film in the file, which results do not contain."""


def kept_xmp(image: Image.Image) -> str:
    """Those parts of a loaded picture's XMP that are also true of a larger one; empty if there are none."""
    found = image.info.get("xmp") or image.info.get(_XMP) or _tagged_xmp(image)
    try:
        text = found.decode() if isinstance(found, bytes) else str(found or "")
    except UnicodeDecodeError:
        _log.warning("The XMP data of a picture is damaged and left out.")
        return ""
    if _OF_FURTHER_PARTS.search(text):
        _log.warning("The XMP data of a picture is about further parts of its file, such as a gain map: left out.")
        return ""
    return _OF_OLD_PIXELS.sub("", text.strip("\0"))


def _tagged_xmp(image: Image.Image) -> bytes | None:
    """The XMP of a TIFF or JPEG with Pillow before version 11."""
    segments = (content for name, content in getattr(image, "applist", ()) if name == "APP1")
    found = next((content for content in segments if content.startswith(_XMP_HEAD)), b"").removeprefix(_XMP_HEAD)
    tagged = getattr(image, "tag_v2", {}).get(_XMP_TAG)
    return tagged if isinstance(tagged, bytes) else found


def xmp_segment(xmp: str) -> bytes:
    """XMP as a JPEG segment; empty if there is none, or if it is too long."""
    content = _XMP_HEAD + xmp.encode()
    if not xmp or len(content) > _LONGEST_SEGMENT:
        return b""
    return b"\xff\xe1" + struct.pack(">H", 2 + len(content)) + content


def kept_density(image: Image.Image) -> tuple[float, float] | None:
    """Pixels per inch, across and down; None if neither the file nor its EXIF has them."""
    try:
        across, down = (float(value) for value in image.info.get("dpi") or _exif_density(image.getexif()))
    except BROKEN:
        return None
    return (across, down) if 0 < across < 1e6 and 0 < down < 1e6 else None


def _exif_density(exif: Image.Exif) -> tuple[float, float]:
    across, down = (float(exif[tag]) * _UNITS[exif.get(_UNIT, _INCH)] for tag in _DENSITY)
    return across, down


def exif_with(kept: bytes, parameters: str | None, density: tuple[float, float] | None) -> bytes:
    """The EXIF of a JPEG or WebP.

    Args:
        kept: the EXIF that it keeps, from `kept_exif`.
        parameters: the infotext, written as by the WebUI.
        density: pixels per inch, across and down.
    """
    exif = Image.Exif()
    if kept:
        exif.load(kept)
    if density is not None:
        exif.update({**dict(zip(_DENSITY, density, strict=True)), _UNIT: _INCH})
    for pointer in (_EXIF, _GPS):
        further = dict(exif.get_ifd(pointer))
        if pointer == _EXIF and parameters is not None:
            further[_USER_COMMENT] = _UNICODE + parameters.encode("utf-16-be")
        if further:
            exif[pointer] = further
    return exif.tobytes() if len(exif) else b""


def read_parameters(path: Path) -> str:
    """The infotext of a PNG, JPEG or WebP; empty if it has none or cannot be read."""
    if not path.is_file():  # a pipe would be waited for
        return ""
    try:
        with Image.open(path) as image:
            text = image.info.get("parameters") or _comment(image)
    except BROKEN:
        return ""
    return text if isinstance(text, str) else ""


def _comment(image: Image.Image) -> str:
    comment = image.getexif().get_ifd(_EXIF).get(_USER_COMMENT, b"")
    if not isinstance(comment, bytes) or not comment.startswith(_UNICODE):
        return ""
    return comment[len(_UNICODE) :].decode("utf-16-be", errors="ignore")
