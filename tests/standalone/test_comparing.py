"""`compare`: fair, shared work done once, and every picture can be made again alone."""

import base64
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageCms

from lib_latent_upscale.comparison.report import make_report
from lib_latent_upscale.errors import InputError
from lib_latent_upscale.settings import UpscaleSettings
from lib_latent_upscale.standalone.commands import compare as comparing
from lib_latent_upscale.standalone.commands.cli import main
from lib_latent_upscale.standalone.commands.compare import (
    compare,
    default_variants,
    generation_of,
    parse_variant,
    subject_of,
)
from lib_latent_upscale.standalone.engine import engine as engine_module
from lib_latent_upscale.standalone.engine.generation import GenerationSettings
from lib_latent_upscale.standalone.files.images import Picture
from tests.standalone.parameters import parse_parameters

BASE = GenerationSettings(256, 192, steps=4, denoising_strength=0.6, seed=3)


def command(picture_file, sd1_folder, output, *more):
    return main(
        ["compare", str(picture_file), "-o", str(output), "--model", str(sd1_folder), "--steps", "2", "--quiet", *more]
    )


def test_the_two_that_are_always_there():
    default, resized, ours = default_variants(BASE)
    assert resized.settings == UpscaleSettings("pixels", "automatic", exact_steps=False)
    assert default.settings == UpscaleSettings("bilinear", "automatic", exact_steps=False)
    assert ours.settings == BASE.upscale


def test_with_matched_noise_the_default_also_starts_from_that_noise(engine):
    base = replace(BASE, upscale=UpscaleSettings(scheduler="karras", matched_noise=True))
    variants = [*default_variants(base), parse_variant("bislerp:exponential", base)]
    starts = [engine.plan(generation_of(variant, base)).run[0].item() for variant in variants]
    assert starts[2] == pytest.approx(starts[3])
    assert starts[4] == pytest.approx(starts[3])
    assert starts[0] != pytest.approx(starts[3])


def test_variants_take_what_they_do_not_name_from_ours():
    base = replace(BASE, upscale=UpscaleSettings(keep_statistics=True))
    variant = parse_variant("bislerp:karras:denoise=0.3,exact_steps=no,sampler=DPM++ 2M", base)
    generation = generation_of(variant, base)
    assert generation.upscale == UpscaleSettings("bislerp", "karras", exact_steps=False, keep_statistics=True)
    assert (generation.denoising_strength, generation.sampler) == (0.3, "DPM++ 2M")
    assert (generation.steps, generation.seed) == (4, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bislerp", "METHOD:SCHEDULER"),
        ("cubic:karras", "bicubic"),
        ("bislerp:carras", "karras"),
        ("bislerp:karras:speed=3", "unknown key 'speed'; known are: steps"),
        ("bislerp:karras:steps=0", "out of range"),
        ("bislerp:karras:steps=x", "a number is needed"),
        ("bislerp:karras:exact_steps=perhaps", "choose True or False"),
        ("bislerp:karras:sampler=Oiler", "Euler a"),
    ],
)
def test_variants_that_make_no_sense_are_refused(text, message):
    with pytest.raises(InputError, match=message):
        parse_variant(text, BASE)


def test_shared_work_is_done_once_and_twins_are_not_run(engine, photo, monkeypatch):
    calls = {"encode": 0, "prompt": 0, "decode": 0}

    def counted(name, function):
        def call(*arguments):
            calls[name] += 1
            return function(*arguments)

        return call

    for name, attribute in [("encode", "encode_picture"), ("prompt", "encode_prompt"), ("decode", "decode_latent")]:
        monkeypatch.setattr(engine_module, attribute, counted(name, getattr(engine_module, attribute)))
    base = replace(BASE, upscale=UpscaleSettings("nearest-exact"))
    variants = [*default_variants(base), parse_variant("area:simple", base), parse_variant("bicubic:simple", base)]
    entries = compare(engine, Picture(photo), variants, base)
    assert [entry.variant.name for entry in entries] == [
        "WebUI, latent upscale",
        "WebUI, Just resize",
        "Latent Upscale",
        "bicubic + simple",
    ]
    assert [twin.name for twin in entries[2].same] == ["area + simple"]
    assert calls == {"encode": 2, "prompt": 2, "decode": 4}


def test_every_variant_can_be_made_again_alone_from_its_parameters(engine, photo):
    variants = [*default_variants(BASE), parse_variant("bislerp:karras:denoise=0.8,steps=2", BASE)]
    for entry in compare(engine, Picture(photo), variants, BASE):
        generation = parse_parameters(entry.parameters)
        alone = engine.upscale([photo], generation).pictures[0]
        assert (np.asarray(alone) == np.asarray(entry.picture)).all()


def test_everything_is_written(picture_file, sd1_folder, tmp_path, capsys):
    reference = tmp_path / "original.png"
    Image.effect_noise((256, 192), 40).save(reference)
    assert command(picture_file, sd1_folder, tmp_path / "sheet.png", "--reference", str(reference), "--difference") == 0
    names = ["sheet.png", "sheet.json", "sheet.html", "sheet-difference.png"]
    assert capsys.readouterr().out.split() == [str(tmp_path / name) for name in names]
    figures = json.loads((tmp_path / "sheet.json").read_text())
    assert [variant["steps_run"] for variant in figures["variants"]] == [2, 2, 2]
    assert parse_parameters(figures["variants"][2]["parameters"]).model == "tiny-sd1"
    assert figures["plain_resize"]["sharpness"] == pytest.approx(1)
    for variant in figures["variants"]:
        assert variant["figures"]["seconds"] > 0
        assert variant["figures"]["reference"]["psnr"] > 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 3 * 400, "two rows: input, plain, both of the host's ways, ours, original"
    assert "WebUI, latent upscale" in (tmp_path / "sheet.html").read_text()


def test_names_beside_the_picture_and_a_page_elsewhere(picture_file, sd1_folder, tmp_path):
    page = tmp_path / "page.html"
    options = ["--model", str(sd1_folder), "--steps", "1", "--denoise", "0", "--html", str(page), "--quiet"]
    assert main(["compare", str(picture_file), *options]) == 0
    assert (picture_file.parent / "photo-comparison.png").exists()
    assert page.exists()


def test_the_label_says_what_ran(engine, photo):
    base = replace(BASE, sampler="DPM++ 2M", upscale=UpscaleSettings("nearest-exact"))
    variants = [*default_variants(base), parse_variant("nearest:simple", base)]
    picture = Picture(photo)
    panels = make_report(subject_of(picture, base), compare(engine, picture, variants, base)).panels
    names = [panel.name for panel in panels]
    assert names == ["Input", "Picture resized", "WebUI, latent upscale", "WebUI, Just resize", "Latent Upscale"]
    assert [panel.highlight for panel in panels] == [False, False, False, False, True]
    notes = ["\n".join(panel.notes) for panel in panels]
    assert "bilinear + automatic (karras), steps cut by the denoising strength\n3 steps ran from sigma" in notes[2]
    assert "nearest-exact + simple, exact steps\n4 steps ran from sigma" in notes[4]
    assert "the same as nearest + simple (nearest): not run twice" in notes[4]


def test_the_label_says_which_method_automatic_was_and_that_runs_once(engine, photo):
    base, picture = replace(BASE, steps=1), Picture(photo)
    variants = [*default_variants(base), parse_variant("learned:simple", base)]
    own = compare(engine, picture, variants, base)[-1]
    assert own.notes[0] == "automatic (learned) + simple, exact steps"
    assert [twin.name for twin in own.same] == ["learned + simple"]
    assert "Latent upscale method: learned" in own.parameters


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--variant", "cubic:simple"], "cubic"),
        (["--reference", "none.png"], "no such file"),
        (["--html", "page.txt"], ".html or .htm"),
        (["--scale", "100"], "out of range"),
        (["--variant", "area:simple:steps=x"], "steps is 'x'; a number is needed"),
        (["--variant", f"area:simple:steps={'9' * 5000}"], "characters): steps is '999"),
        (["-o", "."], "this is a folder"),
        (["-o", "/"], "this is a folder"),
        (["--tile-controlnet", "none", "--controlnet-weight", "0.5"], "--controlnet-weight: only with"),
    ],
)
def test_bad_input_ends_before_any_work(picture_file, sd1_folder, tmp_path, capsys, monkeypatch, more, message):
    monkeypatch.setattr(comparing, "load_engine", None)
    assert command(picture_file, sd1_folder, tmp_path / "sheet.png", *more) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "sheet.png").exists()


def test_tile_controlnet_none_is_a_comparison_without_it(picture_file, tmp_path):
    names = {}
    for tile in ("demo", "none"):
        sheet, more = tmp_path / f"{tile}.png", ["--tile-controlnet", tile, "--scale", "1", "--denoise", "0.1"]
        assert command(picture_file, "demo", sheet, *more) == 0
        names[tile] = [one["name"] for one in json.loads(sheet.with_suffix(".json").read_text())["variants"]]
    assert len(names["demo"]) == len(names["none"]) + 1
    assert not any("tile" in name.lower() for name in names["none"])


def test_a_reference_of_another_size_is_refused_with_the_size_to_give(picture_file, sd1_folder, tmp_path, capsys):
    assert command(picture_file, sd1_folder, tmp_path / "sheet.png", "--reference", str(picture_file)) == 2
    assert "give --size 128x96" in capsys.readouterr().err


def test_settings_that_are_the_webuis_default_compare_nothing_and_say_so(engine, photo):
    base = replace(BASE, upscale=UpscaleSettings("bilinear", "automatic", exact_steps=False))
    picture = Picture(photo)
    entries = compare(engine, picture, default_variants(base), base)
    panels = make_report(subject_of(picture, base), entries).panels
    assert [panel.name for panel in panels] == [
        "Input",
        "Picture resized",
        "WebUI, latent upscale",
        "WebUI, Just resize",
    ]
    assert "the same as Latent Upscale" in "\n".join(panels[2].notes)


def test_sheet_page_and_difference_keep_the_colour_profile(picture_file, photo, sd1_folder, tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo.save(picture_file, icc_profile=profile)
    options = ["--model", str(sd1_folder), "--steps", "1", "--scale", "1", "--quiet", "-o", str(tmp_path / "sheet.png")]
    assert main(["compare", str(picture_file), *options]) == 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.info["icc_profile"] == profile
    pictures = re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", (tmp_path / "sheet.html").read_text("utf-8"))
    assert len(pictures) >= 3
    for content in pictures:
        with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
            assert picture.info["icc_profile"] == profile
