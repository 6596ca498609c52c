"""The command `latent-upscale`: its arguments, and how errors end it.

Nothing heavy is imported before a subcommand runs, so that --help answers at once.
"""

from __future__ import annotations

import argparse
import importlib
import io
import logging
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from lib_latent_upscale import __version__
from lib_latent_upscale.comparison.settings import CompareSettings
from lib_latent_upscale.errors import GenerationError, InputError, printable
from lib_latent_upscale.options import rows
from lib_latent_upscale.samplers import GENERATION_SAMPLERS
from lib_latent_upscale.settings import SCHEDULES, UpscaleSettings
from lib_latent_upscale.standalone.commands.flags import OUT_OF_MEMORY, add_flags
from lib_latent_upscale.standalone.commands.passes import PASSES, PassRow
from lib_latent_upscale.standalone.engine.generation import GenerationSettings
from lib_latent_upscale.standalone.files.settings import FileSettings, ShapeSettings
from lib_latent_upscale.tile_settings import TileSettings
from lib_latent_upscale.x4_settings import X4Settings

__all__ = ["build_parser", "main", "quiet_libraries"]

EXIT_FAILED, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 1, 2, 130


class _Parser(argparse.ArgumentParser):
    """Reports errors in one sentence, without the usage."""

    def error(self, message: str) -> NoReturn:
        unknown = message.partition("unrecognized arguments: ")[2]
        if unknown and not unknown.startswith("-"):
            message += "; give all pictures together, before or after all options"
        elif unknown and os.path.lexists(unknown):
            message += f"; a name that begins with - is written ./{unknown}"
        elif message.endswith("expected one argument"):
            message += "; one that begins with - is written with =, as in --seed=-1"
        self.exit(EXIT_BAD_INPUT, f"{self.prog}: {printable(message)}\n")


def _size(text: str) -> tuple[int, int]:
    """Width and height; 0 for the one that is left out."""
    match = re.fullmatch(r"(\d*)x(\d*)", text.lower())
    if match is None or not any(match.groups()):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a size: give width x height in pixels, such as 1024x1280, or one of them, 1024x or x1280"
        )
    if any(side and not int(side) for side in match.groups()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size: each side may be 16 to 8192 pixels")
    return int(match[1] or 0), int(match[2] or 0)


def _name(text: str) -> str:
    """The name of a file, folder or model; an empty one comes from a variable of the shell that is not set."""
    if not text:
        raise argparse.ArgumentTypeError("the name is empty; leave the flag out, or give a name")
    return text


def _path(text: str) -> Path:
    return Path(_name(text))


def _add_device(group: argparse._ActionsContainer) -> None:
    group.add_argument("--device", help="device, as torch names it; default: the best one that torch finds")
    group.add_argument("--dtype", help="float32, float16 or bfloat16; default: float16, or float32 on the CPU")


def _add_model(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        type=_name,
        default=GenerationSettings.model,
        help="demo (the default), a .safetensors checkpoint of SD 1.x, 2.x or SDXL, a diffusers folder or a hub id",
    )
    _add_device(group)


def _add_upscale(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("latent upscale")
    add_flags(group, UpscaleSettings)
    group.add_argument(
        "--learned",
        type=_path,
        metavar="FILE",
        help="a latent upscaler of your own, of the model's family, in place of --method: city96/SD-Latent-Upscaler, "
        "NNLatentUpscale or SesquiLSR (.safetensors)",
    )


def _add_field(group: argparse._ActionsContainer, flag: str, name: str, told: str, **more: Any) -> None:
    """A flag for a field of `GenerationSettings`; `{}` in `told` stands for its default."""
    default: Any = getattr(GenerationSettings, name)
    shown = f"(default {default:g})" if isinstance(default, float) else f"(default {default})"
    group.add_argument(flag, type=type(default), default=default, help=told.format(shown), **more)


def _add_steps(group: argparse._ActionsContainer) -> None:
    _add_field(group, "--steps", "steps", "sampling steps {}")
    _add_field(group, "--denoise", "denoising_strength", "denoising strength, 0 to 1 {}")


def _add_generation(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("generation")
    size = group.add_mutually_exclusive_group()
    size.add_argument("--scale", type=float, help="scale factor, 0.25 to 8 (default 2)")
    size.add_argument(
        "--size",
        type=_size,
        metavar="WxH",
        help="width and height of the result in pixels; 1024x or x1024 keeps the aspect ratio",
    )
    add_flags(group, ShapeSettings)
    group.add_argument("--prompt", default="", help="what the picture shows; plain text of any length")
    group.add_argument("--negative-prompt", default="", help="what it does not show")
    _add_steps(group)
    _add_field(group, "--sampler", "sampler", f"{', '.join(GENERATION_SAMPLERS)} {{}}", metavar="NAME")
    _add_field(group, "--cfg-scale", "cfg_scale", "guidance scale {}")
    _add_field(group, "--seed", "seed", "seed of the noise {}; -1 draws one for each picture")


def _add_passes(parser: argparse.ArgumentParser) -> None:
    for row in PASSES:
        group = parser.add_argument_group(row.settings.NAME, row.tip)
        _add_pass_model(group, row)
        add_flags(group, row.settings, silent=True)


def _add_pass_model(group: argparse._ActionsContainer, row: PassRow) -> None:
    said = f"the {row.settings.NAME}: {row.model}; or none"
    group.add_argument(row.settings.MODEL_FLAG, type=_name, metavar="MODEL", help=said)


def _add_tile(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "tile ControlNet", "the picture itself guides the denoising, so that --denoise 0.8 keeps the composition"
    )
    group.add_argument(
        "--tile-controlnet",
        type=_name,
        metavar="MODEL",
        help="a tile ControlNet of the model's family: a .safetensors file, a diffusers folder or a hub id, such as "
        "lllyasviel/control_v11f1e_sd15_tile; demo: for the demo model; none: without, though --like says one",
    )
    add_flags(group, TileSettings, silent=True)


def _add_cluster(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("cluster", "several pictures at once, each worker with the models loaded once")
    group.add_argument(
        "--ray",
        nargs="?",
        const="local",
        metavar="ADDRESS",
        help="spread the pictures over a Ray cluster, HOST:PORT or auto; without an address over this machine's GPUs, "
        "else its cores. Behind the pictures, so that none is taken for the address",
    )
    group.add_argument(
        "--ray-workers", type=int, metavar="N", help="at most so many workers (default: one for each GPU, else core)"
    )


def _add_quiet_and_overwrite(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    _add_overwrite(parser)


def _add_overwrite(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace existing files; without it an output that you name is refused, and others become name-1.png",
    )


def _add_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", nargs="+", metavar="IN", help="pictures, folders of pictures, patterns such as *.jpg")
    parser.add_argument(
        "-o",
        "--output",
        type=_name,
        metavar="OUT",
        help="the file to write (.png, .jpg or .webp); for several pictures, the folder; default: next to IN",
    )
    add_flags(parser.add_argument_group("files"), FileSettings)


def _add_like(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--like",
        type=_path,
        metavar="MADE",
        help="take all settings from a picture made by this command or the WebUI; flags that you give win",
    )


def _upscale(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = commands.add_parser(
        "upscale", help="enlarge a picture or a folder of pictures", description="Enlarge a picture or a folder."
    )
    _add_files(parser)
    _add_like(parser)
    _add_generation(parser)
    _add_upscale(parser)
    _add_model(parser)
    _add_tile(parser)
    _add_passes(parser)
    parser.add_argument(
        "--batch-size", type=int, default=1, help="pictures of equal size to process at once (default 1)"
    )
    _add_cluster(parser)
    _add_quiet_and_overwrite(parser)


def _x4(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = commands.add_parser(
        "x4",
        help="make a picture or a folder of pictures 4 times larger with the Stable Diffusion x4 upscaler",
        description="Make a picture or a folder of pictures exactly 4 times larger with the Stable Diffusion x4 "
        "upscaler, in tiles that fit in memory.",
    )
    _add_files(parser)
    model = next(row.model for row in PASSES if row.settings is X4Settings)
    parser.add_argument("--model", type=_name, required=True, help=model)
    _add_device(parser)
    add_flags(parser.add_argument_group("settings"), X4Settings, "--", seed=1)
    _add_quiet_and_overwrite(parser)


def _variant_keys() -> list[str]:
    named = ("method", "scheduler")
    return ["steps", "denoise", "sampler", "cfg_scale", *(name for name in rows(UpscaleSettings) if name not in named)]


def _compare(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = commands.add_parser(
        "compare",
        help="compare this upscale with the WebUI's default, on one sheet",
        description="Enlarge a picture in several ways with the same seed: resized without a model, as the WebUI does "
        "by default (bilinear, steps cut by the denoising strength), with the settings given here, and with tile "
        "ControlNet if one is given.",
    )
    parser.add_argument("input", nargs="+", metavar="IN", help="a picture")
    parser.add_argument(
        "-o", "--output", type=_path, metavar="SHEET", help="the PNG to write; the metrics go next to it as .json"
    )
    parser.add_argument(
        "--variant",
        action="append",
        default=[],
        metavar="METHOD:SCHEDULER[:KEY=VALUE,...]",
        help=f"one more variant; keys: {', '.join(_variant_keys())}",
    )
    parser.add_argument("--reference", type=_path, metavar="PICTURE", help="the known original, to compare with")
    parser.add_argument(
        "--html", type=_path, metavar="FILE", help="the page with the slider; default: next to the sheet"
    )
    add_flags(parser, CompareSettings)
    _add_generation(parser)
    _add_upscale(parser)
    _add_model(parser)
    _add_tile(parser)
    _add_quiet_and_overwrite(parser)


def _schedules_command(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = commands.add_parser(
        "schedules",
        help="show the sigma schedules and which steps run",
        description="Show the schedules as a table, and as a plot if --output is given: the whole range, the "
        "steps that actually run, and the WebUI's default cut next to exact steps. Needs no model: it uses SD 1.x's "
        "noise table.",
    )
    _add_steps(parser)
    parser.add_argument(
        "--scheduler",
        action="append",
        default=[],
        metavar="NAME",
        help=f"only this one; may be repeated: {', '.join(SCHEDULES.names)}",
    )
    parser.add_argument(
        "--matched-noise", action="store_true", help="also show the schedules that start from the same noise"
    )
    parser.add_argument("-o", "--output", type=_path, metavar="PLOT", help="a .png or .svg to write")
    _add_overwrite(parser)


def _app(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = commands.add_parser(
        "app", help="a page in the browser", description="The same as a page in the browser (Gradio)."
    )
    parser.set_defaults(quiet=False, learned=None, prompt="", negative_prompt="")  # what else a model is loaded with
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1: only this machine)"
    )
    parser.add_argument("--port", type=int, default=7870, help="port to listen on (default 7870)")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    _add_model(parser)
    passes = parser.add_argument_group("passes", "what the page offers besides the latent upscale")
    passes.add_argument(
        "--tile-controlnet",
        type=_name,
        metavar="MODEL",
        help="a tile ControlNet, or none; default: the demo model's, with that model",
    )
    for row in PASSES:
        _add_pass_model(passes, row)


def _convert(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = commands.add_parser(
        "convert",
        help="convert a latent upscaler from a pickle to a .safetensors file",
        description="Convert a latent upscaler from a pickle (.pt, .pth, .bin) to a .safetensors file. Nothing but "
        "tensors is read from it.",
    )
    parser.add_argument("input", type=_path, metavar="FILE", help="the pickle")
    parser.add_argument("-o", "--output", type=_path, metavar="OUT", help="the file to write; default: next to FILE")
    _add_overwrite(parser)


def build_parser(without_default: Iterable[str] = ()) -> argparse.ArgumentParser:
    """The parser of the whole command; a subcommand is a module of this name with `run(arguments) -> exit code`.

    Args:
        without_default: names of arguments of `upscale` whose default is None, to tell which ones are given.
    """
    parser = _Parser(prog="latent-upscale", description="Enlarge pictures in the latent space of Stable Diffusion.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for add in (_upscale, _x4, _compare, _schedules_command, _convert, _app):
        add(commands)
    commands.choices["upscale"].set_defaults(**dict.fromkeys(without_default))
    return parser


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments; for `upscale --like` with the settings of that picture."""
    arguments = build_parser().parse_args(argv)
    if getattr(arguments, "like", None) is None:
        return arguments
    from lib_latent_upscale.standalone.commands.like import made_like

    return made_like(arguments, build_parser(vars(arguments)).parse_args(argv))


class _Sentences(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def quiet_libraries() -> None:
    """Log plain sentences, without the messages of libraries that are meant for developers."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Sentences())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for name in ("diffusers", "transformers", "httpx", "huggingface_hub", "matplotlib"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="PIL")  # of damaged and huge pictures, which are told in sentences
    warnings.filterwarnings("ignore", module="huggingface_hub")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", message=".*pkg_resources.*")


def _end_orderly() -> None:
    """Let SIGTERM, and the end of the terminal, end the command as Ctrl+C does: no half-written file is left."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores the terminal's end
            signal.signal(number, lambda number, _: sys.exit(128 + number))


def _take_any_name() -> None:
    """Let stdout take names of files that its encoding does not have, and let it and stderr be closed."""
    if sys.stdout is None or sys.stderr is None:  # `>&-`, and programs without a console
        nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - until the end
        sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere
    if isinstance(sys.stdout, io.TextIOWrapper):
        unicode = sys.stdout.encoding.lower() == "utf-8"
        sys.stdout.reconfigure(errors="surrogateescape" if unicode else "backslashreplace")


def _say(text: str) -> None:
    sys.stderr.write(f"latent-upscale: {printable(text)}\n")


def _told(error: Exception) -> str:
    if isinstance(error, BrokenPipeError):
        return "the program that read the output has ended."
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}."
    return str(error)


def _run(argv: Sequence[str] | None) -> int:
    """Run a subcommand; that its output cannot be written is an error of its own, and not of Python's end."""
    try:
        arguments = _parsed(argv)
        module = importlib.import_module(f"lib_latent_upscale.standalone.commands.{arguments.command}")
        return int(module.run(arguments))
    finally:
        try:
            sys.stdout.flush()
        except OSError:  # what is left would fail again
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0 done, 1 failed or partly failed, 2 bad input, 130 interrupted."""
    _take_any_name()
    quiet_libraries()
    try:
        _end_orderly()
        return _run(argv)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("", __package__.partition(".")[0]):
            raise  # a fault of ours
        extra = "ray" if error.name == "ray" else "standalone"
        _say(
            f'the package {error.name} is missing; install it with: pip install "latent-upscale[{extra}]", in a '
            f'clone of the repository: pip install -e ".[{extra}]"'
        )
        return EXIT_FAILED
    except KeyboardInterrupt:
        _say("stopped; nothing half-finished was written.")
        return EXIT_INTERRUPTED
    except (GenerationError, OSError) as error:  # OSError: the disk is full, a network folder is gone
        _say(_told(error))
        return EXIT_FAILED
    except InputError as error:
        _say(str(error))
        return EXIT_BAD_INPUT
    except (MemoryError, RuntimeError) as error:
        from lib_latent_upscale.memory import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        _say(f"{OUT_OF_MEMORY}.")
        return EXIT_FAILED
