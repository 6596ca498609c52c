"""The extension inside a small double of its host."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.core.x4_small import write_folder
from tests.webui.comparing_host import ComparingHost
from tests.webui.x4_double import Upscaler

FOLDER = Path(__file__).parent
SCRIPT = FOLDER.parents[1] / "scripts" / "latent_upscale.py"


def _load(name: str, path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


double = _load("host_double", FOLDER / "host_double.py")


class WebUI:
    """The host with the extension loaded, as after its start."""

    def __init__(self, host: dict[str, Any]) -> None:
        self.modules = host
        self.reload()

    def reload(self) -> None:
        """What "Reload UI" does: callbacks are cleared and the script's file is executed again."""
        callbacks = self.modules["modules.script_callbacks"].callbacks
        for unloaded in callbacks["unloaded"]:
            unloaded()
        for registered in callbacks.values():
            registered.clear()
        self.script_module = _load("latent_upscale.py", SCRIPT)
        for callback in [*callbacks["settings"], *callbacks["before_ui"]]:
            callback()
        self.script = self.script_module.LatentUpscaleScript()
        self.companion = self.script_module.LatentUpscaleCompanion()
        self.script.args_from, self.script.args_to = 3, 3 + len(self.script.ui(True))
        neighbour = SimpleNamespace(
            args_from=self.script.args_to, args_to=self.script.args_to + 2, title=lambda: "next"
        )
        self.runner = SimpleNamespace(
            scripts=[self.companion, self.script, neighbour],
            alwayson_scripts=[self.companion],
            selectable_scripts=[self.script, neighbour],
        )
        defaults = [control.value for control in self.script.ui(True)]
        self.arguments = [1, "always", "on", *defaults, "the next", "script's values"]

    def adapter(self, name: str) -> Any:
        return sys.modules[f"lib_latent_upscale.webui.{name}"]

    @property
    def axes(self) -> list[Any]:
        return self.modules["modules.scripts"].scripts_data[0].module.axis_options

    @property
    def options(self) -> Any:
        return self.modules["modules.shared"].opts

    def process(self, *pictures: Image.Image, **values: Any) -> Any:
        """A processing object that the extension's hooks see, of a call to the API unless `values` say otherwise."""
        given = {"is_api": True, "script_args": list(self.arguments), **values}
        return double.Img2Img(list(pictures), scripts=self.runner, **given)

    def run(self, p: Any, *script_args: Any) -> Any:
        """What the API does: the caller's list takes the place of the script's own arguments."""
        p.script_args[self.script.args_from : self.script.args_to] = script_args
        given = p.script_args[self.script.args_from : self.script.args_to]
        return self.script.run(p, *given)

    def host_alone(self, p: Any) -> Any:
        return double.process_images(p)


@pytest.fixture
def webui() -> Iterator[WebUI]:
    with double.installed() as host:
        yield WebUI(host)


@pytest.fixture
def picture() -> Image.Image:
    pixels = np.random.default_rng(5).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def plain_sampler() -> Any:
    return double.Sampler()


@pytest.fixture
def timestep_sampler() -> Any:
    return double.TimestepSampler()


@pytest.fixture
def discarding_sampler() -> Any:
    return double.Sampler(discards=True)


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture
def models(webui, small, tmp_path) -> Iterator[Path]:
    """The host's folder for x4 upscalers, with one model in it."""
    folder = tmp_path / "x4-upscaler"
    folder.mkdir()
    (folder / "small").symlink_to(small)
    webui.modules["modules.paths"].models_path = str(tmp_path)
    webui.adapter("passes.x4").missing = lambda: None
    return folder


@pytest.fixture
def upscaler(webui, models) -> Upscaler:
    return Upscaler(webui)


@pytest.fixture
def host(webui):
    """The double with what a comparison needs besides: a state, seeds, samplers that launch, and infotexts."""
    return ComparingHost(webui)
