"""The subcommand `app`: the same upscale as a page in the browser (Gradio 4, 5 and 6)."""

from __future__ import annotations

import argparse
import html
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from lib_latent_upscale.comparison.metrics import plain_resize
from lib_latent_upscale.comparison.report import make_report
from lib_latent_upscale.comparison.settings import CompareSettings
from lib_latent_upscale.comparison.variants import paired_variants
from lib_latent_upscale.controls import make_control
from lib_latent_upscale.errors import InputError
from lib_latent_upscale.noise_tables import sd1_sigmas
from lib_latent_upscale.options import SettingsError, rows
from lib_latent_upscale.samplers import GENERATION_SAMPLERS, SAMPLERS
from lib_latent_upscale.schedules import SCHEDULES, described
from lib_latent_upscale.settings import AUTOMATIC, UpscaleSettings
from lib_latent_upscale.standalone.commands.common import (
    DEFAULT_SCALE,
    LARGEST_SCALE,
    SMALLEST_SCALE,
    drawn_seed,
    load_engine,
    scaled_size,
)
from lib_latent_upscale.standalone.commands.compare import compare, default_variants, subject_of
from lib_latent_upscale.standalone.commands.schedules import plan_rows, plot_rows
from lib_latent_upscale.standalone.engine.engine import Engine
from lib_latent_upscale.standalone.engine.generation import GenerationSettings, write_parameters
from lib_latent_upscale.standalone.engine.models import checked_source, model_name
from lib_latent_upscale.standalone.files.images import Picture, load_picture, save_png

__all__ = ["Page", "build_page", "run"]


@dataclass(frozen=True)
class Inputs:
    """The values of the page's controls."""

    scale: float
    sampler: str
    steps: float
    denoise: float
    cfg_scale: float
    seed: float
    prompt: str | None
    negative_prompt: str | None
    upscale: UpscaleSettings

    @classmethod
    def of_controls(cls, values: Mapping[str, Any]) -> Inputs:
        """From the values of the controls, by their names."""
        own = {one.name: values[one.name] for one in fields(cls) if one.name != "upscale"}
        return cls(**own, upscale=UpscaleSettings.from_api(values, UpscaleSettings()))

    def generation(self, size: tuple[int, int]) -> GenerationSettings:
        """The settings for a picture of `size` (width, height)."""
        width, height = scaled_size(size, self.scale)
        return GenerationSettings(
            width=width,
            height=height,
            prompt=self.prompt or "",
            negative_prompt=self.negative_prompt or "",
            steps=int(self.steps),
            sampler=self.sampler,
            cfg_scale=self.cfg_scale,
            seed=drawn_seed(int(self.seed)),
            denoising_strength=self.denoise,
            upscale=self.upscale,
        )


class Page:
    """What the page's buttons do; the model is loaded at the first use."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self.arguments = arguments
        self.folder = folder

    @cached_property
    def engine(self) -> Engine:
        return load_engine(self.arguments)

    def upscale(
        self, path: str | None, inputs: Inputs, progress: Callable[[int, int], None] | None = None
    ) -> tuple[Path, Path, str]:
        """Before and after as files, both of the result's size, and the parameters text."""
        picture = self._picture(path)
        generation = replace(inputs.generation(picture.size), model=model_name(self.arguments.model))
        result = self.engine.upscale([picture.rgb], generation, progress).pictures[0]
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        before, after = (
            folder / "before.png",
            folder / f"{Path(str(path)).stem}-{generation.width}x{generation.height}.png",
        )
        plain = plain_resize(picture.rgb, generation.size)
        save_png(picture.dressed(plain), before, icc_profile=picture.icc_profile)
        save_png(picture.dressed(result), after, write_parameters(generation), picture.icc_profile)
        return before, after, write_parameters(generation)

    def compare(
        self,
        path: str | None,
        inputs: Inputs,
        methods: Sequence[str],
        schedulers: Sequence[str],
        progress: Callable[[str], Any],
    ) -> tuple[str, Path]:
        """The page with the slider, as HTML, and the sheet as a file; each method with each schedule is a variant."""
        picture = self._picture(path)
        base = replace(inputs.generation(picture.size), model=model_name(self.arguments.model))
        variants = [*default_variants(base), *paired_variants(base.upscale, methods, schedulers)]
        entries = compare(self.engine, picture, variants, base, progress=progress)
        report = make_report(subject_of(picture, base), entries, shown=picture.dressed)
        sheet = Path(tempfile.mkdtemp(dir=self.folder)) / "comparison.png"
        save_png(report.sheet(), sheet, icc_profile=picture.icc_profile)
        return report.page(), sheet

    def _picture(self, path: str | None) -> Picture:
        if path is None:
            raise InputError("Choose a picture first.")
        return load_picture(Path(path))

    def plot(self, inputs: Inputs) -> Any:
        """The schedule that would run, as a matplotlib figure."""
        name = SAMPLERS[inputs.sampler].automatic if inputs.upscale.scheduler == AUTOMATIC else inputs.upscale.scheduler
        table = self.engine.model.sigmas if "engine" in self.__dict__ else sd1_sigmas()
        plans = plan_rows(
            [name], int(inputs.steps), inputs.denoise, matched=inputs.upscale.matched_noise, model_sigmas=table
        )
        return plot_rows(plans, f"{int(inputs.steps)} steps at denoising strength {inputs.denoise:g}")


_FIRST = (
    *("scale", "method", "scheduler", "exact_steps", "keep_statistics", "matched_noise"),
    *("sampler", "steps", "denoise", "cfg_scale", "seed", "prompt", "negative_prompt"),
)
"""Order of the controls' values for the page's clients; further options come behind them."""


def _controls(gr: Any) -> dict[str, Any]:
    """The components by the names of `Inputs` and of the options, in the order of `_FIRST`."""
    options = rows(UpscaleSettings)
    main = ("method", "scheduler")

    def made(name: str, **more: Any) -> Any:
        return make_control(gr, options[name], options[name].default, **more)

    with gr.Row():
        found = {"scale": gr.Slider(SMALLEST_SCALE, LARGEST_SCALE, value=DEFAULT_SCALE, step=0.25, label="Scale")}
        found["method"] = made("method")
    found["scheduler"] = made("scheduler", choices=[(described(name), name) for name in _schedulers()])
    with gr.Row():
        found["steps"] = gr.Slider(1, 150, value=20, step=1, label="Steps")
        found["denoise"] = gr.Slider(0, 1, value=0.5, step=0.01, label="Denoising strength")
    found["prompt"] = gr.Textbox(label="Prompt", lines=2)
    with gr.Accordion("More", open=False):
        with gr.Row():
            found |= {name: made(name) for name in options if name not in main}
        gr.Markdown("\n".join(f"- **{row.label}**: {row.tip}" for row in options.values()))
        with gr.Row():
            found["sampler"] = gr.Dropdown(list(GENERATION_SAMPLERS), value="Euler a", label="Sampler")
            found["cfg_scale"] = gr.Slider(1, 30, value=7, step=0.5, label="CFG scale")
            found["seed"] = gr.Number(value=1, precision=0, label="Seed")
        found["negative_prompt"] = gr.Textbox(label="Negative prompt")
    return {name: found[name] for name in (*_FIRST, *(name for name in found if name not in _FIRST))}


def _schedulers() -> list[str]:
    return [*SCHEDULES, AUTOMATIC]


_PLOTTED = ("scheduler", "matched_noise", "sampler", "steps", "denoise")
"""Fields of `Inputs` that the plot of the schedule depends on."""


@contextmanager
def _errors_shown(gr: Any) -> Iterator[None]:
    """Show bad input on the page instead of a traceback."""
    try:
        yield
    except SettingsError as error:
        raise gr.Error(error.on_page) from error
    except ValueError as error:
        raise gr.Error(str(error)) from error


def build_page(page: Page) -> Any:
    """The Gradio page."""
    import gradio as gr

    has_slider = hasattr(gr, "ImageSlider")

    def read(values: Sequence[Any]) -> Inputs:
        return Inputs.of_controls(dict(zip(controls, values, strict=True)))

    def upscale(path: str | None, *values: Any, progress: Any = gr.Progress()) -> list[Any]:  # noqa: B008
        with _errors_shown(gr):
            before, after, text = page.upscale(path, read(values), partial(_show_steps, progress, "Denoising"))
        pictures = [(str(before), str(after))] if has_slider else [str(before), str(after)]
        return [*pictures, str(after), text]

    def compare(
        path: str | None,
        methods: list[str],
        schedulers: list[str],
        *values: Any,
        progress: Any = gr.Progress(),  # noqa: B008
    ) -> tuple[str, str]:
        with _errors_shown(gr):
            shown, sheet = page.compare(
                path, read(values), methods, schedulers, lambda name: nullcontext(partial(_show_steps, progress, name))
            )
        return _FRAME.format(html.escape(shown)), str(sheet)

    def plot(*values: Any) -> Any:
        with _errors_shown(gr):
            return page.plot(read(values))

    with gr.Blocks(title="Latent Upscale") as blocks:
        gr.Markdown("# Latent Upscale\nEnlarge a picture in the latent space, with the steps that you asked for.")
        with gr.Row():
            with gr.Column():
                picture = gr.Image(type="filepath", image_mode=None, label="Picture", height=360)
                controls = _controls(gr)
                components = list(controls.values())
                button = gr.Button("Upscale", variant="primary")
            with gr.Column():
                shown = _before_after(gr, has_slider)
                download = gr.File(label="Result (PNG with its parameters)")
                text = gr.Textbox(label="Parameters", lines=3, interactive=False)
                schedule = gr.Plot(label="Which steps run")
        compare_button, variants, comparison = _comparison(gr)
        button.click(upscale, [picture, *components], [*shown, download, text])
        compare_button.click(compare, [picture, *variants, *components], comparison)
        blocks.load(plot, components, schedule)
        for name in _PLOTTED:
            controls[name].change(plot, components, schedule, show_progress="hidden")
    return blocks


_FRAME = '<iframe title="Comparison" style="width: 100%; height: 90vh; border: 0" srcdoc="{}"></iframe>'
"""The comparison's page is a whole document with styles of its own."""


def _show_steps(progress: Any, name: str, done: int, total: int) -> None:
    progress((done, total), desc=name, unit="steps")


def _comparison(gr: Any) -> tuple[Any, list[Any], list[Any]]:
    """The button, what to compare, and where it is shown."""
    with gr.Accordion("Compare", open=False):
        gr.Markdown(
            "Beside the default of the WebUI, at the same seed: the settings above, and each method with each "
            "schedule that is chosen here."
        )
        with gr.Row():
            known = rows(CompareSettings)
            methods = make_control(gr, known["compare_methods"], ())
            schedulers = make_control(gr, known["compare_schedulers"], ())
        button = gr.Button("Compare")
        slider = gr.HTML()
        sheet = gr.File(label="Sheet (PNG)")
    return button, [methods, schedulers], [slider, sheet]


def _before_after(gr: Any, has_slider: bool) -> list[Any]:
    if has_slider:
        return [gr.ImageSlider(label="Resized and upscaled", type="filepath")]
    return [gr.Image(label="Resized"), gr.Image(label="Upscaled")]


def run(arguments: argparse.Namespace) -> int:
    """Serve the page until it is stopped."""
    checked_source(arguments.model)
    with tempfile.TemporaryDirectory(prefix="latent-upscale-") as folder:
        blocks = build_page(Page(arguments, Path(folder)))
        blocks.launch(
            server_name=arguments.host,
            server_port=arguments.port,
            inbrowser=arguments.open,
            allowed_paths=[folder],
        )
    return 0
