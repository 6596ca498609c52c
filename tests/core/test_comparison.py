"""Comparisons: figures that mean what they say, crops where the difference is, a sheet and a page that hold it all."""

import base64
import io
import json
import math
import re
import sys
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest
import skimage.data
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageFilter, ImageFont

from lib_latent_upscale.comparison.metrics import choose_crops, difference_map, measure, plain_resize
from lib_latent_upscale.comparison.page import make_page
from lib_latent_upscale.comparison.report import Entry, Subject, make_report
from lib_latent_upscale.comparison.sheet import Panel, make_sheet
from lib_latent_upscale.comparison.variants import (
    HOST_DEFAULT,
    Variant,
    further_variant,
    merge_same,
    paired_variants,
    usual_variants,
    without_twins,
)
from lib_latent_upscale.settings import UpscaleSettings


@pytest.fixture(scope="module")
def original():
    return Image.fromarray(skimage.data.astronaut()).resize((256, 192))


@pytest.fixture(scope="module")
def source(original):
    return original.resize((128, 96), Image.Resampling.BOX)


def variants(*methods, **changes):
    return [Variant(method, UpscaleSettings(method=method, **changes)) for method in methods]


def test_the_hosts_default_is_the_webuis():
    """modules/processing.py, StableDiffusionProcessingImg2Img.init, resize mode 3: bilinear, nothing else changed."""
    assert replace(HOST_DEFAULT, method="nearest") == UpscaleSettings("nearest", "automatic", exact_steps=False)
    assert HOST_DEFAULT.method == "bilinear"


def test_variants_that_are_the_same_upscale_run_once():
    groups = merge_same(variants("nearest", "bilinear", "area", "nearest-exact"), (8, 8), (16, 16))
    assert [[variant.name for variant in group] for group in groups] == [
        ["nearest", "area", "nearest-exact"],
        ["bilinear"],
    ]
    assert len(merge_same(variants("nearest", "area"), (8, 8), (12, 12))) == 2


def test_an_automatic_method_is_the_same_as_the_one_that_it_becomes():
    def ran(variant):
        return variant.settings.resolved(family="sd1", factor=2.0)

    groups = merge_same(variants("automatic", "pixels", "learned"), (8, 8), (16, 16), ran)
    assert [[variant.name for variant in group] for group in groups] == [["automatic", "learned"], ["pixels"]]


@pytest.mark.parametrize("change", [{"scheduler": "karras"}, {"exact_steps": False}, {"keep_statistics": True}])
def test_variants_that_differ_in_anything_else_both_run(change):
    both = variants("nearest") + variants("area", **change)
    assert len(merge_same(both, (8, 8), (16, 16))) == 2


def test_variants_with_other_overrides_both_run():
    first, second = variants("nearest", "area")
    assert len(merge_same([first, replace(second, overrides=MappingProxyType({"steps": 3}))], (8, 8), (16, 16))) == 2


OWN = UpscaleSettings(method="lanczos", keep_statistics=True)


def test_every_comparison_begins_with_both_of_the_hosts_ways_and_the_settings_own():
    """The picture resized is the fair opponent: at low denoising strength it beats every interpolation of latents."""
    found = [(one.role, one.settings) for one in usual_variants(OWN, "karras")]
    assert found == [("host", HOST_DEFAULT), ("pixels", replace(HOST_DEFAULT, method="pixels")), ("own", OWN)]


def test_matched_noise_shows_the_hosts_way_from_that_noise_too_where_its_schedule_is_known():
    own = replace(OWN, matched_noise=True)
    *_, matched, _ = usual_variants(own, "karras")
    assert matched.role == "host"
    assert matched.settings == UpscaleSettings("bilinear", "karras", exact_steps=True, matched_noise=True)
    assert len(usual_variants(own, None)) == 3


def test_an_empty_list_of_a_pair_is_filled_from_the_settings():
    made = paired_variants(OWN, [], ["beta", "karras"])
    assert [one.settings for one in made] == [replace(OWN, scheduler="beta"), replace(OWN, scheduler="karras")]
    assert paired_variants(OWN, [], []) == []


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"method": "area"}, "area + simple"),
        ({"keep_statistics": False, "exact_steps": False}, "lanczos + simple, no exact steps, no keep statistics"),
        ({"steps": 9, "sampler_name": "Heun"}, "lanczos + simple, steps 9, sampler Heun"),
        ({"name": "mine", "steps": 9}, "mine"),
    ],
)
def test_a_variant_is_called_what_sets_it_apart(given, name):
    assert further_variant(given, OWN, ("steps", "sampler_name")).name == name


def test_a_variant_with_a_name_that_nobody_knows_is_refused_with_those_that_are_known():
    with pytest.raises(ValueError, match=r"unknown names \['speed'\]; known are: name, method, .*, steps"):
        further_variant({"speed": 3}, OWN, ("steps",))


def test_of_equal_variants_the_first_stays_and_passes_set_apart():
    first, second = Variant("a", OWN), Variant("b", OWN)
    third = Variant("c", OWN, passes=("x4 upscaler",))
    assert without_twins([first, second, third]) == [first, third]


def entry(picture, variant, **changes):
    values = {"same": [], "parameters": "", "host_schedule": "normal", "steps": 4, "first_sigma": 1.613, "seconds": 2.0}
    ran = {"method": variant.settings.method}
    return Entry(**{**values, **ran, "variant": variant, "picture": picture, **changes})


@pytest.fixture
def report(original, source):
    """Whoever names a variant like the host's default changes nothing about what is which."""
    soft, softer = (original.filter(ImageFilter.GaussianBlur(radius)) for radius in (1, 2))
    entries = [
        entry(softer, Variant("WebUI, latent upscale", HOST_DEFAULT, role="host"), steps=0, first_sigma=None),
        entry(original, Variant("WebUI mine", OWN, role="own"), same=[Variant("twin", replace(OWN, method="area"))]),
        entry(soft, Variant("Latent Upscale", OWN), shrunk_from=(512, 384), remarks=["with a pass"]),
    ]
    return make_report(Subject(source, 7, 20, "Euler", 0.5, 7.0, "model", reference=original), entries)


def test_what_is_ours_is_known_by_its_role_not_by_its_name(report, original):
    assert [panel.name for panel in report.panels if panel.highlight] == ["WebUI mine"]
    assert [report.panels[index].name for index in report.chosen] == ["WebUI, latent upscale", "WebUI mine"]
    softer = original.filter(ImageFilter.GaussianBlur(2))
    assert (np.asarray(report.difference) == np.asarray(difference_map(softer, original))).all()


def test_the_notes_say_what_ran(report):
    notes = {name: "\n".join(lines) for name, lines in report.notes.items()}
    assert (
        "bilinear + automatic (normal), steps cut by the denoising strength\nno step ran"
        in notes["WebUI, latent upscale"]
    )
    assert "lanczos + simple, exact steps, keep statistics\n4 steps ran from sigma 1.61" in notes["WebUI mine"]
    assert "the same as twin (area): not run twice" in notes["WebUI mine"]
    assert "512 x 384 pixels, shrunk here\nwith a pass" in notes["Latent Upscale"]
    assert notes["Original"] == "256 x 192 pixels"


def test_the_record_is_json_with_the_settings_of_every_variant(report):
    record = json.loads(json.dumps(report.record, allow_nan=False))
    assert [one["role"] for one in record["variants"]] == ["host", "own", "extra"]
    assert [one["first_sigma"] for one in record["variants"]] == [None, 1.613, 1.613]
    assert record["variants"][1]["method"] == "lanczos"
    assert record["variants"][1]["same_result"] == ["twin"]
    assert record["variants"][2]["shrunk_from"] == [512, 384]
    assert record["plain_resize"]["sharpness"] == pytest.approx(1)


def test_notes_and_record_say_which_method_automatic_was(original, source):
    one = entry(original, Variant("mine", UpscaleSettings("automatic"), role="own"), method="learned")
    report = make_report(Subject(source, 7, 20, "Euler", 0.5, 7.0, "model"), [one])
    assert report.notes["mine"][0] == "automatic (learned) + simple, exact steps"
    (record,) = report.record["variants"]
    assert (record["method"], record["method_run"]) == ("automatic", "learned")


def test_sheet_and_page_hold_all_of_it(report):
    assert report.sheet().width > 3 * 400
    assert all(name in report.page() for name in ("Input", "Picture resized", "WebUI mine", "Original"))


def test_a_comparison_of_one_has_no_difference(original, source):
    one = [entry(original, Variant("WebUI, latent upscale", HOST_DEFAULT, role="host"))]
    report = make_report(Subject(source, 7, 20, "Euler", 0.5, 7.0, "model"), one)
    assert report.difference is None
    assert report.chosen == (1, 2)


def test_people_are_shown_the_picture_as_it_is_dressed(original, source):
    one = [entry(original, Variant("mine", OWN, role="own"))]
    report = make_report(Subject(source, 7, 20, "Euler", 0.5, 7.0, "model"), one, shown=lambda p: p.convert("RGBA"))
    assert {panel.picture.mode for panel in report.panels} == {"RGBA"}


def test_a_perfect_result_is_faithful_exact_and_uncoloured(original, source):
    figures = measure(original, source, seconds=1.5, reference=original)
    assert figures.faithful_psnr > 50
    assert figures.faithful_ssim > 0.999
    assert figures.colour_shift < 0.4
    assert figures.reference.psnr == math.inf
    assert figures.reference.ssim == pytest.approx(1)
    assert figures.seconds == 1.5
    assert figures.sharpness > 1.2, "the original holds more detail than the enlarged small picture"


def test_sharpness_falls_with_blur_and_is_one_for_the_plain_resize(original, source):
    plain = plain_resize(source, original.size)
    sharpness = [measure(plain.filter(ImageFilter.GaussianBlur(radius)), source).sharpness for radius in (0, 1, 2, 4)]
    assert sharpness[0] == pytest.approx(1)
    assert sorted(sharpness, reverse=True) == sharpness


def test_psnr_is_the_formula(source):
    """A constant offset of 10 of 255 has a mean squared error of (10 / 255)^2: 28.13 dB."""
    grey = Image.new("RGB", source.size, (100, 100, 100))
    figures = measure(Image.new("RGB", (256, 192), (110, 110, 110)), grey)
    assert figures.faithful_psnr == pytest.approx(20 * math.log10(255 / 10), abs=0.01)


def test_colour_shift_is_ciede2000():
    """Two greys: only lightness counts, dL / (1 + 0.015 dL50^2 / sqrt(20 + dL50^2)), dL50 from 50 to their mean."""
    first, second = (Image.new("RGB", (32, 32), (value,) * 3) for value in (119, 145))
    lightness = [116 * (((value / 255 + 0.055) / 1.055) ** 2.4) ** (1 / 3) - 16 for value in (119, 145)]
    middle = (sum(lightness) / 2 - 50) ** 2
    expected = (lightness[1] - lightness[0]) / (1 + 0.015 * middle / math.sqrt(20 + middle))
    assert measure(second, first).colour_shift == pytest.approx(expected, abs=0.01)


def test_colours_that_shift_are_seen_though_nothing_else_changes(original, source):
    shifted = ImageEnhance.Color(original).enhance(0.5)
    assert measure(shifted, source).colour_shift > 3 * measure(original, source).colour_shift


def test_the_nearer_result_has_the_better_figures_against_the_original(original, source):
    near, far = (original.filter(ImageFilter.GaussianBlur(radius)) for radius in (1, 3))
    near, far = (measure(picture, source, reference=original).reference for picture in (near, far))
    assert near.psnr > far.psnr
    assert near.ssim > far.ssim
    assert near.gmsd is None or near.gmsd < far.gmsd


def test_without_piq_the_rest_is_still_measured(original, source, monkeypatch):
    monkeypatch.setitem(sys.modules, "piq", None)
    figures = measure(original, source, reference=original)
    assert figures.reference.gmsd is None
    assert "GMSD" not in " ".join(figures.lines())


def test_a_reference_of_another_size_is_refused(original, source):
    with pytest.raises(ValueError, match="128x96 and the result 256x192"):
        measure(original, source, reference=source)


def test_figures_are_plain_values_and_lines_for_people(original, source):
    figures = measure(original, source, reference=original)
    values = json.loads(json.dumps(figures.to_dict(), allow_nan=False))
    assert values["reference"]["psnr"] is None, "infinite is no JSON"
    assert values["faithful_ssim"] == figures.faithful_ssim
    assert any(line.startswith("compared with the original: exact") for line in figures.lines())
    assert any(re.fullmatch(r"sharpness \d\.\d\d \(picture resized: 1\)", line) for line in figures.lines())


def test_pictures_as_small_as_they_may_be_can_be_measured():
    assert math.isfinite(measure(Image.effect_noise((16, 16), 9), Image.effect_noise((8, 8), 9)).faithful_ssim)


@given(
    spots=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 7)), min_size=1, max_size=3, unique=True),
)
def test_crops_lie_where_the_pictures_differ_and_do_not_overlap(spots):
    """Cells of 32 pixels that differ, in a picture of 10 x 8 such cells."""
    first = np.zeros((256, 320, 3), np.uint8)
    second = first.copy()
    for column, row in spots:
        second[row * 32 + 8 : row * 32 + 24, column * 32 + 8 : column * 32 + 24] = 200
    boxes = choose_crops([Image.fromarray(first), Image.fromarray(second)], count=3, share=1 / 8)
    assert len(boxes) == 3
    for index, (left, top, right, bottom) in enumerate(boxes):
        assert (right - left, bottom - top) == (32, 32)
        for other in boxes[:index]:
            assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top
    differs = (first != second).any(axis=-1)
    assert differs[boxes[0][1] : boxes[0][3], boxes[0][0] : boxes[0][2]].sum() >= 256, "one whole spot or more"


def test_crops_of_small_and_equal_pictures():
    same = Image.new("RGB", (20, 16))
    assert choose_crops([same, same]) == [(0, 0, 16, 16)]


def test_the_difference_map_is_black_where_pictures_agree(original):
    changed = original.copy()
    changed.paste("white", (10, 20, 50, 60))
    shown = np.asarray(difference_map(original, changed))
    assert shown.shape == (192, 256)
    assert not shown[100:].any()
    assert shown[20:60, 10:50].mean() > 60
    assert not np.asarray(difference_map(original, original)).any()


def panels(original, count=4):
    names = [
        "Input",
        "Picture resized",
        "WebUI, latent upscale",
        "Latent Upscale",
        "bislerp + karras",
        "lanczos + beta",
    ]
    return [
        Panel(
            name,
            original,
            ["20 steps from sigma 1.61", "sharpness 1.20 (picture resized: 1)"],
            highlight=name[0] == "L",
        )
        for name in names[:count]
    ]


def test_the_sheet_shows_every_picture_and_every_crop(original):
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0), (0, 200, 200)]
    plain = [Panel(str(colour), Image.new("RGB", (64, 48), colour)) for colour in colours]
    values = np.asarray(make_sheet(plain, [(0, 0, 16, 16), (32, 16, 48, 32)], column_width=100))
    for colour in colours:
        shown = (values == colour).all(axis=-1).sum()
        assert shown > 100 * 75 * 0.8 + 2 * 90 * 90, "the picture and two enlarged crops"


@pytest.mark.parametrize(("count", "columns", "rows"), [(4, 4, 1), (5, 5, 1), (6, 3, 2)])
def test_many_panels_go_on_in_rows_of_about_equal_length(original, count, columns, rows):
    one = make_sheet(panels(original, 1), [], column_width=200)
    sheet = make_sheet(panels(original, count), [], column_width=200)
    assert sheet.width == columns * 210 + 10
    assert rows * (one.height - 20) <= sheet.height <= rows * one.height + 100


def _ink(image):
    return (np.asarray(image.convert("L")) < 140).sum()


@pytest.mark.parametrize("width", [120, 300, 700])
def test_labels_grow_with_the_sheet_and_stay_inside_their_column(width):
    """Text covers about the same share of the label at any size; a long name is broken, not cut off."""
    blank = Image.new("RGB", (50, 10), "white")
    short = make_sheet([Panel("A name", blank)], [], column_width=width)
    long = make_sheet([Panel("A name that is much too long for one line of its column", blank)], [], column_width=width)
    assert long.height > short.height
    assert long.width == short.width
    assert _ink(long) > 4 * _ink(short)
    margin = np.asarray(long.convert("L"))[:, -(width // 20) :]
    assert (margin == 255).all()


def test_an_old_pillow_draws_labels_with_its_bitmap_font(original, monkeypatch):
    """Pillow 9.5, which the WebUI pins, has no font of a chosen size."""
    modern = ImageFont.load_default

    def old(*args, **options):
        if args or options:
            raise TypeError("load_default() takes 0 positional arguments")
        return modern()

    monkeypatch.setattr(ImageFont, "load_default", old)
    small, large = (make_sheet([Panel("Naïve → name", original)], [], column_width=width) for width in (200, 800))
    assert _ink(large.crop((0, large.height - 70, large.width, large.height))) > 400
    assert small.width == 220


def test_a_font_file_can_be_given(original, tmp_path, monkeypatch):
    asked, font = [], ImageFont.load_default()
    monkeypatch.setattr(ImageFont, "truetype", lambda path, size: asked.append(path) or font)
    make_sheet(panels(original, 1), [], font=tmp_path / "some.ttf")
    assert set(asked) == {str(tmp_path / "some.ttf")}


def test_transparent_pictures_are_shown_on_paper(tmp_path):
    glass = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    values = np.asarray(make_sheet([Panel("", glass)], [(0, 0, 20, 20)], column_width=100))
    assert not ((values[..., 0] > 200) & (values[..., 1] < 50)).any()


def test_the_page_holds_everything_itself(original):
    page = make_page([Panel("a <b> & c", original), Panel("</script>", original, ["note <i>"])], title="<title>")
    assert not re.search(r"(src|href)\s*=\s*[\"']|url\(|https?://", page), "nothing is loaded from elsewhere"
    data = json.loads(re.search(r'<script type="application/json" id="pictures">(.*?)</script>', page, re.DOTALL)[1])
    assert [entry["name"] for entry in data] == ["a <b> & c", "</script>"]
    shown = Image.open(io.BytesIO(base64.b64decode(data[0]["data"].partition(",")[2])))
    assert np.abs(np.asarray(shown, int) - np.asarray(original)).mean() < 2
    assert "note &lt;i&gt;" in page
    assert "<h1>&lt;title&gt;</h1>" in page


def test_the_page_starts_with_the_chosen_pair(original):
    page = make_page(panels(original), chosen=(1, 3))
    assert re.findall(r'value="(\d)" selected', page) == ["1", "3"]
    assert re.findall(r'value="(\d)" selected', make_page(panels(original))) == ["2", "3"]
