"""The page: built, served, and used through Gradio's own client."""

import argparse
import html
from contextlib import nullcontext
from dataclasses import replace

import pytest
from gradio_client import Client, handle_file
from PIL import Image

from lib_latent_upscale.errors import InputError
from lib_latent_upscale.settings import UpscaleSettings
from lib_latent_upscale.standalone.commands import app
from lib_latent_upscale.standalone.commands.app import Inputs, Page, build_page
from lib_latent_upscale.standalone.engine.generation import parse_parameters

INPUTS = Inputs(2, "DPM++ 2M", 2, 0.5, 7, 3, "a cat", None, UpscaleSettings("bislerp", "karras"))
VALUES = [2, "bislerp", "karras", True, False, False, "DPM++ 2M", 2, 0.5, 7, 3, "a cat", None]
"""The same, as a client hands it to the page."""


@pytest.fixture
def page(tmp_path, sd1_folder):
    return Page(argparse.Namespace(model=str(sd1_folder), device="cpu", dtype=None, quiet=True), tmp_path)


def test_the_page_upscales_and_plots(page, picture_file):
    before, after, text = page.upscale(str(picture_file), INPUTS)
    for path in (before, after):
        with Image.open(path) as image:
            assert image.size == (256, 192)
    with Image.open(after) as image:
        assert image.info["parameters"] == text
    generation = parse_parameters(text)
    assert (generation.steps, generation.sampler, generation.seed) == (2, "DPM++ 2M", 3)
    assert generation.upscale.method == "bislerp"
    assert "karras" in {label.get_text() for label in page.plot(INPUTS).axes[0].get_yticklabels()}


def test_the_page_compares_each_method_with_each_schedule(page, picture_file):
    names = []

    def progress(name):
        names.append(name)
        return nullcontext(lambda done, total: None)

    shown, sheet = page.compare(str(picture_file), INPUTS, ["area", "bicubic"], [], progress)
    always = ["WebUI, latent upscale", "WebUI, Just resize", "Latent Upscale"]
    assert names == [*always, "area + karras", "bicubic + karras"]
    for name in ["Picture resized", *names]:
        assert f">{html.escape(name)}</option>" in shown
    with Image.open(sheet) as image:
        assert image.width > 5 * 100
    alone, _ = page.compare(str(picture_file), INPUTS, [], [], progress)
    assert names[5:] == always
    assert "area + karras" not in alone


def test_automatic_is_plotted_as_the_samplers_own_schedule(page):
    figure = page.plot(replace(INPUTS, upscale=UpscaleSettings(scheduler="automatic"), sampler="DPM++ 2M SDE"))
    assert "exponential" in {label.get_text() for label in figure.axes[0].get_yticklabels()}


def test_without_a_picture_the_page_says_so(page):
    with pytest.raises(InputError, match="Choose a picture"):
        page.upscale(None, INPUTS)
    with pytest.raises(InputError, match="Choose a picture"):
        page.compare(None, INPUTS, [], [], lambda _: None)


def test_the_served_page_works(page, picture_file, tmp_path):
    blocks = build_page(page)
    blocks.queue()
    _, address, _ = blocks.launch(prevent_thread_lock=True, quiet=True, allowed_paths=[str(tmp_path)])
    try:
        client = Client(address, verbose=False)
        values = VALUES
        *_, file, text = client.predict(handle_file(str(picture_file)), *values, api_name="/upscale")
        assert "Latent upscale method: bislerp" in text
        with Image.open(file) as image:
            assert image.size == (256, 192)
            assert image.info["parameters"] == text
        compared = (handle_file(str(picture_file)), ["area"], [], *values)
        slider, sheet = client.predict(*compared, api_name="/compare")
        assert "area + karras" in slider
        with Image.open(sheet) as image:
            assert image.format == "PNG"
        with pytest.raises(Exception, match="Choose a picture first"):
            client.predict(None, *values, api_name="/upscale")
    finally:
        blocks.close()


def test_the_command_serves_what_was_asked_for(monkeypatch, sd1_folder):
    asked = {}

    class Blocks:
        def launch(self, **options):
            asked.update(options)

    monkeypatch.setattr(app, "build_page", lambda page: Blocks())
    options = argparse.Namespace(model=str(sd1_folder), device=None, dtype=None, host="0.0.0.0", port=1234, open=True)
    assert app.run(options) == 0
    assert (asked["server_name"], asked["server_port"], asked["inbrowser"]) == ("0.0.0.0", 1234, True)


def test_a_missing_model_is_said_before_the_page_is_served(monkeypatch):
    monkeypatch.setattr(app, "build_page", None)
    with pytest.raises(InputError, match="does not exist"):
        app.run(argparse.Namespace(model="none.safetensors", device=None, dtype=None))
