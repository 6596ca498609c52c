"""The user's own latent upscalers: known by keys and shapes, scaled as their authors do, refused in a sentence."""

import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from lib_latent_upscale.learned.files import check_file, converted_pickle, file_hash, find_files, upscale_with
from lib_latent_upscale.method_files import file_of, method_of_file
from lib_latent_upscale.methods import weights_of
from lib_latent_upscale.options import SettingsError
from lib_latent_upscale.settings import UpscaleSettings
from tests.core.latent_files import city96, nnlatent, saved, sesqui

NAMES = {
    "latent-upscaler-v2.1_SDv1-x1.5": ("sd1", city96),
    "latent-upscaler-v2.1_SDxl-x2.0": ("sdxl", city96),
    "sd15_resizer": ("sd1", nnlatent),
    "sdxl_resizer": ("sdxl", nnlatent),
    "flux_resizer": ("flux1", lambda: nnlatent(16)),
    "upscaler_SDXL": ("sdxl", sesqui),
    "upscaler_Flux": ("flux1", lambda: sesqui(16)),
}
FACTORS = {"latent-upscaler-v2.1_SDxl-x2.0": 2.0}


def file(folder, name):
    return saved(NAMES[name][1](), folder / f"{name}.safetensors")


def latent(family, height=8, width=6, dtype=torch.float32):
    channels = 16 if family == "flux1" else 4
    return torch.randn(1, channels, height, width, generator=torch.Generator().manual_seed(1)).to(dtype)


@pytest.mark.parametrize("name", NAMES)
def test_each_published_name_and_layout_enlarges_its_familys_latents(name, tmp_path):
    family, path = NAMES[name][0], file(tmp_path, name)
    factor = FACTORS.get(name, 1.5)
    size = (int(8 * factor), int(6 * factor))
    result = upscale_with(path, latent(family), size, family)
    assert result.shape == (1, latent(family).shape[1], *size)
    assert result.isfinite().all()
    half = upscale_with(path, latent(family, dtype=torch.float16), size, family)
    assert half.dtype == torch.float16
    expected = upscale_with(path, latent(family, dtype=torch.float16).float(), size, family).half()
    torch.testing.assert_close(half, expected, rtol=0, atol=0)


def test_a_stack_of_convolutions_works_on_the_autoencoders_own_numbers(tmp_path):
    """Computed here in another way: nearest enlargement before the first convolution's ReLU changes nothing."""
    path, small, numbers = file(tmp_path, "latent-upscaler-v2.1_SDxl-x2.0"), latent("sdxl"), city96()
    values = F.conv2d(small / 0.13025, numbers["sequential.0.weight"], numbers["sequential.0.bias"], padding=1)
    values = values.relu().repeat_interleave(2, 2).repeat_interleave(2, 3)
    for place in (4, 6, 8):
        weights = numbers[f"sequential.{place}.weight"], numbers[f"sequential.{place}.bias"]
        values = F.conv2d(values, *weights, padding=1).relu()
    values = F.conv2d(values, numbers["sequential.10.weight"], numbers["sequential.10.bias"], padding=1) * 0.13025
    torch.testing.assert_close(upscale_with(path, small, (16, 12), "sdxl"), values, rtol=1e-4, atol=1e-5)


def test_scalings_are_those_of_the_authors_nodes(tmp_path):
    """NNLatentUpscale multiplies SD 1.x's raw latents, too, by SDXL's 0.13025, and Flux's by 0.3611 without a shift."""
    numbers, small = nnlatent(), latent("sd1")
    as_sdxl = saved(numbers, tmp_path / "sdxl_resizer.safetensors")
    as_sd1 = saved(numbers, tmp_path / "sd15_resizer.safetensors")
    factor = 0.13025 / 0.18215
    expected = upscale_with(as_sdxl, small * factor, (12, 9), "sdxl") / factor
    torch.testing.assert_close(upscale_with(as_sd1, small, (12, 9), "sd1"), expected, rtol=1e-4, atol=1e-5)
    flat = saved(
        {**sesqui(16), "skip_conv.weight": torch.zeros(16, 16, 5, 5), "tail_conv.2.weight": torch.zeros(16, 16, 3, 3)},
        tmp_path / "upscaler_Flux.safetensors",
    )
    raw = sesqui(16)["tail_conv.2.bias"]
    made = upscale_with(flat, latent("flux1"), (12, 9), "flux1")[0, :, 0, 0]
    torch.testing.assert_close(made, (raw - 0.1159) * 0.3611, rtol=1e-4, atol=1e-5)


def test_where_gated_blocks_add_nothing_the_latents_are_enlarged_bicubically(tmp_path):
    numbers = {name: torch.zeros_like(value) for name, value in sesqui().items()}
    numbers["skip_conv.weight"][range(4), range(4), 2, 2] = 1
    path = saved(numbers, tmp_path / "upscaler_SDXL.safetensors")
    for size in [(9, 7), (12, 12), (16, 12)]:
        expected = F.interpolate(latent("sdxl"), size, mode="bicubic", align_corners=False)
        torch.testing.assert_close(upscale_with(path, latent("sdxl"), size, "sdxl"), expected, rtol=1e-4, atol=1e-4)


REFUSED = [
    ("sd15_resizer", nnlatent, "sdxl", r"sd15_resizer.* for the latents of SD 1.x and 2.x, not for those of SDXL"),
    ("upscaler_SDXL", sesqui, "sd1", "SDXL, not for those of SD 1.x"),
    ("sesqui-mine", sesqui, "sd1", "SDXL, not for those of SD 1.x"),
    ("mine", nnlatent, "flux1", "SD 1.x and 2.x or SDXL, not for those of Flux.1"),
    ("upscaler_Wan21", lambda: sesqui(16), "flux1", "Wan 2.1"),
    ("upscaler_Flux2", lambda: sesqui(32), "flux1", "Flux.2"),
    ("sdxl_resizer", nnlatent, None, "not for this model's"),
    ("latent-upscaler", city96, "sd1", "one factor, given at the end"),
    (
        "strange",
        lambda: {"weight": torch.zeros(3)},
        "sd1",
        "not hold a supported latent upscaler; supported are those of",
    ),
    ("sd1-cut", lambda: dict(list(nnlatent().items())[:-1]), "sd1", "supported latent upscaler"),
    ("sd1-more", lambda: {**nnlatent(), "more": torch.zeros(1)}, "sd1", "supported latent upscaler"),
]


@pytest.mark.parametrize(("name", "numbers", "family", "said"), REFUSED, ids=[row[0] + str(row[2]) for row in REFUSED])
def test_what_cannot_be_used_is_refused_in_a_sentence_before_any_work(name, numbers, family, said, tmp_path):
    path = saved(numbers(), tmp_path / f"{name}.safetensors")
    with pytest.raises(ValueError, match=said):
        check_file(path, family)


def test_a_name_that_says_nothing_is_taken_for_each_family_with_as_many_channels(tmp_path):
    path = saved(nnlatent(), tmp_path / "mine.safetensors")
    for family in ("sd1", "sdxl"):
        check_file(path, family)


@pytest.mark.parametrize("content", [b"", b"no file of numbers", b"\x00" * 4000])
def test_a_broken_file_is_refused(content, tmp_path):
    path = tmp_path / "sd1.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        check_file(path, "sd1")
    whole = saved(nnlatent(), tmp_path / "sd15_resizer.safetensors")
    check_file(whole, "sd1")
    whole.write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(ValueError, match="damaged"):
        check_file(whole, "sd1")
    whole.unlink()
    with pytest.raises(ValueError, match="no longer exists"):
        check_file(whole, "sd1")


@pytest.mark.parametrize(
    ("name", "size"),
    [("latent-upscaler-v2.1_SDv1-x1.5", (16, 12)), ("sd15_resizer", (20, 15)), ("sd15_resizer", (7, 6))],
)
def test_sizes_that_a_network_does_not_make_are_refused_with_those_that_it_makes(name, size, tmp_path):
    with pytest.raises(ValueError, match=r"times larger, but \d+x\d+ cells from 8x6 are requested"):
        upscale_with(file(tmp_path, name), latent("sd1"), size, "sd1")


def test_the_same_size_comes_back_as_it_is(tmp_path):
    small = latent("sd1")
    assert upscale_with(file(tmp_path, "sd15_resizer"), small, (8, 6), "sd1") is small


def test_a_file_that_is_replaced_is_read_again(tmp_path):
    path = file(tmp_path, "sd15_resizer")
    first, named = upscale_with(path, latent("sd1"), (12, 9), "sd1"), file_hash(path)
    saved({name: value * 1.5 for name, value in nnlatent().items()} | {"conv_out.bias": torch.ones(4)}, path)
    os.utime(path, ns=(1, 1))
    assert file_hash(path) != named
    assert not torch.equal(upscale_with(path, latent("sd1"), (12, 9), "sd1"), first)


def test_files_are_found_by_name_and_pickles_so_that_they_can_be_refused(tmp_path):
    path, pickle = file(tmp_path / "one", "sd15_resizer"), tmp_path / "one" / "other.pt"
    file(tmp_path / "two", "sd15_resizer")
    torch.save(nnlatent(), pickle)
    torch.save(nnlatent(), tmp_path / "one" / "sd15_resizer.pt")
    (tmp_path / "two" / "notes.txt").write_text("no upscaler")
    found = find_files([tmp_path / "none", tmp_path / "one", tmp_path / "two"])
    assert list(found.items()) == [("other", pickle), ("sd15_resizer", path)]


def test_a_pickle_is_refused_with_the_command_that_converts_it_and_converted_it_is_the_same(tmp_path):
    pickle, target = tmp_path / "sd15_resizer.pt", tmp_path / "sd15_resizer.safetensors"
    torch.save(nnlatent(), pickle)
    with pytest.raises(ValueError, match=r"latent-upscale convert sd15_resizer.pt"):
        check_file(pickle, "sd1")
    target.write_bytes(converted_pickle(pickle))
    expected = upscale_with(file(tmp_path / "other", "sd15_resizer"), latent("sd1"), (12, 9), "sd1")
    torch.testing.assert_close(upscale_with(target, latent("sd1"), (12, 9), "sd1"), expected, rtol=0, atol=0)


class Harmful:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_nothing_in_a_pickle_runs(tmp_path):
    trace, pickle = tmp_path / "trace", tmp_path / "sd15.pt"
    torch.save({**nnlatent(), "more": Harmful(trace)}, pickle)
    with pytest.raises(ValueError, match="cannot be read as weights only"):
        converted_pickle(pickle)
    assert not trace.exists()
    torch.save({"weight": torch.zeros(2)}, pickle)
    with pytest.raises(ValueError, match="supported latent upscaler"):
        converted_pickle(pickle)
    torch.save([1, 2], pickle)
    with pytest.raises(ValueError, match="does not hold named tensors"):
        converted_pickle(pickle)


def test_as_a_method_it_is_called_by_its_name_and_has_its_hash(tmp_path):
    path = file(tmp_path, "sd15_resizer")
    settings = UpscaleSettings(method_of_file(path.stem))
    assert file_of(settings.method) == "sd15_resizer"
    assert not settings.resizes_picture
    expected = upscale_with(path, latent("sd1"), (12, 9), "sd1")
    made = settings.enlarge(latent("sd1"), (12, 9), family="sd1", file=path)
    torch.testing.assert_close(made, expected, rtol=0, atol=0)
    assert weights_of(settings.method, "sd1", path) == file_hash(path)
    assert settings.to_infotext()["Latent upscale method"] == "learned-latent: sd15_resizer"
    assert UpscaleSettings.from_infotext(settings.to_infotext()) == settings
    with pytest.raises(ValueError, match="no such file"):
        weights_of(settings.method, "sd1")
    with pytest.raises(SettingsError, match="learned-latent: FILE"):
        UpscaleSettings("learned-latent: ")
