"""Pictures of every mode can be read; what is written is whole."""

import io
import re
import stat
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from lib_latent_upscale.errors import InputError
from lib_latent_upscale.standalone.files.formats import save_picture
from lib_latent_upscale.standalone.files.images import Picture, load_picture, upright_size
from lib_latent_upscale.standalone.files.inputs import find_pictures
from lib_latent_upscale.standalone.files.metadata import read_parameters
from lib_latent_upscale.writing import write_whole

GREY = np.linspace(0, 255, 48 * 32).reshape(32, 48).astype(np.uint8)
RGB = np.stack([GREY, GREY[::-1], GREY[:, ::-1]], axis=-1)


def written(tmp_path, image, name="picture.png", **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


def test_rgb_is_read_as_it_is(tmp_path):
    picture = load_picture(written(tmp_path, Image.fromarray(RGB)))
    assert (np.asarray(picture.rgb) == RGB).all()
    assert picture.alpha is None
    assert picture.size == (48, 32)


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK", "LAB", "LA", "RGBA", "I;16", "I", "F"])
def test_any_mode_becomes_rgb_that_looks_the_same(tmp_path, mode):
    grey = Image.fromarray(GREY)
    if mode in ("I;16", "I"):
        image = Image.fromarray(GREY.astype(np.uint16) * 257).convert(mode)
    elif mode == "F":
        image = Image.fromarray(GREY.astype(np.float32) / 255)
    elif mode == "1":
        image = grey.convert("1", dither=Image.Dither.NONE)
    elif mode == "LAB":
        image = _lab(grey)
    else:
        image = grey.convert("RGB").convert(mode) if mode == "CMYK" else grey.convert(mode)
    suffix = "tif" if mode in ("CMYK", "I", "LAB", "F") else "png"
    rgb = load_picture(written(tmp_path, image, f"picture.{suffix}")).rgb
    expected = np.where(GREY > 127, 255, 0) if mode == "1" else GREY
    assert rgb.mode == "RGB"
    assert np.abs(np.asarray(rgb, dtype=int) - expected[..., None]).max() <= 3


def _lab(grey):
    return ImageCms.profileToProfile(
        grey.convert("RGB"), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )


def test_sixteen_bit_grey_keeps_its_dark_tones(tmp_path):
    """Pillow's own convert cuts everything above 255 off: such pictures came out white."""
    values = np.full((32, 32), 128 * 257, dtype=np.uint16)
    path = tmp_path / "deep.png"
    Image.fromarray(values).save(path)
    assert np.asarray(load_picture(path).rgb).max() == 128


def test_exif_orientation_turns_the_picture(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    path = written(tmp_path, Image.fromarray(RGB), exif=exif)
    assert load_picture(path).size == (32, 48)
    assert (np.asarray(load_picture(path).rgb) == np.rot90(RGB, -1)).all()


def test_transparency_survives(tmp_path):
    rgba = Image.fromarray(RGB).convert("RGBA")
    alpha = Image.linear_gradient("L").resize(rgba.size)
    rgba.putalpha(alpha)
    picture = load_picture(written(tmp_path, rgba))
    finished = picture.with_alpha(picture.rgb.resize((96, 64)))
    assert finished.mode == "RGBA"
    assert finished.size == (96, 64)
    assert np.abs(np.asarray(finished.getchannel("A").resize((48, 32), Image.Resampling.BOX), int) - alpha).max() <= 2


def test_palette_and_rgb_with_a_transparent_colour(tmp_path):
    palette = Image.fromarray(GREY // 64 * 64).convert("P")
    assert load_picture(written(tmp_path, palette, "p.gif", transparency=0)).alpha is not None
    keyed = Image.fromarray(RGB)
    assert load_picture(written(tmp_path, keyed, "k.png", transparency=(0, 255, 255))).alpha is not None


def test_invisible_colours_do_not_bleed_into_the_picture(tmp_path):
    """A red square on transparent black: its surroundings become red, too, up to rounding."""
    values = np.zeros((64, 64, 4), np.uint8)
    values[24:40, 24:40] = (200, 30, 20, 255)
    rgb = np.asarray(load_picture(written(tmp_path, Image.fromarray(values))).rgb, dtype=int)
    assert np.abs(rgb - (200, 30, 20)).max() <= 8


def test_the_colour_profile_of_rgb_goes_along_and_cmyk_is_converted(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    rgb = written(tmp_path, Image.fromarray(RGB), "rgb.png", icc_profile=profile)
    assert load_picture(rgb).icc_profile == profile
    cmyk = written(tmp_path, Image.fromarray(RGB).convert("CMYK"), "c.jpg", icc_profile=profile)  # a wrong profile
    assert load_picture(cmyk).rgb.mode == "RGB"


def _png_bytes(size=(64, 64)):
    buffer = io.BytesIO()
    Image.effect_noise(size, 50).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"This is not a picture", "not a picture"),
        (_png_bytes()[:200], "damaged|truncated|cannot be read"),
        (_png_bytes()[:-1000], "damaged or truncated"),
        (_png_bytes((1, 1)), "1x1 is out of range"),
        (_png_bytes((15, 400)), "15x400 is out of range"),
    ],
)
def test_files_that_cannot_be_used_are_refused(tmp_path, content, message):
    path = tmp_path / "bad.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"{re.escape(str(path))}.*({message})"):
        load_picture(path)


def test_a_huge_picture_is_refused_from_its_header(tmp_path):
    """20,000 x 20,000 in one bit: 50 kB on disk, more than a gigabyte as RGB."""
    path = tmp_path / "huge.png"
    Image.new("1", (20_000, 20_000)).save(path)
    with pytest.raises(InputError, match="8192"):
        load_picture(path)


def test_a_missing_file_and_a_large_side_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load_picture(tmp_path / "none.png")
    with pytest.raises(InputError, match="9000x20"):
        load_picture(written(tmp_path, Image.new("L", (9000, 20))))


def test_pictures_of_a_folder_by_name(tmp_path):
    for name in ("b.PNG", "a.jpeg", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "c.png").mkdir()
    assert [path.name for path in find_pictures(tmp_path)] == ["a.jpeg", "b.PNG"]
    with pytest.raises(InputError, match="no pictures"):
        find_pictures(tmp_path / "c.png")


@pytest.mark.parametrize("suffix", ["png", "qoi", "gif"])
def test_pictures_that_are_damaged_inside_are_not_taken_for_whole(tmp_path, suffix):
    """A PNG without EXIF came through, half black, with a warning of its EXIF."""
    path = tmp_path / f"a.{suffix}"
    Image.effect_noise((64, 64), 60).convert("RGB").save(path)
    content = path.read_bytes()
    half = len(content) // 2
    path.write_bytes(content[:half] + bytes(40) + content[half + 40 :] if suffix == "png" else content[:half])
    with pytest.raises(InputError, match="damaged or truncated"):
        load_picture(path)


def test_a_header_that_claims_a_huge_picture_is_one_sentence(tmp_path):
    path = tmp_path / "huge.png"
    Image.new("1", (1, 1)).save(path)
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 60_000, 60_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)
    assert read_parameters(path) == ""
    for read in (load_picture, upright_size):
        with pytest.raises(InputError, match="the picture is too large"):
            read(path)


def test_a_png_is_written_the_same_each_time_and_readable_by_others(tmp_path):
    for name in ("a.png", "b.png"):
        save_picture(Image.fromarray(RGB), tmp_path / name, "Steps: 1, ünïcode ☃", Picture(Image.fromarray(RGB)), 95)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        assert image.info["parameters"] == "Steps: 1, ünïcode ☃"
    plain = tmp_path / "plain"
    plain.touch()
    assert stat.S_IMODE((tmp_path / "a.png").stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "out.png"
    path.write_bytes(b"old")

    def fail(part, content):
        part.open("wb").write(content[:2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, b"half", overwrite=True)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


RAMP = np.linspace(0, 1, 64 * 32).reshape(32, 64)


def with_one(values, value):
    values = values.copy()
    values[3, 3] = value
    return values


def hdr():
    """As a renderer writes it: the picture in 0 to 1, a tenth of it brighter up to 300."""
    values = RAMP.copy()
    values[:3] = np.linspace(1, 300, 3 * 64).reshape(3, 64)
    return values


NUMBERS = {
    "float 0..1": (RAMP.astype(np.float32), 1, "1 as white"),
    "float 0..1.01": ((RAMP * 1.01).astype(np.float32), 1, "1 as white"),
    "float 0..255": ((RAMP * 255).astype(np.float32), 255, "255 as white"),
    "float of whole numbers 0..255": (np.rint(RAMP * 255).astype(np.float32), 255, "255 as white"),
    "float 0..65535": ((RAMP * 65535).astype(np.float32), 65535, "65535 as white"),
    "HDR": (hdr().astype(np.float32), 1, "1 as white"),
    "one NaN": (with_one(RAMP, np.nan).astype(np.float32), 1, "1 that are no finite numbers"),
    "one infinite": (with_one(RAMP * 255, np.inf).astype(np.float32), 255, "1 that are no finite numbers"),
    "int32 0..255": (np.rint(RAMP * 255).astype(np.int32), 255, "255 as white"),
    "int32 0..65535": (np.rint(RAMP * 65535).astype(np.int32), 65535, "65535 as white"),
    "int32, larger": (np.rint(RAMP * 2**31 * 0.9).astype(np.int32), 2**31 * 0.9, "as white"),
}


@pytest.mark.parametrize(("values", "white", "said"), NUMBERS.values(), ids=NUMBERS)
def test_the_range_of_numbers_is_decided_from_their_content_and_said(tmp_path, values, white, said):
    picture = load_picture(written(tmp_path, Image.fromarray(values), "n.tif"))
    with np.errstate(invalid="ignore"):
        expected = np.nan_to_num(values.astype(float) / white, nan=0, posinf=1).clip(0, 1) * 255
    assert np.abs(np.asarray(picture.rgb, float) - expected[..., None]).max() <= 1
    assert said in " ".join(picture.notes)


def test_a_dark_picture_of_sixteen_bits_stays_dark(tmp_path):
    picture = load_picture(written(tmp_path, Image.fromarray(np.full((32, 32), 1, np.uint16))))
    assert np.asarray(picture.rgb).max() == 0
    assert picture.notes == ()


def test_sixteen_bit_grey_keeps_its_transparency(tmp_path):
    values = np.full((32, 32), 40_000, dtype=np.uint16)
    values[:, :16] = 7
    picture = load_picture(written(tmp_path, Image.fromarray(values), transparency=7))
    alpha = np.asarray(picture.alpha)
    assert (alpha[:, :16] == 0).all()
    assert (alpha[:, 16:] == 255).all()


def fixed_point(*values):
    return b"".join(round(value * 65536).to_bytes(4, "big") for value in values)


def xyz(*values):
    return b"XYZ " + bytes(4) + fixed_point(*values)


def curve(gamma):
    return b"curv" + bytes(4) + (1).to_bytes(4, "big") + round(gamma * 256).to_bytes(2, "big") + bytes(2)


def icc(primaries, *curves):
    """A small ICC profile, of grey or RGB values with a gamma (ICC.1:2022, 7.2 to 10)."""
    space = b"GRAY" if len(curves) == 1 else b"RGB "
    tags = {b"wtpt": xyz(0.9642, 1, 0.8249)}
    if len(curves) == 1:
        tags[b"kTRC"] = curve(curves[0])
    else:
        tags |= {name: curve(gamma) for name, gamma in zip((b"rTRC", b"gTRC", b"bTRC"), curves, strict=True)}
        tags |= {name: xyz(*column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)}
    table, data, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        table += name + (start + len(data)).to_bytes(4, "big") + len(value).to_bytes(4, "big")
        data += value
    size = start + len(data)
    head = size.to_bytes(4, "big") + bytes(4) + b"\x02\x10\0\0" + b"mntr" + space + b"XYZ " + bytes(12) + b"acsp"
    head += bytes(28) + fixed_point(0.9642, 1, 0.8249)
    return head.ljust(128, b"\0") + len(tags).to_bytes(4, "big") + table + data


SWAPPED = icc([(0.3851, 0.7169, 0.0971), (0.4361, 0.2225, 0.0139), (0.1431, 0.0606, 0.7141)], 2.2, 2.2, 2.2)
"""sRGB's primaries (D50), red and green exchanged, so that what is converted can be told at sight."""


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_a_grey_profile_is_carried_out(tmp_path, mode):
    """Grey of gamma 1: half of the light is sRGB's 188 (IEC 61966-2-1)."""
    grey = Image.new("L", (32, 32), 128).convert(mode)
    picture = load_picture(written(tmp_path, grey, "g.png", icc_profile=icc(None, 1.0)))
    assert picture.icc_profile is None
    assert np.abs(np.asarray(picture.rgb, int) - 188).max() <= 2


def test_two_colour_spaces_are_brought_together(tmp_path):
    red, green = Image.new("RGB", (32, 32), (200, 40, 40)), Image.new("RGB", (32, 32), (40, 200, 40))
    swapped = load_picture(written(tmp_path, green, "swapped.png", icc_profile=SWAPPED))
    plain = load_picture(written(tmp_path, red, "plain.png"))
    assert np.abs(np.asarray(swapped.matched(plain), int) - np.asarray(red)).max() <= 12
    assert np.abs(np.asarray(plain.matched(swapped), int) - np.asarray(green)).max() <= 12
    assert swapped.matched(swapped) is swapped.rgb
    assert swapped.with_alpha(green).info["icc_profile"] == SWAPPED


@pytest.mark.parametrize(
    ("suffix", "what"), [("gif", "frames"), ("webp", "frames"), ("png", "frames"), ("tif", "pages")]
)
def test_that_only_the_first_frame_is_taken_is_said(tmp_path, suffix, what):
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "green", "blue")]
    path = written(tmp_path, frames[0], f"a.{suffix}", save_all=True, append_images=frames[1:])
    assert load_picture(path).notes == (f"only the first of 3 {what} is taken.",)
    assert load_picture(written(tmp_path, frames[0], f"b.{suffix}")).notes == ()
