"""Settings of the command for files, and for results with another aspect ratio."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lib_latent_upscale.options import AUTOMATIC, Settings, option

__all__ = ["FileSettings", "ShapeSettings"]


@dataclass(frozen=True)
class FileSettings(Settings):
    """Which files are read and written."""

    TITLE: ClassVar[str] = "settings of files"
    HEADING: ClassVar[str] = "Files"
    FLAGS: ClassVar[str] = "--"

    format: str = option(
        AUTOMATIC,
        choices=(AUTOMATIC, "png", "jpeg", "webp"),
        label="Format",
        tip="file format of the results; automatic: by the suffix of OUT, else PNG",
    )
    quality: int = option(95, low=1, high=100, label="Quality", tip="quality of JPEG and WebP files")
    skip_finished: bool = option(
        True,
        label="Skip what is finished",
        tip="of several pictures, skip those whose result with the same settings already exists",
    )
    recursive: bool = option(
        False, label="Subfolders", tip="include subfolders, and create the same ones for the results"
    )


@dataclass(frozen=True)
class ShapeSettings(Settings):
    """What to do if the result has another aspect ratio than the picture."""

    TITLE: ClassVar[str] = "settings of the shape"
    HEADING: ClassVar[str] = "Shape"
    FLAGS: ClassVar[str] = "--"

    resize_mode: str = option(
        "stretch",
        choices=("stretch", "crop", "fill"),
        label="Resize mode",
        infotext="Latent upscale resize mode",
        tip="if --size has another aspect ratio: the WebUI's Just resize, Crop and resize, or Resize and fill",
    )

    def matters(self, name: str) -> bool:
        """Stretching is not written: a picture without the label is stretched."""
        return name != "resize_mode" or self.resize_mode != "stretch"
