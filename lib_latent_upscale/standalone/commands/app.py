"""The subcommand `app`: the same upscale as a page in the browser (Gradio 4, 5 and 6)."""

from __future__ import annotations

import argparse
import html
import inspect
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from lib_latent_upscale.comparison.settings import CompareSettings
from lib_latent_upscale.controls import make_control
from lib_latent_upscale.errors import GenerationError, InputError, Interrupted
from lib_latent_upscale.memory import is_out_of_memory
from lib_latent_upscale.options import Option, Settings, SettingsError, rows
from lib_latent_upscale.samplers import GENERATION_SAMPLERS
from lib_latent_upscale.schedules import SCHEDULES, described
from lib_latent_upscale.settings import AUTOMATIC, UpscaleSettings
from lib_latent_upscale.standalone.commands.common import (
    DEFAULT_SCALE,
    LARGEST_SCALE,
    SMALLEST_SCALE,
    checked_models,
)
from lib_latent_upscale.standalone.commands.page import Inputs, Page
from lib_latent_upscale.standalone.commands.passes import PASSES, WITH_MODEL, leave_out
from lib_latent_upscale.standalone.engine.generation import GenerationSettings
from lib_latent_upscale.standalone.engine.models import DEMO, model_name
from lib_latent_upscale.standalone.files.settings import ShapeSettings

__all__ = ["Inputs", "Page", "build_page", "run"]


_FIRST = (
    *("scale", "method", "scheduler", "exact_steps", "keep_statistics", "matched_noise"),
    *("sampler", "steps", "denoise", "cfg_scale", "seed", "prompt", "negative_prompt"),
)
"""Order of the values in calls of the page's API; new options follow them."""


def _controls(gr: Any, has: Callable[[type[Settings]], bool] = lambda _: True) -> dict[str, Any]:
    """The components by the names of `Inputs` and of the options, in the order of `_FIRST`."""
    options, usual = rows(UpscaleSettings), GenerationSettings
    main = ("method", "scheduler")

    def made(name: str, **more: Any) -> Any:
        return make_control(gr, options[name], options[name].default, **more)

    with gr.Row():
        scales = (SMALLEST_SCALE, LARGEST_SCALE)
        found = {"scale": gr.Slider(*scales, value=DEFAULT_SCALE, step=0.25, label="Scale", min_width=_CONTROL)}
        found["method"] = made("method", min_width=_CONTROL)
    found["scheduler"] = made("scheduler", choices=[(described(name), name) for name in _schedulers()])
    with gr.Row():
        found["steps"] = gr.Slider(1, 150, value=usual.steps, step=1, label="Steps", min_width=_CONTROL)
        strength = usual.denoising_strength
        found["denoise"] = gr.Slider(0, 1, value=strength, step=0.01, label="Denoising strength", min_width=_CONTROL)
    found["prompt"] = gr.Textbox(label="Prompt", lines=2)
    with gr.Accordion("More", open=False):
        with gr.Row():
            found |= {name: made(name, min_width=_CONTROL) for name in options if name not in main}
        gr.Markdown(_tips(options))
        with gr.Row():
            samplers = list(GENERATION_SAMPLERS)
            found["sampler"] = gr.Dropdown(samplers, value=usual.sampler, label="Sampler", min_width=_CONTROL)
            found["cfg_scale"] = gr.Slider(
                1, 30, value=usual.cfg_scale, step=0.5, label="CFG scale", min_width=_CONTROL
            )
            found["seed"] = gr.Number(value=usual.seed, precision=0, label="Seed (-1 draws one)", min_width=_CONTROL)
        found["negative_prompt"] = gr.Textbox(label="Negative prompt")
        with gr.Row():
            pixels = {"value": 0, "precision": 0, "min_width": _CONTROL}
            found["width"] = gr.Number(label="Width in pixels (0: by Scale)", **pixels)
            found["height"] = gr.Number(label="Height in pixels (0: keeps the shape)", **pixels)
            shapes = rows(ShapeSettings)["resize_mode"]
            found["resize_mode"] = make_control(
                gr, shapes, shapes.default, info=f"If the aspect ratio changes: {_MODES}"
            )
    for kind in WITH_MODEL:
        found |= _pass_controls(gr, kind, there=has(kind))
    for control in found.values():
        if isinstance(control, (gr.Slider, gr.Number)):
            control.preprocess = _as_it_is
    return {name: found[name] for name in (*_FIRST, *(name for name in found if name not in _FIRST))}


def _pass_controls(gr: Any, kind: type[Settings], *, there: bool) -> dict[str, Any]:
    """The switch of a pass and its options by their names in the API, in a closed accordion; the switch is off."""
    options = {name: row for name, row in rows(kind).items() if row.control}
    with gr.Accordion(kind.NAME, open=False):
        if not there:
            gr.Markdown(f"To use it, start the page with `{kind.MODEL_FLAG} MODEL`.")
        found = {kind.SWITCH: gr.Checkbox(False, label=f"Use the {kind.NAME}", interactive=there)}
        with gr.Row():
            made = {name: make_control(gr, row, row.default, min_width=_CONTROL) for name, row in options.items()}
            found |= {kind.api_name(name): control for name, control in made.items()}
        gr.Markdown(_tips(options))
    return found


def _tips(options: Mapping[str, Option]) -> str:
    return "\n".join(f"- **{row.label}**: {row.tip}" for row in options.values())


def _schedulers() -> list[str]:
    return [*SCHEDULES, AUTOMATIC]


_PLOTTED = ("scheduler", "exact_steps", "matched_noise", "starting_noise", "sampler", "steps", "denoise")
"""Controls that the plot of the schedule depends on."""

_MODES = "stretch, crop the sides, or fill the borders"
_SIZED = ("scale", "width", "height", "resize_mode", *(row.settings.SWITCH for row in PASSES))
"""Controls that the result's size depends on."""


@contextmanager
def _errors_shown(gr: Any) -> Iterator[None]:
    """Show errors that the user can correct on the page, without a traceback there or in the console."""
    try:
        yield
    except Interrupted as error:
        raise _shown(gr, "Stopped.") from error
    except SettingsError as error:
        raise _shown(gr, error.on_page) from error
    except (ValueError, GenerationError, OSError) as error:  # OSError: the disk is full
        raise _shown(gr, str(error)) from error
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise _shown(gr, "Out of memory; try a smaller size, or start the page with --device cpu.") from error


def _shown(gr: Any, said: str) -> Exception:
    quiet = {"print_exception": False} if "print_exception" in inspect.signature(gr.Error).parameters else {}
    error: Exception = gr.Error(said, **quiet)
    return error


def _heading(page: Page) -> str:
    name = model_name(page.arguments.model)
    demo = (
        " It is included to show how everything works: it is too small for real pictures and ignores prompts. "
        "For real pictures start the page with a checkpoint of your own: `--model sd15.safetensors`."
    )
    return f"# Latent Upscale\nModel: **{name}**.{demo if page.arguments.model == DEMO else ''}"


def build_page(page: Page) -> Any:
    """The page as a `gradio.Blocks`."""
    import gradio as gr

    page.tell = gr.Warning
    has_slider = hasattr(gr, "ImageSlider")

    def read(values: Sequence[Any]) -> Inputs:
        return Inputs.of_controls({**defaults, **dict(zip(controls, values, strict=False))})

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

    def plot(*values: Any) -> str:
        with _errors_shown(gr):
            return page.plot(read(values))

    def sizes(path: str | None, *values: Any) -> str:
        try:
            return page.sizes(path, read(values))
        except (ValueError, OSError) as error:
            return str(error)

    with gr.Blocks(title="Latent Upscale", analytics_enabled=False, delete_cache=(_HOUR, _DAY)) as blocks:
        gr.Markdown(_heading(page))
        with gr.Row():
            with gr.Column(min_width=_COLUMN):
                picture = gr.Image(type="filepath", image_mode=None, label="Picture", height=360)
                own = picture.preprocess  # reads the picture, and answers a damaged one with a traceback
                picture.preprocess = lambda given: given.path if given and given.path else own(given)
                controls = _controls(gr, page.has)
                components = list(controls.values())
                defaults = {name: control.value for name, control in controls.items()}
                size = gr.Markdown()
                with gr.Row():
                    button = gr.Button("Upscale", variant="primary")
                    stop = gr.Button("Stop")
            with gr.Column(min_width=_COLUMN):
                shown = _before_after(gr, has_slider)
                download = gr.File(label="Result (PNG with its parameters)")
                text = gr.Textbox(label="Parameters", lines=3, interactive=False)
                gr.Markdown("**Which steps run**")
                schedule = gr.HTML()
        compare_button, variants, comparison = _comparison(gr)
        gr.HTML(_STYLE)
        one_at_a_time = {"concurrency_id": "model", "concurrency_limit": 1}
        button.click(upscale, [picture, *components], [*shown, download, text], **one_at_a_time)
        compare_button.click(compare, [picture, *variants, *components], comparison, **one_at_a_time)
        stop.click(page.stop, None, None, queue=False, api_name=False)
        blocks.load(plot, components, schedule)
        blocks.load(sizes, [picture, *components], size, api_name=False)
        for name in _PLOTTED:
            controls[name].change(plot, components, schedule, show_progress="hidden")
        for control in (picture, *(controls[name] for name in _SIZED)):
            control.change(sizes, [picture, *components], size, show_progress="hidden", api_name=False)
    return blocks


_CONTROL = 240
"""Minimum width of a control in pixels; narrower ones move to the next row, so that labels are not cut."""
_COLUMN = 340
"""Minimum width of a column in pixels; on phones, with less than twice as many, the columns are stacked."""
_STYLE = f"""<style>
.form > .block:has(input[type=checkbox]) {{ min-width: min({_CONTROL}px, 100%) !important }}
input:is([role=combobox], [role=listbox]) {{ padding-right: 2em; text-overflow: ellipsis }}
</style>"""
"""Gradio 6 gives checkboxes no width of their own, and lets long choices run into the menu's arrow."""
_HOUR, _DAY = 3600, 86400
"""Seconds: how often Gradio looks for pictures of the page to delete, and how old those are."""

_FRAME = '<iframe title="Comparison" style="width: 100%; height: 90vh; border: 0" srcdoc="{}"></iframe>'
"""The comparison's page is a whole document with styles of its own."""


def _as_it_is(value: Any) -> Any:
    """Instead of Gradio's check of numbers, which answers an emptied box with a traceback: `Inputs` checks them."""
    return value


def _show_steps(progress: Any, name: str, done: int, total: int) -> None:
    progress((done, total), desc=name, unit="steps")


def _comparison(gr: Any) -> tuple[Any, list[Any], list[Any]]:
    """The button, the controls for what to compare, and the components that show the result."""
    with gr.Accordion("Compare", open=False):
        gr.Markdown(
            "Runs, with the same seed, the WebUI's default, the settings above, and each chosen method with each "
            "chosen schedule."
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
        return [gr.ImageSlider(label="Left: resized. Right: upscaled", type="filepath")]
    return [gr.Image(label="Resized, without a model"), gr.Image(label="Upscaled")]


def run(arguments: argparse.Namespace) -> int:
    """Serve the page until it is stopped, and delete its pictures then; returns the exit code.

    Raises:
        InputError: a model is missing, or the page cannot be served at this address.
    """
    if arguments.model == DEMO and arguments.tile_controlnet is None:
        arguments.tile_controlnet = DEMO
    leave_out(arguments)
    checked_models(arguments)
    _check_address(arguments.host, arguments.port)
    _remove_old_folders()
    with _own_folder() as folder:
        try:
            build_page(Page(arguments, Path(folder))).launch(
                server_name=f"[{arguments.host}]" if ":" in arguments.host else arguments.host,  # as in an address
                server_port=arguments.port,
                inbrowser=arguments.open,
                allowed_paths=[folder],
            )
        except (OSError, ValueError) as error:
            raise InputError(
                f"The page cannot be served at {arguments.host}, port {arguments.port}: {error}"
            ) from error
    return 0


def _check_address(host: str, port: int) -> None:
    """Check that the page can be served there.

    Raises:
        InputError: it cannot.
    """
    if not 1 <= port <= _LAST_PORT:
        raise InputError(f"Port {port} is out of range: allowed is 1 to {_LAST_PORT}.")
    try:
        (family, kind, _, _, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        with socket.socket(family, kind) as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, os.name == "posix")  # one that has just ended
            listening.bind(address)
    except socket.gaierror as error:
        raise InputError(
            f"Host {host!r} is not an address of this machine; give 127.0.0.1, or 0.0.0.0 for all."
        ) from error
    except PermissionError as error:
        raise InputError(f"You may not use port {port}; give --port a number of 1024 or above.") from error
    except OSError as error:
        raise InputError(
            f"Port {port} of {host} is not available ({error.strerror or error}); choose another one with --port, or "
            "stop the page that runs there."
        ) from error


_LAST_PORT = 65535
_FOLDER = "latent-upscale-page-"


@contextmanager
def _own_folder() -> Iterator[str]:
    """A temporary folder for the page's pictures and Gradio's copies of them."""
    before = os.environ.get("GRADIO_TEMP_DIR")
    with tempfile.TemporaryDirectory(prefix=f"{_FOLDER}{os.getpid()}-", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = str(Path(folder) / "gradio")
        try:
            yield folder
        finally:
            os.environ.pop("GRADIO_TEMP_DIR")
            if before is not None:
                os.environ["GRADIO_TEMP_DIR"] = before


def _remove_old_folders() -> None:
    """Delete the folders of pages that were killed; a folder's name has the id of its process."""
    import psutil  # type: ignore[import-untyped, unused-ignore]

    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*-*"):
        number = re.fullmatch(rf"{_FOLDER}(\d+)-.*", folder.name)
        if number and not psutil.pid_exists(int(number[1])):
            shutil.rmtree(folder, ignore_errors=True)
