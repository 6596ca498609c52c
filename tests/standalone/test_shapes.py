"""Results of another shape: as the WebUI's resize modes, or said."""

import argparse

import numpy as np
import pytest
from PIL import Image

from lib_latent_upscale.settings import UpscaleSettings
from lib_latent_upscale.standalone.commands.app import Inputs
from lib_latent_upscale.standalone.commands.cli import build_parser, main
from lib_latent_upscale.standalone.commands.common import target_size
from lib_latent_upscale.standalone.files.images import Picture
from lib_latent_upscale.standalone.files.shapes import shaped
from tests.standalone.parameters import parse_parameters


def as_the_webui(image, width, height, fills):
    """`modules.images.resize_image`, modes 1 and 2: whole at two sides, centred; filled with its stretched border."""
    by_width = (width / height > image.width / image.height) != fills
    wide = width if by_width else image.width * height // image.height
    high = image.height * width // image.width if by_width else height
    left, top = width // 2 - wide // 2, height // 2 - high // 2
    inner = np.asarray(image.resize((wide, high), Image.Resampling.LANCZOS))
    rows = (np.arange(height) - top).clip(0, high - 1)
    columns = (np.arange(width) - left).clip(0, wide - 1)
    return inner[rows][:, columns]


@pytest.mark.parametrize("wanted", [(128, 128), (96, 192), (300, 100), (128, 96)])
@pytest.mark.parametrize("mode", ["crop", "fill"])
def test_crop_and_fill_show_what_the_webui_shows(photo, wanted, mode):
    own = shaped(Picture(photo), wanted, mode).rgb.resize(wanted, Image.Resampling.LANCZOS)
    theirs = as_the_webui(photo, *wanted, fills=mode == "fill")
    assert np.abs(np.asarray(own, int) - theirs).mean() < 6
    stretched = np.asarray(photo.resize(wanted, Image.Resampling.LANCZOS), int)
    if wanted != (128, 96):
        assert np.abs(stretched - theirs).mean() > 12, "the test can tell them apart"


@pytest.mark.parametrize(("mode", "size"), [("stretch", (128, 96)), ("crop", (96, 96)), ("fill", (128, 128))])
def test_transparency_takes_the_same_shape(photo, mode, size):
    picture = shaped(Picture(photo, Image.linear_gradient("L").resize(photo.size)), (64, 64), mode)
    assert picture.rgb.size == picture.alpha.size == size


def arguments(*more):
    return build_parser().parse_args(["upscale", "a.png", *more])


@pytest.mark.parametrize(("size", "expected"), [("1024x", (1024, 768)), ("x1024", (1365, 1024)), ("64x64", (64, 64))])
def test_one_side_keeps_the_shape(size, expected):
    assert target_size((640, 480), arguments("--size", size)) == expected


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--size", "1024x1024"], "640x480 is stretched to 1024x1024, by 33 %"),
        (["--size", "1024x770"], ""),
        (["--size", "1024x1024", "--resize-mode", "crop"], ""),
        (["--size", "1024x"], ""),
        (["--scale", "2"], ""),
    ],
)
def test_a_changed_shape_is_said(caplog, more, said):
    target_size((640, 480), arguments(*more))
    assert caplog.text.count("\n") == bool(said)
    assert said in caplog.text


@pytest.mark.parametrize(("size", "message"), [("x", "1024x1280"), ("0x", "16 to 8192"), ("9000x", "16 to 8192")])
def test_sizes_that_are_none_are_refused(picture_file, capsys, size, message):
    try:
        code = main(["upscale", str(picture_file), "--size", size])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert message in capsys.readouterr().err


def test_pictures_of_one_size_each_have_a_seed_that_makes_them_again(photo, sd1_folder, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "b"):
        photo.crop((0, 0, 64, 48)).save(folder / f"{name}.png")
    fixed = ["--model", str(sd1_folder), "--steps", "2", "--quiet", "--size", "64x64", "--resize-mode", "crop"]
    assert main(["upscale", str(folder), "-o", str(tmp_path / "o"), "--seed", "-1", "--batch-size", "2", *fixed]) == 0
    seeds = []
    for name in ("a", "b"):
        with Image.open(tmp_path / "o" / f"{name}.png") as image:
            seeds.append(parse_parameters(image.info["parameters"]).seed)
            together = np.asarray(image, int)
        alone = tmp_path / f"{name}.png"
        assert main(["upscale", str(folder / f"{name}.png"), "-o", str(alone), "--seed", str(seeds[-1]), *fixed]) == 0
        with Image.open(alone) as image:
            assert np.abs(np.asarray(image, int) - together).max() <= 1
    assert seeds[0] != seeds[1]


def test_the_page_draws_a_seed_too():
    inputs = Inputs(2, "Euler", 2, 0.5, 7, -1, "", None, UpscaleSettings())
    assert len({inputs.generation((64, 64)).seed for _ in range(3)}) > 1


def test_resize_modes_are_flags_of_both_commands():
    commands = next(one for one in build_parser()._actions if isinstance(one, argparse._SubParsersAction)).choices
    for name in ("upscale", "compare"):
        assert "--resize-mode" in commands[name]._option_string_actions
