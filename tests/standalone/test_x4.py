"""The x4 upscaler from the command: alone, and as the last pass of `upscale`. The model is small and random."""

import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import save_file

from lib_latent_upscale.errors import InputError, OutOfMemory
from lib_latent_upscale.samplers import X4_SAMPLERS
from lib_latent_upscale.schedules import SCHEDULES
from lib_latent_upscale.standalone.commands import x4
from lib_latent_upscale.standalone.commands.cli import build_parser, main
from lib_latent_upscale.standalone.commands.flags import given_settings
from lib_latent_upscale.standalone.commands.passes import asked_passes
from lib_latent_upscale.standalone.engine.engine import Engine
from lib_latent_upscale.standalone.engine.generation import (
    GenerationSettings,
    RanPass,
    write_parameters,
)
from lib_latent_upscale.standalone.engine.infotext import add_labels
from lib_latent_upscale.standalone.engine.tile_models import TileModel
from lib_latent_upscale.x4_upscaler import X4Settings, load_x4, upscale_x4
from tests.core.x4_strategies import any_settings
from tests.standalone.parameters import parse_parameters, read_x4


@pytest.fixture
def small_file(tmp_path, photo):
    """A picture whose sides are no multiples of anything."""
    path = tmp_path / "in" / "small.png"
    path.parent.mkdir()
    photo.crop((0, 0, 37, 22)).save(path)
    return path


def alone(source, model, *more):
    fixed = ["--steps", "2", "--tile", "64", "--device", "cpu", "--quiet"]
    return main(["x4", str(source), "--model", str(model), *fixed, *map(str, more)])


def after_upscale(source, sd1_folder, *more):
    return main(["upscale", str(source), "--model", str(sd1_folder), "--steps", "2", "--quiet", *map(str, more)])


def tree(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def parameters(path):
    with Image.open(path) as image:
        return image.info["parameters"]


def size(path):
    with Image.open(path) as image:
        return image.size


def assert_refused(arguments, message, capsys):
    try:
        code = main(list(map(str, arguments)))
    except SystemExit as stop:  # argparse's own way
        code = stop.code
    shown = capsys.readouterr()
    assert code == 2, shown.err
    assert shown.out == ""
    assert shown.err.count("\n") == 1, shown.err
    assert message in shown.err


# The command x4


def test_the_result_is_exactly_four_times_larger_and_what_the_core_makes(small_file, x4_folder, tmp_path, capsys):
    output = tmp_path / "out.png"
    assert alone(small_file, x4_folder, "-o", output, "--noise-level", "100", "--seed", "7") == 0
    assert capsys.readouterr().out == f"{output}\n"
    settings = X4Settings(noise_level=100, seed=7, steps=2, tile=64)
    with Image.open(small_file) as source, Image.open(output) as image:
        expected = upscale_x4(source, load_x4(x4_folder, device="cpu"), settings).image
        assert image.size == (4 * 37, 4 * 22)
        assert np.array_equal(np.asarray(image), np.asarray(expected))


def test_the_same_command_twice_gives_the_same_file(small_file, x4_folder, tmp_path):
    for name in ("a.png", "b.png"):
        assert alone(small_file, x4_folder, "-o", tmp_path / name, "--sampler", "Euler a") == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_every_setting_stands_in_the_picture_and_makes_it_again(small_file, x4_folder, tmp_path):
    more = ["--prompt", "a cat, sitting", "--negative-prompt", 'no "dogs"', "--noise-level", "50", "--seed", "-1"]
    more += ["--guidance-scale", "1.5", "--sampler", "DDIM", "--scheduler", "karras", "--no-colour-guard"]
    assert alone(small_file, x4_folder, "-o", tmp_path / "a.png", *more) == 0
    model, settings = read_x4(parameters(tmp_path / "a.png"))
    assert model == "tiny-x4"
    asked = X4Settings("a cat, sitting", 'no "dogs"', 50, 1.5, 2, "DDIM", "karras", settings.seed, False, 64)
    assert replace(settings, decoder_tile=0) == asked
    assert settings.seed >= 0
    assert alone(small_file, x4_folder, "-o", tmp_path / "b.png", *more, "--seed", settings.seed) == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_what_the_input_says_of_how_it_was_made_is_kept(small_file, x4_folder, tmp_path):
    before = write_parameters(GenerationSettings(40, 24, "a cat", "blurry", seed=3))
    info = PngInfo()
    info.add_text("parameters", before)
    with Image.open(small_file) as image:
        image.save(small_file, pnginfo=info)
    assert alone(small_file, x4_folder, "-o", tmp_path / "out.png") == 0
    text = parameters(tmp_path / "out.png")
    assert text.startswith(f"{before}, x4 upscaler model: tiny-x4, ")
    generation = parse_parameters(text)
    assert replace(generation, passes=()) == parse_parameters(before)
    assert [(one.model, one.settings.steps) for one in generation.passes] == [("tiny-x4", 2)]


@pytest.mark.parametrize("area", [(1, 1), (150, 3)])
def test_tiny_and_thin_pictures_work(photo, x4_folder, tmp_path, area):
    photo.resize(area).save(tmp_path / "thin.png")
    assert alone(tmp_path / "thin.png", x4_folder, "--steps", "1") == 0
    width, height = (4 * side for side in area)
    assert size(tmp_path / f"thin-{width}x{height}.png") == (width, height)


def test_transparency_survives(x4_folder, tmp_path):
    source = Image.effect_noise((40, 32), 50).convert("RGBA")
    source.putalpha(Image.linear_gradient("L").resize((40, 32)))
    source.save(tmp_path / "glass.png")
    assert alone(tmp_path / "glass.png", x4_folder, "-o", tmp_path / "out.png") == 0
    with Image.open(tmp_path / "out.png") as image:
        alpha = np.asarray(image.getchannel("A").resize((40, 32), Image.Resampling.BOX), int)
    assert np.abs(alpha - np.asarray(source.getchannel("A"))).max() <= 2


def test_a_folder_becomes_a_folder_and_bad_pictures_are_named(photo, x4_folder, tmp_path, capsys):
    album = tmp_path / "album"
    album.mkdir()
    photo.crop((0, 0, 20, 20)).save(album / "a.png")
    photo.crop((0, 0, 20, 24)).save(album / "b.png")
    (album / "c.png").write_bytes(b"no picture")
    assert alone(album, x4_folder) == 1
    results = tmp_path / "album-x4"
    assert {path.name: size(path) for path in results.iterdir()} == {"a.png": (80, 80), "b.png": (80, 96)}
    assert "1 of 3 pictures could not be used" in capsys.readouterr().err
    assert alone(album / "b.png", x4_folder, "-o", tmp_path / "b.png") == 0
    with Image.open(tmp_path / "b.png") as one, Image.open(results / "b.png") as of_several:
        assert one.tobytes() == of_several.tobytes()
        assert of_several.info["parameters"].startswith(one.info["parameters"])


def test_progress_counts_tiles(photo, x4_folder, tmp_path, capsys):
    photo.crop((0, 0, 96, 64)).save(tmp_path / "wide.png")
    command = ["x4", str(tmp_path / "wide.png"), "--model", str(x4_folder), "--steps", "2", "--tile", "64"]
    assert main(command) == 0
    shown = capsys.readouterr().err
    assert "wide.png x4" in shown
    assert "/5 " in shown  # two tiles at each of two steps, one tile to decode
    assert "5/5" in shown


# Bad input

BAD_SETTINGS = {
    "noise level -1": (["noise-level", "-1"], "0 to 349"),
    "noise level 350": (["noise-level", "350"], "0 to 349"),
    "noise level 3.5": (["noise-level", "3.5"], "noise-level is 3.5; an integer"),
    "noise level a word": (["noise-level", "much"], "noise-level is 'much'; an integer"),
    "guidance 0": (["guidance-scale", "0"], "1 (no guidance) to 50"),
    "guidance nan": (["guidance-scale", "nan"], "1 (no guidance) to 50"),
    "steps 0": (["steps", "0"], "steps is 0; an integer from 1 to 1000"),
    "steps 10,000": (["steps", "10,000"], "'10,000'"),
}

BAD_ARGUMENTS = {
    **{name: ([f"--{option}", value], message) for name, ((option, value), message) in BAD_SETTINGS.items()},
    "tile 7": (["--tile", "7"], "32 to 2048 in steps of 8, or 0"),
    "seed -2": (["--seed", "-2"], "seed is -2"),
    "unknown sampler": (["--sampler", "Oiler"], "DPM++ 2M"),
    "unknown scheduler": (["--scheduler", "carras"], "karras"),
    "device": (["--device", "abacus"], "abacus"),
    "dtype": (["--dtype", "int4"], "bfloat16"),
    "output folder missing": (["-o", "{here}/none/out.png"], "does not exist"),
    "output is the input": (["-o", "{here}/small.png"], "replace the original"),
    "output no png": (["-o", "{here}/out.bmp"], ".png or .jpg"),
}

BAD_MODELS = {
    "missing": ("{here}/none.safetensors", "there is no x4 upscaler at"),
    "a pickle": ("{here}/x4-upscaler-ema.ckpt", "is a pickle"),
    "corrupt": ("{here}/corrupt.safetensors", "damaged"),
    "a checkpoint": ("{here}/sd15.safetensors", "sd15.safetensors is a normal Stable Diffusion checkpoint"),
    "a diffusers folder": ("{sd1}", "its pipeline is StableDiffusionImg2ImgPipeline"),
    "an empty folder": ("{here}/empty", "cannot be read"),
}


@pytest.fixture
def bad_models(small_file, sd1_folder):
    """The places that `BAD_MODELS` name."""
    here = small_file.parent
    (here / "x4-upscaler-ema.ckpt").write_bytes(b"pickle")
    (here / "corrupt.safetensors").write_bytes(b"rubbish")
    save_file({"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(1, 4, 3, 3)}, here / "sd15.safetensors")
    (here / "empty").mkdir()
    return {"here": here, "sd1": sd1_folder}


@pytest.mark.parametrize(("more", "message"), BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS)
def test_bad_arguments_are_one_sentence_before_a_model_is_loaded(
    small_file, x4_folder, capsys, monkeypatch, more, message
):
    monkeypatch.setattr(x4, "load_x4", lambda *_, **__: pytest.fail("a model was loaded"))
    before = tree(small_file.parent)
    more = [part.format(here=small_file.parent) for part in more]
    assert_refused(["x4", small_file, "--model", x4_folder, *more], message, capsys)
    assert tree(small_file.parent) == before


@pytest.mark.parametrize(("model", "message"), BAD_MODELS.values(), ids=BAD_MODELS)
def test_bad_models_are_one_sentence(small_file, bad_models, capsys, model, message):
    before = tree(small_file.parent)
    assert_refused(["x4", small_file, "--model", model.format(**bad_models)], message, capsys)
    assert tree(small_file.parent) == before


def test_a_model_must_be_named(small_file, capsys):
    assert_refused(["x4", small_file], "--model", capsys)


def test_out_of_memory_is_a_sentence_and_nothing_is_written(small_file, x4_folder, tmp_path, capsys, monkeypatch):
    _exhaust(monkeypatch)
    assert alone(small_file, x4_folder, "-o", tmp_path / "out.png") == 1
    assert capsys.readouterr().err.endswith(f"latent-upscale: {small_file}: not even tiles of 32 fit.\n")
    assert not (tmp_path / "out.png").exists()


def test_a_model_that_the_memory_does_not_hold_is_a_sentence(small_file, x4_folder, capsys, monkeypatch):
    def load(path, **_):
        raise OutOfMemory(f"The memory is not enough for {path}.")

    monkeypatch.setattr(x4, "load_x4", load)
    assert alone(small_file, x4_folder) == 1
    assert capsys.readouterr().err == f"latent-upscale: The memory is not enough for {x4_folder}.\n"
    assert list(small_file.parent.iterdir()) == [small_file]


def _exhaust(monkeypatch, after=0):
    """Memory runs out in the x4 upscaler, `after` some pictures."""
    calls = iter(range(after))

    def upscale(*arguments, **options):
        if next(calls, None) is None:
            raise OutOfMemory("not even tiles of 32 fit.")
        return upscale_x4(*arguments, **options)

    monkeypatch.setattr(x4, "upscale_x4", upscale)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_while_a_picture_is_made_leaves_nothing_behind(small_file, x4_folder, capsys, monkeypatch):
    tiles = _press_ctrl_c(monkeypatch)
    assert alone(small_file, x4_folder, "--steps", "9") == 130
    assert tiles == [1, 2, 3]
    assert capsys.readouterr().err == "latent-upscale: stopped; nothing half-finished was written.\n"
    assert list(small_file.parent.iterdir()) == [small_file]


def _press_ctrl_c(monkeypatch):
    """The signal of Ctrl-C arrives while the x4 upscaler works on its third tile; what it finished is in the list.

    A whole process that is sent the signal from outside is in test_cli.py.
    """
    tiles = []

    def upscale(*arguments, progress, **options):
        def told(done, total):
            tiles.append(done)
            progress(done, total)
            if done == 3:
                signal.raise_signal(signal.SIGINT)

        return upscale_x4(*arguments, progress=told, **options)

    monkeypatch.setattr(x4, "upscale_x4", upscale)
    return tiles


# As the last pass of upscale


def test_the_last_pass_works_on_the_result_of_the_upscale(small_file, sd1_folder, x4_folder, tmp_path):
    more = ["--size", "40x24", "--seed", "5"]
    last = ["--x4", x4_folder, "--x4-steps", "2", "--x4-noise-level", "100", "--x4-prompt", "fur"]
    assert after_upscale(small_file, sd1_folder, "-o", tmp_path / "first.png", *more) == 0
    assert after_upscale(small_file, sd1_folder, "-o", tmp_path / "both.png", *more, *last) == 0
    generation = parse_parameters(parameters(tmp_path / "both.png"))
    (ran,) = generation.passes
    assert (generation.size, ran.model) == ((40, 24), "tiny-x4")
    assert replace(ran.settings, tile=0, decoder_tile=0) == X4Settings("fur", noise_level=100, steps=2, seed=5)
    assert replace(generation, passes=()) == parse_parameters(parameters(tmp_path / "first.png"))
    with Image.open(tmp_path / "first.png") as first, Image.open(tmp_path / "both.png") as both:
        expected = upscale_x4(first, load_x4(x4_folder, device="cpu"), ran.settings).image
        assert both.size == (160, 96)
        assert np.array_equal(np.asarray(both), np.asarray(expected))


def test_the_last_passes_of_a_folder(small_file, sd1_folder, x4_folder):
    with Image.open(small_file) as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(small_file.with_name("other.png"))
    more = ["--size", "40x24", "--x4", x4_folder, "--x4-steps", "1", "--batch-size", "2"]
    assert after_upscale(small_file.parent, sd1_folder, *more) == 0
    results = small_file.parent.with_name("in-upscaled")
    assert {path.name: size(path) for path in results.iterdir()} == {"small.png": (160, 96), "other.png": (160, 96)}


def test_transparency_and_name_of_the_last_pass(sd1_folder, x4_folder, tmp_path):
    source = Image.effect_noise((32, 32), 50).convert("RGBA")
    source.putalpha(Image.linear_gradient("L").resize((32, 32)))
    source.save(tmp_path / "glass.png")
    assert after_upscale(tmp_path / "glass.png", sd1_folder, "--scale", "1", "--x4", x4_folder, "--x4-steps", "1") == 0
    with Image.open(tmp_path / "glass-128x128.png") as image:
        alpha = np.asarray(image.getchannel("A").resize((32, 32), Image.Resampling.BOX), int)
    assert np.abs(alpha - np.asarray(source.getchannel("A"))).max() <= 2


def test_every_model_leaves_the_device_meanwhile_and_comes_back(engine):
    model = engine.model
    parts = [model.unet, model.vae, *(encoder.model for encoder in model.encoders)]
    assert len(parts) == 3
    with Engine(model).offloaded():
        assert {part.device.type for part in parts} == {"cpu"}


class Elsewhere(torch.nn.Linear):
    """A network on another device than the computer's own memory; it notes where it is moved."""

    def __init__(self):
        super().__init__(1, 1, device="meta")
        self.device = torch.device("meta")
        self.moves = []

    def to(self, device):
        self.moves.append(device.type)


@pytest.mark.parametrize("which", ["unet", "vae", "encoder", "tile"])
def test_each_of_them_is_moved_to_the_computers_own_memory_and_back(engine, which):
    model, encoder, network = engine.model, engine.model.encoders[0], Elsewhere()
    busy = {
        "unet": lambda: Engine(replace(model, unet=network)),
        "vae": lambda: Engine(replace(model, vae=network)),
        "encoder": lambda: Engine(replace(model, encoders=[replace(encoder, model=network)])),
        "tile": lambda: Engine(model, TileModel("tile", network)),
    }[which]()
    with busy.offloaded():
        assert network.moves == ["cpu"]
    assert network.moves == ["cpu", "meta"]


@pytest.mark.parametrize(("setting", "message"), BAD_SETTINGS.values(), ids=BAD_SETTINGS)
def test_bad_settings_of_the_last_pass_are_one_sentence(
    small_file, sd1_folder, x4_folder, capsys, monkeypatch, setting, message
):
    monkeypatch.setattr(x4, "load_x4", lambda *_, **__: pytest.fail("a model was loaded"))
    option, value = setting
    arguments = ["upscale", small_file, "--model", sd1_folder, "--x4", x4_folder, f"--x4-{option}", value]
    assert_refused(arguments, message, capsys)
    assert list(small_file.parent.iterdir()) == [small_file]


@pytest.mark.parametrize(("model", "message"), BAD_MODELS.values(), ids=BAD_MODELS)
def test_a_bad_model_for_the_last_pass_ends_before_the_upscale(
    small_file, bad_models, sd1_folder, capsys, monkeypatch, model, message
):
    monkeypatch.setattr(
        "lib_latent_upscale.standalone.commands.upscaler.load_engine", lambda *_: pytest.fail("too late")
    )
    before = tree(small_file.parent)
    arguments = ["upscale", small_file, "--model", sd1_folder, "--x4", model.format(**bad_models)]
    assert_refused(arguments, message, capsys)
    assert tree(small_file.parent) == before


def test_options_of_the_last_pass_without_it_are_refused(small_file, sd1_folder, capsys):
    arguments = ["upscale", small_file, "--model", sd1_folder, "--x4-noise-level", "0"]
    assert_refused(arguments, "--x4-noise-level: only with --x4", capsys)


def test_out_of_memory_in_the_last_pass_keeps_the_picture_before_it(
    small_file, sd1_folder, x4_folder, tmp_path, capsys, monkeypatch
):
    assert after_upscale(small_file, sd1_folder, "-o", tmp_path / "first.png", "--size", "40x24") == 0
    _exhaust(monkeypatch)
    output = tmp_path / "out.png"
    assert after_upscale(small_file, sd1_folder, "-o", output, "--size", "40x24", "--x4", x4_folder) == 1
    shown = capsys.readouterr().err
    assert "out.png: the picture before the x4 upscaler is kept: not even tiles of 32 fit." in shown
    assert output.read_bytes() == (tmp_path / "first.png").read_bytes()


def test_out_of_memory_at_one_picture_of_a_folder_does_not_stop_the_others(
    small_file, sd1_folder, x4_folder, tmp_path, monkeypatch
):
    with Image.open(small_file) as image:
        image.save(small_file.with_name("twin.png"))
    _exhaust(monkeypatch, after=1)
    results = tmp_path / "results"
    more = ["-o", results, "--size", "40x24", "--x4", x4_folder, "--x4-steps", "1"]
    assert after_upscale(small_file.parent, sd1_folder, *more) == 1
    assert [size(results / name) for name in ("small.png", "twin.png")] == [(160, 96), (40, 24)]


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_in_the_last_pass_keeps_the_picture_before_it(
    small_file, sd1_folder, x4_folder, tmp_path, capsys, monkeypatch
):
    assert after_upscale(small_file, sd1_folder, "-o", tmp_path / "first.png", "--size", "40x24") == 0
    tiles = _press_ctrl_c(monkeypatch)
    output = tmp_path / "out.png"
    more = ["-o", output, "--size", "40x24", "--x4", x4_folder, "--x4-steps", "9"]
    assert after_upscale(small_file, sd1_folder, *more) == 130
    assert tiles == [1, 2, 3]
    assert "the picture before the x4 upscaler is kept: it was interrupted" in capsys.readouterr().err
    assert output.read_bytes() == (tmp_path / "first.png").read_bytes()


# Names, defaults and the parameters text


def test_the_commands_defaults_are_the_cores():
    arguments = build_parser().parse_args(["x4", "in.png", "--model", "m"])
    assert given_settings(arguments, X4Settings, "--") == X4Settings(seed=1)
    arguments = build_parser().parse_args(["upscale", "in.png", "--x4", "m"])
    assert [one.settings for one in asked_passes(arguments)] == [X4Settings()]


def test_help_names_the_samplers_and_schedules(capsys):
    with pytest.raises(SystemExit):
        main(["x4", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert ", ".join(X4_SAMPLERS) in shown
    assert ", ".join(SCHEDULES) in shown


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30).map(str.strip)


@given(any_settings(TEXT), TEXT.filter(bool))
def test_what_is_written_reads_back_as_the_same(settings, model):
    generation = GenerationSettings(64, 48, "a cat", passes=(RanPass(settings, model),))
    assert parse_parameters(write_parameters(generation)) == generation
    assert read_x4(add_labels("", settings.with_model(model))) == (model, settings)


def test_labels_are_added_once():
    labels = X4Settings(seed=3).with_model("one")
    once = add_labels("a cat: sitting\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, Size: 64x64", labels)
    again = add_labels(once, X4Settings(seed=4).with_model("two"))
    assert once.startswith("a cat: sitting\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, Size: 64x64, x4 ")
    assert again == once.replace("x4 upscaler model: one", "x4 upscaler model: two").replace("seed: 3", "seed: 4")


def test_a_prompt_without_settings_stays_a_prompt():
    text = add_labels("a cat: sitting", {"x4 upscaler model": "one"})
    assert text == "a cat: sitting\nx4 upscaler model: one"


def test_a_text_without_the_x4_upscaler_has_no_settings_of_it():
    assert "x4 upscaler" not in write_parameters(GenerationSettings(64, 48))


def test_a_bad_value_in_a_text_names_its_label():
    with pytest.raises(InputError, match="x4 upscaler noise level: noise_level is 350"):
        read_x4("x4 upscaler model: one, x4 upscaler noise level: 350, Size: 64x64")
