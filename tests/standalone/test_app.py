"""The page: built, served, and used through Gradio's own client."""

import base64
import html
import os
import socket
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import gradio
import pytest
from gradio_client import Client, handle_file
from PIL import Image

from lib_latent_upscale.errors import InputError, Interrupted
from lib_latent_upscale.settings import UpscaleSettings
from lib_latent_upscale.standalone.commands import app
from lib_latent_upscale.standalone.commands.app import Inputs, Page, build_page
from lib_latent_upscale.standalone.commands.cli import build_parser
from lib_latent_upscale.standalone.commands.passes import PASSES, Asked
from lib_latent_upscale.standalone.files.settings import ShapeSettings
from lib_latent_upscale.tile_settings import TileSettings
from lib_latent_upscale.x4_settings import X4Settings
from tests.standalone.parameters import parse_parameters


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def arguments(model, host="127.0.0.1", port=7870):
    given = ["app", "--model", str(model), "--device", "cpu", "--host", host, "--port", str(port)]
    parsed = build_parser().parse_args(given)
    parsed.quiet = True
    return parsed


INPUTS = Inputs(2, "DPM++ 2M", 2, 0.5, 7, 3, "a cat", None, UpscaleSettings("bislerp", "karras"))
VALUES = [2, "bislerp", "karras", True, False, False, "DPM++ 2M", 2, 0.5, 7, 3, "a cat", None]
"""The same, as a client hands it to the page."""


@pytest.fixture
def page(tmp_path, sd1_folder):
    return Page(arguments(sd1_folder), tmp_path)


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
    assert "Latent Upscale: karras, 2 of 4 steps run" in page.plot(INPUTS)


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
    drawing = page.plot(replace(INPUTS, upscale=UpscaleSettings(scheduler="automatic"), sampler="DPM++ 2M SDE"))
    assert "Latent Upscale: exponential" in drawing


def test_the_drawing_says_where_the_slider_changes_nothing(page):
    few = replace(INPUTS, steps=4, denoise=0.75)
    assert "between 0.67 and 0.80 start at the same noise" in page.plot(few)
    assert "same noise" not in page.plot(replace(few, upscale=UpscaleSettings(starting_noise="continuous")))


def test_the_drawing_says_what_cannot_be_drawn(page):
    assert "Steps is empty" in page.plot(replace(INPUTS, steps=None))
    assert "denoising strength is 7" in page.plot(replace(INPUTS, denoise=7))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "128 x 96 to **256 x 192** pixels (2 times)."),
        ({"width": 320}, "128 x 96 to **320 x 240** pixels (2.5 times)."),
        ({"height": 192}, "128 x 96 to **256 x 192** pixels (2 times)."),
        ({"width": 256, "height": 96}, "everything becomes 100% wider"),
        ({"width": 256, "height": 96, "shape": ShapeSettings("crop")}, "two sides are cut off"),
        ({"passes": (Asked(PASSES[0], X4Settings()),)}, "and to **1024 x 768** by the x4 upscaler"),
    ],
)
def test_the_results_size_is_told_before(page, picture_file, given, said):
    assert said in page.sizes(str(picture_file), replace(INPUTS, **given))


def test_what_was_left_of_a_picture_is_said(page, tmp_path):
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
    said = []
    page.tell = said.append
    page.upscale(str(tmp_path / "two.gif"), replace(INPUTS, steps=1))
    assert said == ["two.gif: only the first of 2 frames is taken."]


def test_the_size_of_a_picture_that_lies_on_its_side_is_that_of_the_upright_one(page, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # as phones write it
    Image.new("RGB", (128, 96)).save(tmp_path / "phone.jpg", exif=exif)
    assert "96 x 128 to **192 x 256** pixels" in page.sizes(str(tmp_path / "phone.jpg"), INPUTS)


@pytest.mark.parametrize(("side", "label"), [("width", "Width"), ("height", "Height")])
def test_a_side_out_of_range_is_named_as_it_was_given(page, picture_file, side, label):
    with pytest.raises(InputError, match=f"^{label} in pixels is -8; give 16 to 8192, or 0"):
        page.sizes(str(picture_file), replace(INPUTS, **{side: -8}))


def test_a_width_alone_keeps_the_shape(page, picture_file):
    _, after, _ = page.upscale(str(picture_file), replace(INPUTS, width=200, steps=1))
    with Image.open(after) as image:
        assert image.size == (200, 150)


def test_the_page_has_the_commands_resize_modes(page, tmp_path):
    """Of a picture with a red side: cropping to the middle takes it away, stretching keeps it."""
    whole = Image.new("RGB", (96, 48), "blue")
    whole.paste("red", (0, 0, 20, 48))
    whole.save(tmp_path / "side.png")
    controls = build_page(page).blocks.values()
    (menu,) = [control for control in controls if getattr(control, "label", None) == "Resize mode"]
    assert [value for _, value in menu.choices] == ["stretch", "crop", "fill"]
    for mode, kept in (("stretch", True), ("crop", False)):
        asked = replace(INPUTS, width=48, height=48, steps=1, shape=ShapeSettings(mode))
        before, _, _ = page.upscale(str(tmp_path / "side.png"), asked)
        with Image.open(before) as image:
            assert image.size == (48, 48)
            assert (image.getpixel((2, 24))[0] > 200) == kept


def test_seed_minus_one_draws_a_seed_that_is_written(page, picture_file):
    texts = [page.upscale(str(picture_file), replace(INPUTS, seed=-1, steps=1))[2] for _ in range(2)]
    seeds = [parse_parameters(text).seed for text in texts]
    assert min(seeds) >= 0
    assert seeds[0] != seeds[1]


@pytest.mark.parametrize("seed", [-2, 2**32])
def test_the_sentence_of_a_bad_seed_names_all_that_is_allowed(page, picture_file, seed):
    with pytest.raises(InputError, match=rf"Seed {seed} is out of range: allowed is 0 to 4294967295, or -1"):
        page.upscale(str(picture_file), replace(INPUTS, seed=seed), None)


@pytest.mark.parametrize("name", ["seed", "steps", "denoise", "cfg_scale", "scale"])
def test_an_empty_number_is_said(page, picture_file, name):
    with pytest.raises(InputError, match="is empty; give a number"):
        page.upscale(str(picture_file), replace(INPUTS, **{name: None}))
    for value in ("many", float("nan"), float("inf")):
        with pytest.raises(InputError, match=f"is '?{value}'?; give a number"):
            page.upscale(str(picture_file), replace(INPUTS, **{name: value}))


@pytest.mark.parametrize("name", ["steps", "seed", "width", "height"])
def test_half_a_step_or_pixel_is_not_silently_rounded(page, picture_file, name):
    with pytest.raises(InputError, match=rf"{name.capitalize()} is 20\.5; give a whole number"):
        page.upscale(str(picture_file), replace(INPUTS, **{name: 20.5}))
    with pytest.raises(InputError, match=f"{name.capitalize()} is True; give a number"):
        page.upscale(str(picture_file), replace(INPUTS, **{name: True}))
    assert "give a whole number" in page.plot(replace(INPUTS, steps=20.5))


def test_gradio_hands_numbers_over_as_they_are(page):
    """It would answer an emptied box with "'<' not supported between instances of 'NoneType' and 'int'"."""
    kinds = (gradio.Slider, gradio.Number)
    numbers = [one for one in build_page(page).blocks.values() if isinstance(one, kinds)]
    assert {"Steps", "Scale", "Tile weight", "x4 steps"} < {one.label for one in numbers}
    assert [one.label for one in numbers if one.preprocess(None) is not None or one.preprocess(-9) != -9] == []


def test_stop_ends_a_run_after_its_step_and_the_next_one_runs(page, picture_file):
    done = []

    def progress(step, total):
        done.append(step)
        page.stop()

    with pytest.raises(Interrupted):
        page.upscale(str(picture_file), replace(INPUTS, steps=5), progress)
    assert done == [1]
    page.upscale(str(picture_file), replace(INPUTS, steps=1))


def test_the_page_names_its_model_and_warns_of_the_demo(page):
    assert app._heading(page) == f"# Latent Upscale\nModel: **{page.arguments.model.rpartition('/')[2]}**."
    page.arguments.model = "demo"
    assert "too small for real pictures" in app._heading(page)
    assert "ignores prompts" in app._heading(page)


@pytest.mark.parametrize("port", [99999, 65536, -1, 0])
def test_a_port_that_is_none_is_said(sd1_folder, port):
    with pytest.raises(InputError, match=f"Port {port} is out of range: allowed is 1 to 65535"):
        app.run(arguments(sd1_folder, port=port))


def test_a_taken_port_is_said(sd1_folder):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"Port {port} of 127.0.0.1 is not available .*; choose another one"):
            app.run(arguments(sd1_folder, port=port))


def test_a_host_that_is_none_is_said(sd1_folder):
    with pytest.raises(InputError, match="Host 'no such host' is not an address"):
        app.run(arguments(sd1_folder, host="no such host"))


def test_an_address_of_ipv6_is_handed_over_as_gradio_wants_it(monkeypatch, sd1_folder):
    asked = {}
    monkeypatch.setattr(app, "build_page", lambda page: SimpleNamespace(launch=asked.update))
    monkeypatch.setattr(app, "_check_address", lambda host, port: None)
    app.run(arguments(sd1_folder, host="::"))
    assert asked["server_name"] == "[::]"


def test_no_picture_stays_in_temporary_folders(monkeypatch, tmp_path, sd1_folder):
    """Those of a page that was killed are taken away, those of one that runs are not."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    old = tmp_path / f"latent-upscale-page-{int(ended.stdout)}-x"
    running = tmp_path / f"latent-upscale-page-{os.getpid()}-x"
    for folder in (old, running):
        folder.mkdir()
    seen = []

    def launch(**_):
        gradio = Path(os.environ["GRADIO_TEMP_DIR"])
        gradio.mkdir()
        (gradio / "uploaded.png").touch()
        seen.append(gradio)
        raise SystemExit(143)

    monkeypatch.setattr(app, "build_page", lambda page: SimpleNamespace(launch=launch))
    with pytest.raises(SystemExit):
        app.run(arguments(sd1_folder, port=free_port()))
    assert tmp_path in seen[0].parents
    assert list(tmp_path.iterdir()) == [running]
    assert "GRADIO_TEMP_DIR" not in os.environ


def test_a_picture_may_also_be_sent_as_a_data_url(page, picture_file, tmp_path):
    (picture,) = [one for one in build_page(page).blocks.values() if getattr(one, "label", None) == "Picture"]
    content = base64.b64encode(picture_file.read_bytes()).decode()
    sent = picture.preprocess(picture.data_model(url=f"data:image/png;base64,{content}"))
    assert "128 x 96" in page.sizes(sent, INPUTS)
    assert picture.preprocess(picture.data_model(path=str(picture_file))) == str(picture_file)
    assert picture.preprocess(None) is None


def test_switches_and_menus_have_room_for_their_words(page):
    """Gradio 6 squeezes checkboxes in a row until their words are cut, and lets menus' words run into the arrow."""
    (style,) = [one.value for one in build_page(page).blocks.values() if "<style>" in str(getattr(one, "value", ""))]
    assert ".block:has(input[type=checkbox]) { min-width: min(240px, 100%) !important }" in style
    assert "text-overflow: ellipsis" in style


def test_without_a_picture_the_page_says_so(page):
    with pytest.raises(InputError, match="Choose a picture"):
        page.upscale(None, INPUTS)
    with pytest.raises(InputError, match="Choose a picture"):
        page.compare(None, INPUTS, [], [], lambda _: None)


def test_the_served_page_works(page, picture_file, tmp_path, capsys):
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
        capsys.readouterr()
        with pytest.raises(Exception, match="Choose a picture first"):
            client.predict(None, *values, api_name="/upscale")
        with pytest.raises(Exception, match="Steps is empty; give a number"):
            client.predict(handle_file(str(picture_file)), *values[:7], None, *values[8:], api_name="/upscale")
        damaged = tmp_path / "damaged.png"
        damaged.write_bytes(picture_file.read_bytes()[:20])
        with pytest.raises(Exception, match=r"^damaged.png: the picture cannot be read"):
            client.predict(handle_file(str(damaged)), *values, api_name="/upscale")
        assert "Traceback" not in capsys.readouterr().err
    finally:
        blocks.close()


def test_the_command_serves_what_was_asked_for(monkeypatch, sd1_folder):
    asked = {}

    class Blocks:
        def launch(self, **options):
            asked.update(options)

    monkeypatch.setattr(app, "build_page", lambda page: Blocks())
    options = arguments(sd1_folder, host="0.0.0.0", port=free_port())
    options.open = True
    assert app.run(options) == 0
    assert (asked["server_name"], asked["server_port"], asked["inbrowser"]) == ("0.0.0.0", options.port, True)


@pytest.mark.parametrize(
    ("given", "tile", "x4"),
    [
        ([], True, False),
        (["--x4", "some-x4"], True, True),
        (["--tile-controlnet", "none", "--x4", "none"], False, False),
    ],
)
def test_none_is_a_page_without_that_pass(monkeypatch, given, tile, x4):
    built = []
    monkeypatch.setattr(app, "build_page", lambda page: built.append(page) or SimpleNamespace(launch=lambda **_: None))
    assert app.run(build_parser().parse_args(["app", "--port", str(free_port()), *given])) == 0
    assert (built[0].has(TileSettings), built[0].has(X4Settings)) == (tile, x4)


def test_a_missing_model_is_said_before_the_page_is_served(monkeypatch):
    monkeypatch.setattr(app, "build_page", None)
    with pytest.raises(InputError, match="does not exist"):
        app.run(arguments("none.safetensors"))
