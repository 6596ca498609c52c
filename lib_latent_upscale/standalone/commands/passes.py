"""Passes over the finished pictures of `upscale`: one row each, and the code that runs them.

A new one is a row of `PASSES` and a file next to this one with `load_pass(source, arguments) -> Pass`. Flags, controls
of the page, infotext, `--like` and sizes follow from the row. Nothing heavy is imported, so that `--help` answers at
once.
"""

from __future__ import annotations

import argparse
import importlib
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from lib_latent_upscale.errors import GenerationError, InputError, printable
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
        """Name of the model, as written in infotexts."""

    def __call__(
        self,
        image: Image.Image,
        settings: Any,
        seed: int,
        progress: Callable[[int, int], None] | None,
        interrupted: Callable[[], bool] | None = None,
    ) -> tuple[Image.Image, Settings]:
        """Run the pass on a picture.

        Args:
            image: RGB.
            settings: of the class in its row.
            seed: seed of the picture.
            progress: called with (done, total).
            interrupted: whether to stop; asked between steps.

        Returns:
            The new picture, and the settings that were used.

        Raises:
            InputError, GenerationError: the pass cannot run or has failed.
            Interrupted: `interrupted` returned True.
        """


@dataclass(frozen=True)
class PassRow:
    """Everything that is known about a pass."""

    settings: type[Settings]
    """Class of its settings, which has all its names: NAME, SWITCH, MODEL_FLAG, MODEL_LABEL, FLAGS."""
    module: str
    """Name of its module in this package."""
    model: str
    """What can be given as its model, for the help text."""
    tip: str
    """Description above its flags in the help text."""
    factor: int = 1
    """How many times longer both sides become."""

    def source(self, arguments: argparse.Namespace) -> str | None:
        """Its model in the arguments; None if none is given."""
        found: str | None = getattr(arguments, attribute_of(self.settings.MODEL_FLAG), None)
        return found

    def load(self, arguments: argparse.Namespace) -> Pass:
        """The pass with its model loaded.

        Raises:
            InputError, GenerationError: the model cannot be loaded.
        """
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
"""All passes, in the order in which they run."""

WITH_MODEL: tuple[type[Settings], ...] = (TileSettings, *(row.settings for row in PASSES))
"""Settings of everything that has a model of its own."""


NONE = "none"
"""Given instead of a model: do not use this pass."""


def leave_out(arguments: argparse.Namespace) -> None:
    """Treat `--tile-controlnet none` and the like as if no model were given."""
    for kind in WITH_MODEL:
        name = attribute_of(kind.MODEL_FLAG)
        if getattr(arguments, name, None) == NONE:
            setattr(arguments, name, None)


@dataclass(frozen=True)
class Asked:
    """A requested pass."""

    row: PassRow
    settings: Settings


def asked_passes(arguments: argparse.Namespace) -> list[Asked]:
    """The passes that are requested by flags.

    Raises:
        InputError: a value that is not allowed, or an option of a pass that is not requested.
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
    """How many times longer both sides become by these passes."""
    return math.prod(row.factor for row in passes)


class Passes:
    """Runs passes one after the other. If one fails, the picture before it is kept, and the user is told."""

    def __init__(self, passes: Sequence[tuple[Asked, Pass]], *, quiet: bool = False) -> None:
        self._passes = passes
        self._quiet = quiet
        self.interrupted = False
        """Whether the user has stopped a pass; then no further pass runs."""

    def __len__(self) -> int:
        return len(self._passes)

    def __call__(
        self, image: Image.Image, generation: GenerationSettings, path: Path, engine: Engine
    ) -> tuple[Image.Image, GenerationSettings]:
        """Run the passes on a picture; the models of `engine` are moved off their device meanwhile.

        Args:
            image: RGB.
            generation: the settings that made it.
            path: where it will be written, for messages.
            engine: the model that made it.

        Returns:
            The picture after the passes, and the settings with the passes that ran.
        """
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
            said = f"{path}: the picture before the {asked.row.settings.NAME} is kept: {reason}"
            tqdm.write(printable(said), file=sys.stderr)
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
    """The requested passes with their models loaded.

    Raises:
        InputError: as for `asked_passes`, or a model cannot be used.
        GenerationError: a model does not fit into memory.
    """
    loaded = [(asked, asked.row.load(arguments)) for asked in asked_passes(arguments)]
    return Passes(loaded, quiet=arguments.quiet)
