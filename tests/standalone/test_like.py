"""`upscale --like made.png`: a picture is made again, and what cannot be taken over is said before any work."""

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import save_file

from lib_latent_upscale.settings import AUTOMATIC
from lib_latent_upscale.standalone.commands.cli import build_parser, main
from lib_latent_upscale.standalone.commands.like import made_like
from lib_latent_upscale.standalone.files.metadata import read_parameters
from tests.core import latent_files

PROMPTS = ["--prompt", 'a cat, "sitting":\non a wall', "--negative-prompt", "blurry, <lora:x:1>"]
NUMBERS = ["--steps", "3", "--denoise", "0.63", "--sampler", "DPM++ 2M SDE", "--cfg-scale", "2.5", "--seed", "77"]
TILE = ["--tile-controlnet", "demo", "--controlnet-weight", "0.6", "--controlnet-end", "0.9"]

WAYS = {
    "everything": [*PROMPTS, *NUMBERS, "--method", "bislerp", "--scheduler", "karras", "--keep-statistics"],
    "the WebUI's steps": ["--no-exact-steps", "--steps", "4", "--matched-noise", "--scheduler", AUTOMATIC],
    "starting noise": ["--steps", "3", "--starting-noise", "matched", "--scheduler", "beta"],
    "learned": ["--steps", "1", "--method", "learned", "--denoise", "0.2"],
    "learned-latent": ["--steps", "1", "--method", "learned-latent", "--scale", "1.5"],
    "tile ControlNet": ["--steps", "2", *TILE],
    "second pass": ["--steps", "1", *TILE, "--second-pass", "--second-steps", "2", "--second-scheduler", "normal"],
    "another shape": ["--steps", "1", "--size", "96x96", "--resize-mode", "crop"],
    "drawn seed": ["--steps", "1", "--seed", "-1"],
}


@pytest.fixture
def source(tmp_path, photo):
    path = tmp_path / "photo.png"
    photo.resize((64, 48)).save(path)
    return path


def upscale(*arguments):
    return main(["upscale", *map(str, arguments), "--quiet", "--device", "cpu"])


def content(path):
    with Image.open(path) as image:
        return image.tobytes(), read_parameters(path)


@pytest.mark.parametrize("way", WAYS)
def test_a_picture_is_made_again(source, tmp_path, caplog, demo_engine, way):
    assert upscale(source, "-o", tmp_path / "made.png", *WAYS[way]) == 0
    caplog.clear()
    assert upscale(source, "-o", tmp_path / "again.png", "--like", tmp_path / "made.png") == 0
    assert content(tmp_path / "again.png") == content(tmp_path / "made.png")
    assert "made.png" not in caplog.text


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_the_settings_stand_in_every_format(source, tmp_path, suffix):
    made, again = tmp_path / f"made{suffix}", tmp_path / f"again{suffix}"
    assert upscale(source, "-o", made, *WAYS["everything"]) == 0
    assert upscale(source, "-o", again, "--like", made) == 0
    assert again.read_bytes() == made.read_bytes()


def test_with_the_x4_upscaler(source, x4_folder, tmp_path, caplog):
    x4 = ["--x4", x4_folder]
    more = ["--size", "40x24", "--steps", "1", "--x4-steps", "2", "--x4-prompt", "fur", "--no-x4-colour-guard"]
    assert upscale(source, "-o", tmp_path / "made.png", *more, *x4) == 0
    made = ["--like", tmp_path / "made.png"]
    assert upscale(source, "-o", tmp_path / "again.png", *made, *x4) == 0
    assert content(tmp_path / "again.png") == content(tmp_path / "made.png")
    assert upscale(source, "-o", tmp_path / "small.png", *made) == 0
    assert "the x4 upscaler is left out: give its model 'tiny-x4' with --x4." in caplog.text
    with Image.open(tmp_path / "small.png") as image:
        assert image.size == (40, 24)


def test_passes_of_the_picture_are_left_out_where_none_is_given(source, tmp_path, x4_folder, caplog):
    assert upscale(source, "-o", tmp_path / "made.png", *WAYS["tile ControlNet"], "--x4", x4_folder) == 0
    assert "tile" in content(tmp_path / "made.png")[1].lower(), "or there is nothing to leave out"
    caplog.clear()
    made = ["--like", tmp_path / "made.png", "--tile-controlnet", "none", "--x4", "none"]
    assert upscale(source, "-o", tmp_path / "plain.png", *made) == 0
    assert not any(word in content(tmp_path / "plain.png")[1] for word in ("Tile", "x4"))
    assert not caplog.records


def test_with_a_latent_upscaler_of_the_persons_own(source, sd1_folder, tmp_path, capsys, caplog):
    own, other = tmp_path / "own-x2.0.safetensors", tmp_path / "other" / "own-x2.0.safetensors"
    numbers = latent_files.city96()
    save_file(numbers, own)
    other.parent.mkdir()
    save_file({name: value + 0.01 for name, value in numbers.items()}, other)
    model = ["--model", sd1_folder, "--like", tmp_path / "made.png"]
    assert upscale(source, "-o", tmp_path / "made.png", "--steps", "1", *model[:2], "--learned", own) == 0
    assert upscale(source, "-o", tmp_path / "again.png", *model, "--learned", own) == 0
    assert content(tmp_path / "again.png") == content(tmp_path / "made.png")
    assert "weights" not in caplog.text
    assert upscale(source, "-o", tmp_path / "none.png", *model) == 2
    assert "it was made with the latent upscaler 'own-x2.0': give its file with --learned" in capsys.readouterr().err
    assert upscale(source, "-o", tmp_path / "other.png", *model, "--learned", other) == 0
    assert "the weights" in caplog.text


def test_flags_that_are_given_win(source, tmp_path):
    made = ["--like", tmp_path / "made.png"]
    assert upscale(source, "-o", tmp_path / "made.png", *WAYS["everything"]) == 0
    changes = ["--steps", "20", "--no-keep-statistics", "--scale", "1.5", "--prompt", "", "--method", "nearest-exact"]
    found = like(source, *made, *changes)
    assert (found.steps, found.keep_statistics, found.scale, found.size) == (20, False, 1.5, None)
    assert (found.prompt, found.method, found.scheduler, found.seed) == ("", "nearest-exact", "karras", 77)


def like(*arguments):
    command = ["upscale", *map(str, arguments)]
    parsed = build_parser().parse_args(command)
    return made_like(parsed, build_parser(vars(parsed)).parse_args(command))


def written(path, text):
    info = PngInfo()
    info.add_text("parameters", text)
    Image.new("RGB", (64, 64)).save(path, pnginfo=info)
    return path


WEBUI = (
    "a cat <lora:fur:0.8>, (sitting:1.2)\nNegative prompt: blurry\nSteps: 30, Sampler: DPM++ 2M, "
    "Schedule type: Karras, CFG scale: 5.5, Seed: 965400086, Size: 768x512, "
    "Model hash: 6ce0161689, Model: sd15, Denoising strength: 0.4, "
    'Clip skip: 2, Lora hashes: "fur: 123", Version: v1.10.1'
)


def test_a_picture_of_the_webuis_img2img_goes_as_far_as_it_goes(source, sd1_folder, tmp_path, caplog):
    found = like(source, "--like", written(tmp_path / "made.png", WEBUI), "--model", sd1_folder)
    assert (found.steps, found.sampler, found.scheduler, found.cfg_scale) == (30, "DPM++ 2M", "karras", 5.5)
    assert (found.seed, found.size, found.denoise) == (965400086, (768, 512), 0.4)
    assert (found.prompt, found.negative_prompt) == ("a cat , (sitting:1.2)", "blurry")
    said = [record.getMessage().removeprefix(f"{tmp_path / 'made.png'}: ") for record in caplog.records]
    assert said == [
        "<lora:fur:0.8> in the prompt is left out: LoRAs are not supported here.",
        "it was made without Latent Upscale, so those settings come from the flags.",
        "it was made with the model 'sd15', and 'tiny-sd1' is given.",
        "Clip skip: 2 has no counterpart here.",
        "its noise was drawn on a GPU, and is drawn on the CPU here: details differ.",
    ]


def test_an_infotext_of_any_length_gives_short_notes(source, sd1_folder, tmp_path, caplog):
    made = written(tmp_path / "made.png", WEBUI.replace("Clip skip: 2", f"Clip skip: 2, Foreign: {'x' * 100_000}"))
    like(source, "--like", made, "--model", sd1_folder)
    assert max(len(message) for message in caplog.messages) < 1000


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("DPM++ 2M, Schedule type: Karras", "DPM++ 2M Karras", {"sampler": "DPM++ 2M", "scheduler": "karras"}),
        ("Schedule type: Karras", "Schedule type: Automatic", {"scheduler": AUTOMATIC}),
        ("Clip skip: 2", "Latent upscale scheduler: beta", {"scheduler": "beta"}),
        ("Clip skip: 2", "Latent upscale scheduler: automatic", {"scheduler": "karras"}),
    ],
)
def test_sampler_and_schedule_of_the_webui(source, sd1_folder, tmp_path, old, new, expected):
    made = written(tmp_path / "made.png", WEBUI.replace(old, new))
    found = vars(like(source, "--like", made, "--model", sd1_folder))
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("DPM++ 2M,", "UniPC,", "there is no sampler 'UniPC' here; choose another one with --sampler."),
        ("Karras", "Uniform", "there is no schedule type 'Uniform' here; choose another one with --scheduler."),
        ("Denoising strength: 0.4, ", "", "made by txt2img, whose size is not used"),
        ("Clip skip: 2", "Hires upscale: 2", "made by txt2img, whose size is not used"),
        ("Clip skip: 2", "Tile ControlNet model: t", "the Tile ControlNet is left out: give its model 't'"),
    ],
)
def test_what_cannot_be_taken_over_is_said(source, sd1_folder, tmp_path, caplog, old, new, said):
    made = written(tmp_path / "made.png", WEBUI.replace(old, new))
    like(source, "--like", made, "--model", sd1_folder)
    assert sum(said in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (WEBUI, "it was made with the model sd15: give it with --model."),
        ("a cat", "it does not say how it was made"),
        (WEBUI.replace("Steps: 30", "Steps: many"), "Steps is 'many'; a number is needed"),
        (WEBUI.replace("Clip skip: 2", "Latent upscale method: cubic"), "Latent upscale method: method is 'cubic'"),
    ],
)
def test_a_picture_that_says_too_little_is_refused_at_once(source, tmp_path, capsys, text, message):
    made = written(tmp_path / "made.png", text)
    assert upscale(source, "--like", made) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert f"{made}: {message}" in shown


@pytest.mark.parametrize("name", ["absent.png", "text.png"])
def test_what_is_no_picture_is_refused_at_once(source, tmp_path, capsys, name):
    (tmp_path / "text.png").write_text("no picture")
    assert upscale(source, "--like", tmp_path / name) == 2
    assert capsys.readouterr().err.count("\n") == 1
