"""Passes over the finished pictures of `upscale`: a row each, and what runs them.

A further one is a row of `PASSES` and a file beside this one, which has `load_pass(source, arguments) -> Pass`. Flags,
controls of the page, infotext, `--like` and sizes follow from the row. Nothing heavy is imported, so that `--help`
answers at once.
"""

from __future__ import annotations

import argparse
import importlib
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from lib_latent_upscale.errors import GenerationError, InputError
from lib_latent_upscale.options import Settings
from lib_latent_upscale.standalone.commands.flags import attribute_of, check_given, given_values, settings_from_flags
from lib_latent_upscale.tile_settings import TileSettings
from lib_latent_upscale.x4_settings import X4Settings

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

    from lib_latent_upscale.standalone.engine.engine import Engine
    from lib_latent_upscale.standalone.engine.generation import GenerationSettings

__all__ = [
    "NONE",
    "PASSES",
    "WITH_MODEL",
    "Asked",
    "Pass",
    "PassRow",
    "Passes",
    "asked_passes",
    "factor_of",
    "leave_out",
    "load_passes",
]


class Pass(Protocol):
    """A pass with its model loaded."""

    @property
    def name(self) -> str:
        """Of the model, as it stands in the infotext."""

    def __call__(
        self,
        image: Image.Image,
        settings: Any,
        seed: int,
        progress: Callable[[int, int], None] | None,
        interrupted: Callable[[], bool] | None = None,
    ) -> tuple[Image.Image, Settings]:
        """The picture that it makes of one with this seed, and the settings that it has used.

        Raises:
            InputError, GenerationError: there is none; the picture before it is kept.
            Interrupted: `interrupted` said so.
        """


@dataclass(frozen=True)
class PassRow:
    """What is known about a pass."""

    settings: type[Settings]
    """With names for everything: NAME, SWITCH, MODEL_FLAG, MODEL_LABEL, FLAGS."""
    module: str
    """Name of its file."""
    model: str
    """What its model may be."""
    tip: str
    """What stands above its flags."""
    factor: int = 1
    """How many times longer it makes both sides."""

    def source(self, arguments: argparse.Namespace) -> str | None:
        """Its model, where one is given."""
        found: str | None = getattr(arguments, attribute_of(self.settings.MODEL_FLAG), None)
        return found

    def load(self, arguments: argparse.Namespace) -> Pass:
        """The pass with its model loaded; errors as of its file."""
        module = importlib.import_module(f"{__package__}.{self.module}")
        loaded: Pass = module.load_pass(self.source(arguments), arguments)
        return loaded


PASSES: tuple[PassRow, ...] = (
    PassRow(
        X4Settings,
        "x4",
        "x4-upscaler-ema.safetensors, a folder or a hub id, such as stabilityai/stable-diffusion-x4-upscaler",
        "as the last pass: the result is 4 times larger than --size or --scale says",
        factor=4,
    ),
)
"""In the order in which they run."""

WITH_MODEL: tuple[type[Settings], ...] = (TileSettings, *(row.settings for row in PASSES))
"""Settings of all that has a model of its own."""


NONE = "none"
"""In place of a model: without that pass, where it would come along."""


def leave_out(arguments: argparse.Namespace) -> None:
    """Make of `--tile-controlnet none` and the like what it is not to have given a model."""
    for kind in WITH_MODEL:
        name = attribute_of(kind.MODEL_FLAG)
        if getattr(arguments, name, None) == NONE:
            setattr(arguments, name, None)


@dataclass(frozen=True)
class Asked:
    """A pass that was asked for."""

    row: PassRow
    settings: Settings


def asked_passes(arguments: argparse.Namespace) -> list[Asked]:
    """The passes that the flags ask for.

    Raises:
        InputError: a value that is not allowed, or an option of a pass that is not asked for.
    """
    asked = []
    for row in PASSES:
        given = given_values(arguments, row.settings)
        if row.source(arguments) is not None:
            asked.append(Asked(row, settings_from_flags(given, row.settings)))
        else:
            check_given(row.settings, given)
    return asked


def factor_of(passes: Iterable[PassRow]) -> int:
    """How many times longer passes make both sides."""
    return math.prod(row.factor for row in passes)


class Passes:
    """Passes one after the other. Where one fails, the picture before it is kept, and the person told."""

    def __init__(self, passes: Sequence[tuple[Asked, Pass]], *, quiet: bool = False) -> None:
        self._passes = passes
        self._quiet = quiet
        self.interrupted = False
        """Whether the person stopped one; from then on every picture is kept as it is."""

    def __len__(self) -> int:
        return len(self._passes)

    def __call__(
        self, image: Image.Image, generation: GenerationSettings, path: Path, engine: Engine
    ) -> tuple[Image.Image, GenerationSettings]:
        """The picture and what made it. The models of `engine` leave their device meanwhile."""
        from tqdm import tqdm

        for asked, loaded in self._passes:
            try:
                image, generation = self._run(asked, loaded, image, generation, path, engine)
            except KeyboardInterrupt:
                self.interrupted, reason = True, "it was interrupted"
            except (InputError, GenerationError) as error:
                reason = str(error)
            else:
                continue
            tqdm.write(f"{path}: the picture before the {asked.row.settings.NAME} is kept: {reason}", file=sys.stderr)
            break
        return image, generation

    def _run(
        self,
        asked: Asked,
        loaded: Pass,
        image: Image.Image,
        generation: GenerationSettings,
        path: Path,
        engine: Engine,
    ) -> tuple[Image.Image, GenerationSettings]:
        from lib_latent_upscale.standalone.commands.common import progress_bar

        if self.interrupted:
            raise KeyboardInterrupt
        named = f"{path.name} {asked.row.settings.SWITCH}"
        with engine.offloaded(), progress_bar(named, quiet=self._quiet, leave=True, unit="tile") as progress:
            image, settings = loaded(image, asked.settings, generation.seed, progress)
        return image, generation.followed_by(settings, loaded.name)


def load_passes(arguments: argparse.Namespace) -> Passes:
    """The passes that were asked for, their models loaded; errors as of `asked_passes` and of their files."""
    loaded = [(asked, asked.row.load(arguments)) for asked in asked_passes(arguments)]
    return Passes(loaded, quiet=arguments.quiet)
