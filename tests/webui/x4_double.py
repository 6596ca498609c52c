"""What stands for the x4 upscaler in tests of the pass."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image

from lib_latent_upscale.errors import Interrupted
from lib_latent_upscale.x4_upscaler import X4Result, X4Settings


class Upscaler:
    """Stands for the x4 upscaler: enlarges without a model and remembers how it was called."""

    def __init__(self, webui: Any) -> None:
        self.seeds: list[int] = []
        self.loaded: list[Path] = []
        self.formats: list[torch.dtype | None] = []
        self.moves = webui.modules["modules.sd_models"].moves
        webui.modules["modules.sd_models"].model_data.sd_model = SimpleNamespace()
        self.state = webui.modules["modules.shared"].state
        self.happens: dict[int, Callable[[], None]] = {}
        self.progress: list[tuple[Any, ...]] = []
        webui.adapter("passes.x4").upscale_x4 = self.upscale
        webui.adapter("passes.x4").load_x4 = self.load

    def load(self, path: Path, dtype: torch.dtype | None, **_: Any) -> Any:
        self.loaded.append(path)
        self.formats.append(dtype)
        return SimpleNamespace(name=path.name, unet=SimpleNamespace(dtype=dtype))

    def upscale(self, picture: Image.Image, _model: Any, settings: X4Settings, progress: Any, interrupted: Any) -> Any:
        assert self.moves[-1] == "away"
        self.seeds.append(settings.seed)
        self.happens.get(len(self.seeds), lambda: None)()
        progress(1, 2)
        self.progress.append((self.state.textinfo, self.state.sampling_step, self.state.sampling_steps))
        if interrupted():
            raise Interrupted("The x4 upscaler was interrupted; the picture before it is kept.")
        large = picture.resize((4 * picture.width, 4 * picture.height))
        return X4Result(large, replace(settings, tile=96, decoder_tile=128), ("Smaller tiles were used.",))


def fail(error: Exception) -> Callable[[], None]:
    def failing() -> None:
        raise error

    return failing
