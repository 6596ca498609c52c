"""What the buttons of the page do, without Gradio."""

from __future__ import annotations

import argparse
import logging
import math
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from lib_latent_upscale.comparison.metrics import plain_resize
from lib_latent_upscale.comparison.report import make_report
from lib_latent_upscale.comparison.variants import HOST_DEFAULT, paired_variants
from lib_latent_upscale.errors import InputError, Interrupted
from lib_latent_upscale.noise_tables import sd1_sigmas
from lib_latent_upscale.options import Settings, shortened
from lib_latent_upscale.plot import host_curve, jump_note, own_curve, schedule_svg
from lib_latent_upscale.samplers import SAMPLERS
from lib_latent_upscale.settings import AUTOMATIC, UpscaleSettings
from lib_latent_upscale.standalone.commands.common import drawn_seed, load_engine, scaled_size
from lib_latent_upscale.standalone.commands.compare import compare, default_variants, subject_of, tile_variants
from lib_latent_upscale.standalone.commands.flags import attribute_of
from lib_latent_upscale.standalone.commands.passes import PASSES, Asked, Pass, PassRow, factor_of
from lib_latent_upscale.standalone.engine.engine import Engine, Progress
from lib_latent_upscale.standalone.engine.generation import (
    LARGEST_SIDE,
    SMALLEST_SIDE,
    GenerationSettings,
    plan_of,
)
from lib_latent_upscale.standalone.engine.infotext import add_labels
from lib_latent_upscale.standalone.engine.models import DEMO, model_name
from lib_latent_upscale.standalone.engine.tile import check_range
from lib_latent_upscale.standalone.files.formats import save_picture
from lib_latent_upscale.standalone.files.images import Picture, load_picture, save_png, upright_size
from lib_latent_upscale.standalone.files.outputs import sized_name
from lib_latent_upscale.standalone.files.settings import FileSettings, ShapeSettings
from lib_latent_upscale.standalone.files.shapes import VISIBLE_CHANGE, change_of_shape, kept_shape, shaped
from lib_latent_upscale.tile_settings import TileSettings

__all__ = ["Inputs", "Page"]

_log = logging.getLogger(__name__)

_CHANGES = {"stretch": "everything becomes {}", "crop": "two sides are cut off", "fill": "two borders are repeated"}
"""What a resize mode does to a picture, by its name."""


@dataclass(frozen=True)
class Inputs:
    """The values of the page's controls."""

    scale: float | None
    sampler: str
    steps: float | None
    denoise: float | None
    cfg_scale: float | None
    seed: float | None
    prompt: str | None
    negative_prompt: str | None
    upscale: UpscaleSettings
    width: float | None = None
    """Pixels of the result. With only one of width and height the aspect ratio is kept, with neither `scale` counts."""
    height: float | None = None
    shape: ShapeSettings = field(default_factory=ShapeSettings)
    tile: TileSettings | None = None
    passes: tuple[Asked, ...] = ()

    @classmethod
    def of_controls(cls, values: Mapping[str, Any]) -> Inputs:
        """Inputs from the values of the controls by their names.

        Raises:
            SettingsError: a value that is not allowed.
        """
        classes = {"upscale", "shape", "tile", "passes"}
        own = {one.name: values[one.name] for one in fields(cls) if one.name not in classes}
        tile = TileSettings.from_api(values, TileSettings()) if values.get(TileSettings.SWITCH) else None
        chosen = [row for row in PASSES if values.get(row.settings.SWITCH)]
        passes = tuple(Asked(row, row.settings.from_api(values, row.settings())) for row in chosen)
        upscale = UpscaleSettings.from_api(values, UpscaleSettings())
        shape = ShapeSettings.from_api(values, ShapeSettings())
        return cls(**own, upscale=upscale, shape=shape, tile=tile, passes=passes)

    def size(self, source: tuple[int, int]) -> tuple[int, int]:
        """(width, height) of the result for a picture of size `source`, before any pass that enlarges it further.

        Raises:
            InputError: a value that is missing or not allowed.
        """
        width, height = _whole("Width", self.width or 0), _whole("Height", self.height or 0)
        if not (width or height):
            return scaled_size(source, _given("Scale", self.scale))
        for label, side in (("Width", width), ("Height", height)):
            if side and not SMALLEST_SIDE <= side <= LARGEST_SIDE:
                raise InputError(f"{label} in pixels is {side}; give {SMALLEST_SIDE} to {LARGEST_SIDE}, or 0.")
        return kept_shape(source, width, height)

    def generation(self, size: tuple[int, int], model: str = DEMO, tile_model: str = "") -> GenerationSettings:
        """The settings for a picture of `size` (width, height).

        Raises:
            InputError: a value that is missing or not allowed.
        """
        width, height = self.size(size)
        seed = _whole("Seed", self.seed)
        generation = GenerationSettings(
            width=width,
            height=height,
            prompt=self.prompt or "",
            negative_prompt=self.negative_prompt or "",
            steps=_whole("Steps", self.steps),
            sampler=self.sampler,
            cfg_scale=_given("CFG scale", self.cfg_scale),
            seed=drawn_seed(seed),
            denoising_strength=_given("Denoising strength", self.denoise),
            model=model,
            upscale=self.upscale,
            tile=self.tile,
            tile_model=tile_model if self.tile is not None else "",
        )
        check_range(generation)
        return generation


def _given(label: str, value: float | None) -> float:
    if value is None:
        raise InputError(f"{label} is empty; give a number.")
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        raise InputError(f"{label} is {shortened(value)}; give a number.")
    return value


def _whole(label: str, value: float | None) -> int:
    number = _given(label, value)
    if number != int(number):
        raise InputError(f"{label} is {number:g}; give a whole number.")
    return int(number)


@contextmanager
def _own_name(path: str) -> Iterator[None]:
    """Errors name the picture without its folder, a temporary one that users never see."""
    try:
        yield
    except InputError as error:
        raise InputError(str(error).replace(path, Path(path).name)) from error


class Page:
    """What the page's buttons do; the model is loaded when it is first used."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self.arguments = arguments
        self.folder = folder
        self.tell: Callable[[str], object] = _log.warning
        """Tells the user about problems with a picture that was read."""
        self._stop = threading.Event()
        self._passes: dict[PassRow, Pass] = {}

    @cached_property
    def engine(self) -> Engine:
        """The engine, loaded when it is first used.

        Raises:
            InputError: as for `load_engine`.
        """
        return load_engine(self.arguments)

    def has(self, kind: type[Settings]) -> bool:
        """Whether the page was started with a model for this pass."""
        return getattr(self.arguments, attribute_of(kind.MODEL_FLAG), None) is not None

    def stop(self) -> None:
        """Stop the current run after its current step."""
        self._stop.set()

    def upscale(self, path: str | None, inputs: Inputs, progress: Progress | None = None) -> tuple[Path, Path, str]:
        """Upscale a picture: the files of it before (resized) and after, and the infotext.

        Raises:
            InputError: there is no picture, or a value is not allowed.
            GenerationError: the model or a pass failed.
            Interrupted: `stop` was called.
        """
        picture, generation = self._asked(path, inputs)
        self._stop.clear()
        done = self.engine.upscale([picture.rgb], generation, self._stoppable(progress))
        result, generation = done.pictures[0], done.generation
        for asked in inputs.passes:
            result, generation = self._run_pass(asked, result, generation, progress)
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        before = folder / "before.png"
        after = folder / sized_name(Path(str(path)), result.size, ".png")
        plain = plain_resize(picture.rgb, result.size)
        save_png(picture.with_alpha(plain), before, icc_profile=picture.icc_profile)
        parameters = add_labels(self.engine.parameters(generation), inputs.shape.to_infotext())
        save_picture(result, after, parameters, picture, FileSettings.quality)
        return before, after, parameters

    def _run_pass(
        self, asked: Asked, image: Image.Image, generation: GenerationSettings, progress: Progress | None
    ) -> tuple[Image.Image, GenerationSettings]:
        if asked.row not in self._passes:
            self._passes[asked.row] = asked.row.load(self.arguments)
        loaded = self._passes[asked.row]
        with self.engine.offloaded():
            image, settings = loaded(image, asked.settings, generation.seed, progress, self._stop.is_set)
        return image, generation.followed_by(settings, loaded.name)

    def compare(
        self,
        path: str | None,
        inputs: Inputs,
        methods: Sequence[str],
        schedulers: Sequence[str],
        progress: Callable[[str], Any],
    ) -> tuple[str, Path]:
        """Compare all pairs of a method and a scheduler: the page with the slider as HTML, and the sheet as a file.

        `progress(name)` is a context manager for a variant that yields `progress(done, total)`.

        Raises:
            InputError, GenerationError, Interrupted: as for `upscale`.
        """
        picture, whole = self._asked(path, inputs)
        base = replace(whole, tile=None, tile_model="")
        guided = {} if whole.tile is None else {"tile": whole.tile, "tile_model": whole.tile_model}
        further = [*tile_variants(guided, base), *paired_variants(base.upscale, methods, schedulers)]
        self._stop.clear()
        variants = [*default_variants(base), *further]
        entries = compare(self.engine, picture, variants, base, progress=lambda name: self._each(progress(name)))
        report = make_report(subject_of(picture, base), entries, shown=picture.with_alpha)
        sheet = Path(tempfile.mkdtemp(dir=self.folder)) / "comparison.png"
        save_png(report.sheet(), sheet, icc_profile=picture.icc_profile)
        return report.page(), sheet

    @contextmanager
    def _each(self, bar: Any) -> Iterator[Progress]:
        with bar as progress:
            yield self._stoppable(progress)

    def _stoppable(self, progress: Progress | None) -> Progress:
        def step(done: int, total: int) -> None:
            if self._stop.is_set():
                raise Interrupted("stopped")
            if progress is not None:
                progress(done, total)

        return step

    def _asked(self, path: str | None, inputs: Inputs) -> tuple[Picture, GenerationSettings]:
        """The picture in the aspect ratio of the result, and the settings for it."""
        if path is None:
            raise InputError("Choose a picture first.")
        with _own_name(path):
            picture = load_picture(Path(path))
        for note in picture.notes:
            self.tell(f"{Path(path).name}: {note}")
        tile = model_name(self.arguments.tile_controlnet) if self.has(TileSettings) else ""
        generation = inputs.generation(picture.size, model_name(self.arguments.model), tile)
        return shaped(picture, generation.size, inputs.shape.resize_mode), generation

    def sizes(self, path: str | None, inputs: Inputs) -> str:
        """A line that says how large the result will be.

        Raises:
            InputError: a value that is missing or not allowed.
            OSError: the picture cannot be read.
        """
        if path is None:
            return "The result's size is shown here once there is a picture."
        with _own_name(path):
            source = upright_size(Path(path))
        width, height = inputs.size(source)
        said = f"{source[0]} x {source[1]} to **{width} x {height}** pixels ({width / source[0]:.3g} times)"
        for index, asked in enumerate(inputs.passes):
            factor = factor_of(one.row for one in inputs.passes[: index + 1])
            if asked.row.factor > 1:
                said += f", and to **{width * factor} x {height * factor}** by the {asked.settings.NAME}"
        change = change_of_shape(source, (width, height))
        if change > VISIBLE_CHANGE:
            wider = width * source[1] > height * source[0]
            said += f". Its shape changes: {_CHANGES[inputs.shape.resize_mode]}".format(
                f"{change:.0%} {'wider' if wider else 'taller'}"
            )
        return f"{said}."

    def plot(self, inputs: Inputs) -> str:
        """A plot of the schedule that would run and of the WebUI's, as HTML; or the reason why there is none."""
        table = self.engine.model.sigmas if "engine" in self.__dict__ else sd1_sigmas()
        try:
            steps, strength = _whole("Steps", inputs.steps), _given("Denoising strength", inputs.denoise)
            default, own = (
                plan_of(upscale, inputs.sampler, steps, strength, table) for upscale in (HOST_DEFAULT, inputs.upscale)
            )
        except ValueError as error:
            return f"<p>{escape(str(error))}</p>"
        usual = SAMPLERS[inputs.sampler].automatic
        name = usual if inputs.upscale.scheduler == AUTOMATIC else inputs.upscale.scheduler
        curves = [host_curve(usual, default), own_curve(name, own, inputs.upscale, strength)]
        plot = schedule_svg(curves, title=f"Which of {steps} steps run at denoising strength {strength:g}")
        note = jump_note(inputs.upscale, steps, strength)
        return plot + (f"<p>{note}</p>" if note else "")
