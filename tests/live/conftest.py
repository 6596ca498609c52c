"""A running WebUI, given by the address in LATENT_UPSCALE_WEBUI_URL; without one the live tests skip.

The WebUI needs `--api`, this extension, and a checkpoint that makes pictures (not black ones). For further tests it
needs a second checkpoint (refiner), one whose name contains "inpainting", and a flow-matching one
whose name is in the table of test_flow.py.
"""

import base64
import io
import json
import os
import re
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lib_latent_upscale.checkpoints import read_header, text_width
from tests.live.browser import Page
from tests.live.calls import control_file, described, encoded, refused, tile

ADDRESS = "LATENT_UPSCALE_WEBUI_URL"
SCRIPT = "Latent Upscale"
ROUNDING = 2
"""Of 255: what a host may leave open, where its own equal calls differ, too."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    skip = pytest.mark.skip(reason=f"no running WebUI: put its address into {ADDRESS}, e.g. http://127.0.0.1:7860")
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.live)
            if not os.environ.get(ADDRESS):
                item.add_marker(skip)


class RefusedError(Exception):
    """The WebUI answered with an error."""

    def __init__(self, status: int, answer: dict[str, Any]) -> None:
        super().__init__(f"{status}: {answer}")
        self.status = status
        self.message = str(answer.get("detail") or answer.get("errors") or answer.get("message"))


def decoded(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


@dataclass(frozen=True)
class Result:
    pictures: list[Image.Image]
    info: dict[str, Any]

    @property
    def pixels(self) -> np.ndarray:
        return np.asarray(self.pictures[0].convert("RGB")).astype(int)

    @property
    def infotext(self) -> str:
        return self.info["infotexts"][0]


class WebUI:
    """Calls of the WebUI's API; small pictures and few steps where nothing else is asked for."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._options: set[str] = set()
        self._apart = 0

    def need_options(self, names: Iterable[str]) -> None:
        """Skip the test where the WebUI does not have them all."""
        self._options = self._options or set(self.call("/sdapi/v1/options"))
        missing = [name for name in names if name not in self._options]
        if missing:
            pytest.skip(f"this WebUI has no option {', '.join(missing)}")

    def need_samplers(self, names: Iterable[str]) -> None:
        """Skip the test where the WebUI does not have them all."""
        known = {one["name"] for one in self.call("/sdapi/v1/samplers")}
        missing = [name for name in names if name not in known]
        if missing:
            pytest.skip(f"this WebUI has no sampler {', '.join(missing)}")

    def call(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=600) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise RefusedError(error.code, json.loads(error.read())) from None

    def checkpoints(self) -> list[dict[str, Any]]:
        """What the WebUI says of its checkpoints; of the chosen one alone where its list fails (ersatzForge)."""
        try:
            return self.call("/sdapi/v1/sd-models")
        except RefusedError:
            title = self.call("/sdapi/v1/options")["sd_model_checkpoint"]
            name = Path(title.partition(" [")[0])
            return [{"title": title, "model_name": name.stem, "sha256": None, "filename": str(name)}]

    def host(self, pictures: Image.Image | list[Image.Image], **changes: Any) -> Result:
        """An img2img call without the script, with the host's own latent upscale."""
        pictures = pictures if isinstance(pictures, list) else [pictures]
        self.need_options(changes.get("override_settings", {}))
        body = {
            "init_images": [encoded(picture) for picture in pictures],
            "prompt": "a lighthouse",
            "sampler_name": "Euler",
            "steps": 3,
            "seed": 7,
            "cfg_scale": 2,
            "width": 128,
            "height": 128,
            "denoising_strength": 0.5,
            "resize_mode": 3,
        }
        if isinstance(changes.get("mask"), Image.Image):
            changes["mask"] = encoded(changes["mask"])
        answer = self.call("/sdapi/v1/img2img", {**body, **changes})
        return Result([decoded(text) for text in answer["images"]], json.loads(answer["info"]))

    def ours(
        self, pictures: Image.Image | list[Image.Image], script_args: Any = ("nearest-exact",), **changes: Any
    ) -> Result:
        """The same call with the script; `script_args` may be a dictionary of names, an empty one for its defaults.

        Without them an interpolation enlarges the latents: what "automatic" runs depends on the model of the host.
        """
        script_args = [script_args] if isinstance(script_args, dict) else list(script_args)
        return self.host(pictures, script_name=SCRIPT, script_args=script_args, **changes)

    def possible(self, picture: Image.Image, **changes: Any) -> None:
        """Skip the test where the WebUI cannot do this without the script either."""
        try:
            self.host(picture, **changes)
        except RefusedError as error:
            pytest.skip(f"this WebUI alone refuses {changes}: {error.message}")

    def need_infotexts_after_passes(self, picture: Image.Image) -> None:
        """Skip where infotexts are written before a picture's hooks, which may add a line to them (ersatzForge)."""
        if self.host(picture).infotext.endswith("\n"):
            pytest.skip("this WebUI writes infotexts before passes have run")

    def warm(self, picture: Image.Image, **changes: Any) -> Result:
        """The host's own picture, from its second call on.

        The host draws the encode's noise from a generator that the generation before has left: after one with the
        same seed, it is the draw of that seed.
        """
        self.host(picture, **changes)
        return self.host(picture, **changes)

    def same(self, made: np.ndarray, expected: np.ndarray) -> None:
        """The pictures are equal or, in a host whose own equal calls differ, no farther apart than those.

        Some hosts do not seed the encode's draw, or sum in parts whose size depends on the memory that is free. How far
        that goes is measured without the script, once there is a difference to explain.
        """
        if made.shape == expected.shape and (made == expected).all():
            return
        apart = np.abs(made - expected).max() if made.shape == expected.shape else 256
        own = self._own_difference()
        assert apart <= min(own, ROUNDING), f"{apart} apart, the host's own equal calls {own}"
        warnings.warn(f"{apart} of 255 apart, as the host's own equal calls are ({own})", stacklevel=2)

    def _own_difference(self) -> int:
        """By how much the host's own equal calls differ at most, of 255; measured again as long as they do not."""
        if not self._apart:
            picture = Image.fromarray(np.random.default_rng(5).integers(0, 255, (64, 64, 3), dtype=np.uint8))
            made = []
            for _ in range(6):
                self.host(picture, seed=1, width=192)
                made.append(self.warm(picture).pixels)
            self._apart = max(int(np.abs(one - made[0]).max()) for one in made)
        return self._apart


@pytest.fixture(scope="session")
def webui() -> Iterator[WebUI]:
    host = WebUI(os.environ[ADDRESS])
    before = host.call("/sdapi/v1/options")
    # The host restores an overridden option only if it has been set before.
    restored = {name: before[name] for name in RESTORED if name in before}
    host.call("/sdapi/v1/options", restored)
    yield host
    host.call("/sdapi/v1/options", restored)


RESTORED = (
    "CLIP_stop_at_last_layers",
    "always_discard_next_to_last_sigma",
    "face_restoration_model",
    "img2img_color_correction",
    "img2img_extra_noise",
    "img2img_fix_steps",
    "randn_source",
    "return_mask",
    "sd_model_checkpoint",
    "sd_noise_schedule",
    "sigma_max",
    "sigma_min",
)


@pytest.fixture(scope="session")
def picture() -> Image.Image:
    """64x64, smooth, with every side of its own look."""
    rng = np.random.default_rng(3)
    blocks = rng.integers(0, 255, (7, 5, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((64, 64), Image.Resampling.BICUBIC)


@pytest.fixture(scope="session")
def wide_picture(picture: Image.Image) -> Image.Image:
    """96x64."""
    return picture.resize((96, 64), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser tests need playwright")
    with playwright.sync_playwright() as running:
        try:
            browser = running.chromium.launch(
                executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=["--no-sandbox"]
            )
        except playwright.Error as error:
            pytest.skip(f"no chromium: {error}; name it in CHROMIUM")
        yield browser
        browser.close()


@pytest.fixture
def page(browser, webui, picture) -> Iterator[Page]:
    tab = browser.new_page(viewport={"width": 1400, "height": 1800})
    tab.set_default_timeout(60_000)
    page = Page(tab, webui.url)
    page.prepare(picture, steps=4, seed=7, cfg_scale=7, denoising_strength=0.75)  # hosts have other defaults
    yield page
    tab.close()


@pytest.fixture(scope="module")
def tile_model(webui) -> str:
    """The tile model that the panel offers first, after "automatic"."""
    info = next(s for s in webui.call("/sdapi/v1/script-info") if s["name"] == "latent upscale")
    offered = next((arg["choices"] for arg in info["args"] if arg["label"] == "Tile model"), [])
    if len(offered) < 2:
        pytest.skip("the WebUI has no ControlNet, or no tile model that fits the checkpoint")
    return offered[1]


@pytest.fixture
def tile_folder(webui, picture, tile_model) -> Path:
    """Where tile models are put."""
    said = refused(webui.ours, picture, tile(model="no such")).message
    folder = Path(re.search(r"into (.+)$", said).group(1))
    if not folder.is_dir():
        pytest.skip("the WebUI runs on another machine: no file can be put into its folder")
    return folder


@pytest.fixture
def put_tile(tile_folder, tile_model) -> Iterator[Callable[..., Path]]:
    """Puts a file with this content, or else the tile model itself, under another name for one test."""
    files = []

    def put(name: str, content: bytes | None = None) -> Path:
        file, original = tile_folder / f"{name}.safetensors", tile_folder / f"{tile_model}.safetensors"
        files.append(file)
        if content is not None:
            file.write_bytes(content)
        elif original.exists():
            file.symlink_to(original)
        else:
            pytest.skip(f"{original.name} is in another folder")
        return file

    yield put
    for file in files:
        file.unlink(missing_ok=True)


@pytest.fixture
def strange_tile(put_tile: Callable[..., Path], tile_folder: Path, tile_model: str) -> Path:
    """A file whose text width fits the checkpoint, and that ControlNet cannot load."""
    original = tile_folder / f"{tile_model}.safetensors"
    if not original.exists():
        pytest.skip(f"{original.name} is in another folder")
    width = text_width(read_header(original).shapes)
    assert width is not None
    return put_tile("a_strange_tile", control_file(width))


@pytest.fixture(scope="module")
def x4_model(webui) -> str:
    """The name of the x4 upscaler that the calls use."""
    names = described(webui)["x4 model"]["choices"]
    if not names:
        pytest.skip("this WebUI has no x4 upscaler: put one into models/x4-upscaler and reload the page")
    return names[0]
