"""Results in PNG, JPEG and WebP: how they were made stands where the WebUI reads it, and nothing is lost."""

import io
import re

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from lib_latent_upscale.errors import InputError, SizeError
from lib_latent_upscale.standalone.commands.cli import main
from lib_latent_upscale.standalone.files.formats import FORMATS, SUFFIXES, check_format, format_of, save_picture
from lib_latent_upscale.standalone.files.images import load_picture
from lib_latent_upscale.standalone.files.metadata import read_parameters
from lib_latent_upscale.standalone.files.settings import FileSettings
from tests.standalone.parameters import parse_parameters

EXIF, GPS, USER_COMMENT = 0x8769, 0x8825, 0x9286
ORIENTATION, COPYRIGHT, MAKE, TAKEN, WIDTH, MAKER_NOTE = 0x0112, 0x8298, 0x010F, 0x9003, 0xA002, 0x927C
TEXT = "a cat, ünïcode ☃\nSteps: 1, Sampler: Euler, CFG scale: 7, Seed: 5, Size: 96x64"
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture
def camera_file(tmp_path):
    """As a camera writes it: turned, with a date, a place, a maker's note and a comment of its own."""
    exif = Image.Exif()
    exif.update({ORIENTATION: 6, MAKE: "Maker", COPYRIGHT: "Somebody"})
    exif[EXIF] = {TAKEN: "2026:01:02 03:04:05", WIDTH: 48, MAKER_NOTE: b"\0" * 9, USER_COMMENT: b"ASCII\0\0\0mine"}
    exif[GPS] = {1: "N", 2: (52.0, 31.0, 12.0)}
    path = tmp_path / "camera.jpg"
    Image.effect_noise((48, 32), 50).convert("RGB").save(path, exif=exif, dpi=(300, 300), icc_profile=PROFILE)
    return path


def comment_as_the_webui_reads_it(image):
    """`piexif.helper.UserComment.load`: eight bytes that name the encoding, then the text."""
    comment = image.getexif().get_ifd(EXIF)[USER_COMMENT]
    assert comment[:8] == b"UNICODE\0"
    return comment[8:].decode("utf-16-be")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_how_it_was_made_stands_where_the_webui_writes_it(camera_file, tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    save_picture(Image.new("RGB", (96, 64)), path, TEXT, load_picture(camera_file), 95)
    with Image.open(path) as image:
        if suffix == ".png":
            assert image.info["parameters"] == TEXT
            assert USER_COMMENT not in image.getexif().get_ifd(EXIF), "the WebUI would read it instead"
        else:
            assert comment_as_the_webui_reads_it(image) == TEXT
    assert read_parameters(path) == TEXT


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_exif_density_and_profile_are_kept(camera_file, tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    picture = load_picture(camera_file)
    save_picture(picture.rgb.resize((64, 96)), path, TEXT, picture, 95)
    with Image.open(path) as image:
        exif = image.getexif()
        assert (exif[MAKE], exif[COPYRIGHT]) == ("Maker", "Somebody")
        assert ORIENTATION not in exif, "it is upright already"
        assert exif.get_ifd(EXIF)[TAKEN] == "2026:01:02 03:04:05"
        assert not {WIDTH, MAKER_NOTE} & set(exif.get_ifd(EXIF))
        assert exif.get_ifd(GPS)[2] == (52.0, 31.0, 12.0)
        assert image.info["icc_profile"] == PROFILE
    again = load_picture(path)
    assert again.density == pytest.approx((300, 300), abs=0.5)


XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmp:Rating="5"{}><dc:creator>Zoë ☃</dc:creator>{}</rdf:Description></rdf:RDF>'
    "</x:xmpmeta>"
)
KEPT_XMP = XMP.format("", "")


def with_xmp(path, text):
    """A picture as other programs write it, without the code under test."""
    picture, content = Image.effect_noise((48, 32), 50).convert("RGB"), text.encode()
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", text)
    segment = b"http://ns.adobe.com/xap/1.0/\0" + content
    options = {
        ".png": {"pnginfo": info},
        ".jpg": {"extra": b"\xff\xe1" + ((len(segment) + 2) % 65_536).to_bytes(2, "big") + segment},
        ".webp": {"xmp": content},
        ".tif": {"tiffinfo": {700: content}},
    }
    picture.save(path, **options[path.suffix])
    return path


def xmp_of(path):
    """As it stands in the file's own bytes, which in none of the formats is compressed."""
    content = path.read_bytes()
    found = [content[start:].split(b"</x:xmpmeta>")[0] + b"</x:xmpmeta>" for start in places(content, b"<x:xmpmeta")]
    return [one.decode() for one in found]


def places(content, part):
    return [match.start() for match in re.finditer(re.escape(part), content)]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("source", [".png", ".jpg", ".webp", ".tif"])
def test_xmp_is_kept_without_what_is_about_the_old_pixels(tmp_path, source, suffix):
    old = ' tiff:Orientation="6" exif:PixelXDimension = "48"', "<tiff:ImageWidth>48</tiff:ImageWidth>"
    picture = load_picture(with_xmp(tmp_path / f"a{source}", XMP.format(*old)))
    path = tmp_path / f"out{suffix}"
    save_picture(Image.new("RGB", (96, 64)), path, TEXT, picture, 95)
    assert xmp_of(path) == [KEPT_XMP]
    assert load_picture(path).xmp == KEPT_XMP
    assert read_parameters(path) == TEXT


def test_xmp_that_would_be_untrue_or_does_not_fit_is_left_out_and_said(tmp_path, caplog):
    gain_map = ' xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0"'
    assert load_picture(with_xmp(tmp_path / "phone.jpg", XMP.format(gain_map, ""))).xmp == ""
    assert "such as a gain map: left out" in caplog.text
    long = load_picture(with_xmp(tmp_path / "long.png", XMP.format("", "<dc:rights>" + "x" * 66_000 + "</dc:rights>")))
    save_picture(Image.new("RGB", (96, 64)), tmp_path / "out.jpg", TEXT, long, 95)
    assert "too long for a JPEG" in caplog.text
    assert xmp_of(tmp_path / "out.jpg") == []
    Image.new("RGB", (48, 32)).save(tmp_path / "bad.webp", xmp=b"\xff\xfe<x:xmpmeta")
    assert load_picture(tmp_path / "bad.webp").xmp == ""
    assert "damaged" in caplog.text


def test_a_tiffs_strips_are_no_exif(tmp_path):
    path = tmp_path / "scan.tif"
    Image.new("RGB", (48, 32)).save(path, dpi=(600, 600), description="a scan")
    picture = load_picture(path)
    save_picture(Image.new("RGB", (96, 64)), tmp_path / "out.jpg", None, picture, 95)
    with Image.open(tmp_path / "out.jpg") as image:
        exif = image.getexif()
        assert exif[0x010E] == "a scan"
        assert not {0x0100, 0x0111, 0x0117} & set(exif)
        assert image.info["dpi"] == (600, 600)


def test_damaged_exif_is_left_out_and_said(tmp_path, caplog):
    path = tmp_path / "a.jpg"
    Image.new("RGB", (48, 32)).save(path, exif=b"Exif\0\0MM\0\x2a\0\0\0\x08\xff\xff")
    picture = load_picture(path)
    save_picture(Image.new("RGB", (96, 64)), tmp_path / "out.webp", TEXT, picture, 95)
    assert read_parameters(tmp_path / "out.webp") == TEXT


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_transparency_is_kept_or_white_and_said(tmp_path, caplog, suffix):
    glass = np.zeros((64, 64, 4), np.uint8)
    glass[:, 32:] = (200, 30, 20, 255)
    Image.fromarray(glass).save(tmp_path / "glass.png")
    picture, path = load_picture(tmp_path / "glass.png"), tmp_path / f"out{suffix}"
    save_picture(picture.rgb, path, None, picture, 100)
    with Image.open(path) as image:
        holds = image.mode == "RGBA"
        left = np.asarray(image.convert("RGBA"), int)[:, :24]
    assert holds == (suffix not in (".jpg", ".jpeg"))
    assert (left[..., 3] == 0).all() if holds else (left > 250).all()
    assert ("holds no transparency" in caplog.text) == (not holds)


def test_the_same_picture_gives_the_same_bytes(camera_file, tmp_path):
    picture = load_picture(camera_file)
    for suffix in SUFFIXES:
        for name in "ab":
            save_picture(picture.rgb, tmp_path / f"{name}{suffix}", TEXT, picture, 90)
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_the_format_is_the_names_or_the_chosen_one(tmp_path):
    assert format_of(FileSettings()).name == "PNG"
    assert format_of(FileSettings(), tmp_path / "a.JPG").name == "JPEG"
    assert format_of(FileSettings(format="webp")).name == "WebP"
    with pytest.raises(InputError, match="--format webp writes"):
        format_of(FileSettings(format="webp"), tmp_path / "a.jpg")


def test_what_a_format_cannot_hold_is_said_before_the_work():
    with pytest.raises(SizeError, match="16383"):
        check_format(FORMATS["webp"], (16_384, 16), "")
    with pytest.raises(InputError, match="prompt is too long"):
        check_format(FORMATS["jpeg"], (64, 64), "x" * 40_000)
    longest = "\N{SNOWMAN}" * 30_000
    check_format(FORMATS["jpeg"], (64, 64), longest)
    Image.new("RGB", (8, 8)).save(io.BytesIO(), "JPEG", exif=b"Exif\0\0" + longest.encode("utf-16-be"))


@pytest.mark.parametrize("name", ["out.jpg", "out.webp", "out.JPEG"])
def test_the_command_writes_what_the_name_says(picture_file, sd1_folder, tmp_path, name):
    arguments = [str(picture_file), "--model", str(sd1_folder), "--steps", "1", "--quiet", "--prompt", "a cat, ☃"]
    assert main(["upscale", *arguments, "-o", str(tmp_path / name)]) == 0
    with Image.open(tmp_path / name) as image:
        assert image.format == ("WEBP" if name == "out.webp" else "JPEG")
        assert parse_parameters(comment_as_the_webui_reads_it(image)).prompt == "a cat, ☃"


@pytest.mark.parametrize(
    ("more", "message"), [(["--format", "tiff"], "png, jpeg, webp"), (["--quality", "0"], "1 to 100")]
)
def test_settings_that_are_not_allowed_are_one_sentence(picture_file, sd1_folder, capsys, more, message):
    assert main(["upscale", str(picture_file), "--model", str(sd1_folder), *more]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1
