"""Tiny models, made once, and pictures to work on."""

import signal

import numpy as np
import pytest
import skimage.data
from PIL import Image

from lib_latent_upscale.standalone.engine.engine import Engine
from lib_latent_upscale.standalone.engine.models import DEMO_FILE, load_model
from tests.core.x4_small import write_folder
from tests.standalone import tiny_model


@pytest.fixture(scope="session")
def sd1_folder(tmp_path_factory):
    return tiny_model.save_sd1(tmp_path_factory.mktemp("models") / "tiny-sd1")


@pytest.fixture(scope="session")
def sdxl_folder(tmp_path_factory):
    return tiny_model.save_sdxl(tmp_path_factory.mktemp("models") / "tiny-sdxl")


@pytest.fixture(scope="session")
def x4_folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("x4") / "tiny-x4")


@pytest.fixture(scope="session")
def engine(sd1_folder):
    return Engine(load_model(str(sd1_folder), device="cpu"))


@pytest.fixture(scope="session")
def demo_engine():
    if not DEMO_FILE.exists():
        pytest.skip("the demo model is not in this checkout")
    return Engine(load_model("demo", device="cpu"))


@pytest.fixture(scope="session")
def photo():
    """A photograph, 128x96."""
    return Image.fromarray(skimage.data.astronaut()).resize((128, 128)).crop((0, 0, 128, 96))


@pytest.fixture
def picture_file(tmp_path, photo):
    path = tmp_path / "in" / "photo.png"
    path.parent.mkdir()
    photo.save(path)
    return path


@pytest.fixture
def noise_picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8))


@pytest.fixture
def ctrl_c():
    """The signal of Ctrl-C works, which a shell switches off for what it runs in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
