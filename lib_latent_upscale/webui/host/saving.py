"""Saving pictures, and the infotext in them, as the host does."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from modules import images, infotext_utils, processing
from PIL import Image

from lib_latent_upscale.webui.host.processing import option

__all__ = ["font", "grid_of", "infotext", "save", "save_grid", "with_label", "write_infotext"]


def infotext(p: Any, index: int) -> str:
    """The infotext of the picture with this index among all that `p` has made."""
    text: str = processing.create_infotext(p, p.all_prompts, p.all_seeds, p.all_subseeds, index=index)
    return text


def with_label(text: str, label: str, value: str) -> str:
    """An infotext with a label at its end, in place of the same one elsewhere."""
    others = re.sub(rf', {re.escape(label)}: ("(?:\\.|[^"\\])*"|[^,\n]*)', "", text)
    return f"{others}, {label}: {infotext_utils.quote(value)}"


def write_infotext(picture: Image.Image, text: str) -> None:
    """Write the infotext into a picture, if the host's option says so."""
    if option("enable_pnginfo", True):
        picture.info["parameters"] = text


def save(picture: Image.Image, p: Any, seed: int, prompt: str, text: str) -> None:
    """Save a picture of the result."""
    images.save_image(picture, p.outpath_samples, "", seed, prompt, option("samples_format"), info=text, p=p)


def save_grid(picture: Image.Image, name: str, p: Any, seed: int, prompt: str, text: str) -> Path:
    """Save a grid; returns its path."""
    path, _ = images.save_image(
        picture,
        p.outpath_grids,
        name,
        seed,
        prompt,
        option("grid_format", "png"),
        info=text,
        short_filename=not option("grid_extended_filename"),
        p=p,
        grid=True,
    )
    return Path(path)


def grid_of(pictures: list[Image.Image], batch_size: int) -> Image.Image:
    """A grid of all pictures, in the host's order."""
    grid: Image.Image = images.image_grid(pictures, batch_size)
    return grid


def font() -> Path | None:
    """The host's font for grids, which can be set by the user."""
    path = getattr(images.get_font(20), "path", None)
    return Path(path) if isinstance(path, (str, os.PathLike)) else None
