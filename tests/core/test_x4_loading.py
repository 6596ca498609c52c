"""Loading the x4 upscaler: the layouts that users have, offline, and words for what is something else."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from lib_latent_upscale.checkpoints import read_header
from lib_latent_upscale.errors import InputError, OutOfMemory
from lib_latent_upscale.memory import default_device
from lib_latent_upscale.noise_tables import NoiseTable
from lib_latent_upscale.x4_upscaler import X4Settings, check_x4, load_x4, loading, tokenizer, upscale_x4
from lib_latent_upscale.x4_upscaler.layouts import SINGLE_FILE_PARTS
from lib_latent_upscale.x4_upscaler.loading import CONFIGURATION, convert_open_clip
from lib_latent_upscale.x4_upscaler.tokenizer import ClipTokenizer, find_merges
from tests.core.x4_single_file import single_file_tensors
from tests.core.x4_small import build, write_configuration, write_folder

ORIGINAL = {
    "unet": (473_398_020, "429a56018d4cc03dbb3a7c93c23d3d4df388ebcb212df09e290c33e6b1c83483"),
    "vae": (55_325_927, "7009c7e88367a1c86be79143649c990b6fe7c6217579548d17f960965ae23fcf"),
    "text_encoder": (354_032_641, "50d132734ca4405c700c67829a5bc4e196f22375efb8ab00b667dd619f045340"),
}
"""Size, and digest of "name shape" lines, of the models that the code of github.com/Stability-AI/stablediffusion builds
from x4-upscaling.yaml (ldm's UNetModel, Encoder, Decoder) and open_clip 2.20.0 builds for ViT-H-14, text tower."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("x4"))


@pytest.fixture(scope="module")
def configuration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_configuration(tmp_path_factory.mktemp("configuration"))


@pytest.fixture(scope="module")
def parts(configuration: Path) -> dict[str, Any]:
    return build(configuration, seed=3)


@pytest.fixture
def single_file(parts: dict[str, Any], tmp_path: Path) -> Path:
    path = tmp_path / "x4-upscaler-ema.safetensors"
    save_file({name: tensor.contiguous().clone() for name, tensor in single_file_tensors(parts).items()}, path)
    return path


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


# --- The real layout ---


@pytest.mark.parametrize("part", ORIGINAL)
def test_the_configurations_are_those_of_the_published_checkpoint(part: str) -> None:
    """True size, without memory: the same names and shapes as the original code has."""
    with torch.device("meta"):
        tensors = single_file_tensors(build(CONFIGURATION))
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    prefix = SINGLE_FILE_PARTS[part].split(".")[0] + "."
    lines = sorted(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items() if name.startswith(prefix))
    size = sum(prod(shape) for name, shape in shapes.items() if name.startswith(prefix))
    assert (size, hashlib.sha256("\n".join(lines).encode()).hexdigest()) == ORIGINAL[part]


def test_noise_is_that_of_the_published_model() -> None:
    """Standard deviations and noise levels from the authors' schedule, 1e-4 to 0.02 over 1000 steps."""
    config = json.loads((CONFIGURATION / "low_res_scheduler" / "scheduler_config.json").read_text())
    table = NoiseTable.from_config(config)
    found = [(1 - table.alphas[level]).sqrt().item() for level in (0, 20, 50, 100, 200)]
    assert found == pytest.approx([0.010, 0.052, 0.096, 0.170, 0.336], abs=5e-4)
    assert float(table.sigmas[0]) == pytest.approx(0.01, abs=1e-4)
    assert float(table.sigmas[-1]) == pytest.approx(36.9, abs=0.05)


@pytest.mark.parametrize("name", ["linear", "scaled_linear"])
def test_noise_tables_are_those_of_diffusers(name: str) -> None:
    from diffusers import DDPMScheduler

    config = {"beta_schedule": name, "beta_start": 0.0002, "beta_end": 0.01, "num_train_timesteps": 500}
    assert torch.equal(NoiseTable.from_config(config).alphas, DDPMScheduler(**config).alphas_cumprod)
    betas = DDPMScheduler(**config).betas.tolist()
    torch.testing.assert_close(
        NoiseTable.from_config({"trained_betas": betas}).alphas, DDPMScheduler(**config).alphas_cumprod
    )


def test_an_unknown_noise_table_is_refused() -> None:
    with pytest.raises(ValueError, match=r"squared.*scaled_linear"):
        NoiseTable.from_config({"beta_schedule": "squared"})


# --- Single file ---


def test_a_single_file_is_loaded_offline_with_the_same_numbers(
    single_file: Path, configuration: Path, parts: dict[str, Any], offline: None
) -> None:
    model = load_x4(single_file, device="cpu", configuration=configuration)
    assert model.name == "x4-upscaler-ema"
    for name, part in parts.items():
        loaded = getattr(model, name).state_dict()
        assert set(part.state_dict()) == set(loaded)
        assert all(torch.equal(tensor, loaded[key]) for key, tensor in part.state_dict().items())
        assert not getattr(model, name).training


def test_a_single_file_upscales(single_file: Path, configuration: Path) -> None:
    model = load_x4(str(single_file), device="cpu", configuration=configuration)
    image = upscale_x4(Image.new("RGB", (20, 10), "teal"), model, X4Settings("a cat", steps=2, seed=0)).image
    assert image.size == (80, 40)


def test_half_precision_leaves_the_vae_alone(single_file: Path, configuration: Path, folder: Path) -> None:
    for path in (single_file, folder):
        model = load_x4(path, device="cpu", dtype=torch.float16, configuration=configuration)
        types = [next(part.parameters()).dtype for part in (model.unet, model.text_encoder, model.vae)]
        assert types == [torch.float16, torch.float16, torch.float32]


def test_open_clip_is_converted_to_the_same_numbers() -> None:
    """OpenAI's own code for the tower, without its last layer, against transformers'."""
    from clip.model import CLIP
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    clip = CLIP(32, 32, 1, 64, 16, 77, 100, 32, 4, 3).eval()
    tensors = {
        f"cond_stage_model.model.{name}": tensor
        for name, tensor in clip.state_dict().items()
        if not name.startswith("visual.")
    }
    config = CLIPTextConfig(
        vocab_size=100, hidden_size=32, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        hidden_act="quick_gelu", bos_token_id=98, eos_token_id=99, pad_token_id=0,
    )  # fmt: skip
    model = CLIPTextModel(config).eval()
    prefix = "text_model." if any(name.startswith("text_model.") for name in model.state_dict()) else ""
    converted = {prefix + name: tensor for name, tensor in convert_open_clip(tensors, 2).items()}
    assert model.load_state_dict(converted, strict=False).unexpected_keys == []
    numbers = torch.randint(0, 100, (2, 77))
    with torch.no_grad():
        hidden = (clip.token_embedding(numbers) + clip.positional_embedding).permute(1, 0, 2)
        expected = clip.ln_final(clip.transformer.resblocks[:2](hidden).permute(1, 0, 2))
        torch.testing.assert_close(model(numbers)[0], expected, rtol=1e-4, atol=1e-5)


def _without(name: str) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    return lambda tensors: {key: tensor for key, tensor in tensors.items() if name not in key}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_without("middle_block"), "unet in .* numbers"),
        (_without("decoder.conv_in"), "vae in .* numbers"),
        (_without("ln_final"), "text encoder .* lacks 2"),
        (_without("cond_stage_model"), "lacks its text_encoder"),
        (lambda tensors: tensors | {"cond_stage_model.model.ln_final.weight": torch.zeros(5)}, "does not fit"),
    ],
)
def test_an_incomplete_file_is_refused(
    parts: dict[str, Any], configuration: Path, tmp_path: Path, change: Callable[..., Any], said: str
) -> None:
    path = tmp_path / "x4.safetensors"
    tensors = {name: tensor.contiguous().clone() for name, tensor in single_file_tensors(parts).items()}
    save_file(change(tensors), path)
    with pytest.raises(InputError, match=said):
        load_x4(path, device="cpu", configuration=configuration)


# --- Something else ---

INPUT = "model.diffusion_model.input_blocks.0.0.weight"


def _refused(path: str | Path, said: str) -> None:
    """The check before any work and the loading say the same."""
    with pytest.raises(InputError, match=said):
        check_x4(path)
    with pytest.raises(InputError, match=said):
        load_x4(path, device="cpu")


def test_a_whole_model_passes_the_check_unloaded(
    single_file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "diffusers", None)
    check_x4(single_file)
    check_x4(folder)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({INPUT: (320, 4, 3, 3)}, "a normal Stable Diffusion checkpoint"),
        ({INPUT: (320, 9, 3, 3)}, "an inpainting checkpoint"),
        ({INPUT: (320, 5, 3, 3)}, "a depth or pix2pix checkpoint"),
        ({INPUT: (320, 4, 3, 3), "model.diffusion_model.label_emb.0.0.weight": (4, 4)}, "an SDXL checkpoint"),
        ({INPUT: (256, 7, 3, 3)}, "some other model"),
        ({"lora_unet_down.weight": (4, 4)}, "a LoRA"),
        ({"control_model.time_embed.0.weight": (4, 4)}, "a ControlNet"),
        ({"model.0.sub.body.0.weight": (4, 4)}, "an upscaler of another kind"),
        ({"first_stage_model.decoder.conv_in.weight": (4, 4)}, "a VAE"),
    ],
)
def test_another_model_is_called_by_its_name(tensors: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({name: torch.zeros(shape) for name, shape in tensors.items()}, path)
    _refused(path, rf"model\.safetensors is {said}; the x4 upscaler is needed")


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".bin"])
def test_pickles_are_refused_unread(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x4-upscaler-ema{suffix}"
    path.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    _refused(path, r"pickle.*\.safetensors")


@pytest.mark.parametrize(
    "data",
    [b"", b"\x08", b"PK\x03\x04" + bytes(99), b"\xff" * 64, b"\x02" + bytes(7) + b"{[", b"\x02" + bytes(7) + b"[]",
     b"\x0e" + bytes(7) + b'{"a": {"b":1}}'],
)  # fmt: skip
def test_damaged_files_are_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x4.safetensors"
    path.write_bytes(data)
    _refused(path, "damaged: download it again")


def test_a_download_that_broke_off_is_refused(single_file: Path) -> None:
    size = single_file.stat().st_size
    single_file.write_bytes(single_file.read_bytes()[:-1000])
    with pytest.raises(InputError, match=rf"has {size - 1000} bytes but should have {size}"):
        read_header(single_file)


@pytest.mark.parametrize("path", ["nowhere/at/all", "C:\\models\\x4", "missing.safetensors", "owner/missing.ckpt"])
def test_a_place_without_a_model_is_refused(path: str, offline: None) -> None:
    _refused(path, "there is no x4 upscaler at")


# --- Folder ---


@pytest.fixture
def changed(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "changed"))


def test_a_folder_is_loaded_offline(folder: Path, offline: None) -> None:
    model = load_x4(folder, device="cpu")
    assert model.name == folder.name
    assert model.noise.prediction == "v_prediction"


def test_a_folder_of_fp16_files_is_loaded(changed: Path) -> None:
    for path in changed.glob("*/*.safetensors"):
        path.rename(path.with_suffix(".fp16.safetensors"))
    assert load_x4(changed, device="cpu").unet.dtype == torch.float32


def test_a_text_encoder_of_any_transformers_is_loaded(changed: Path) -> None:
    """transformers 5 writes names without "text_model.", older ones, and the published model, with it."""
    path = changed / "text_encoder" / "model.safetensors"
    plain = {name.removeprefix("text_model."): tensor for name, tensor in load_file(path).items()}
    made = []
    for prefix in ("", "text_model."):
        positions = {f"{prefix}embeddings.position_ids": torch.arange(77)[None]}  # in the published model's file
        save_file({**{prefix + name: tensor for name, tensor in plain.items()}, **positions}, path)
        encoder = load_x4(changed, device="cpu").text_encoder
        made.append(encoder(torch.arange(77)[None])[0])
    assert torch.equal(*made)


def _edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def _drop_tensor(path: Path) -> None:
    tensors = load_file(path)
    tensors.pop(next(name for name in tensors if name.endswith(("conv_in.weight", "final_layer_norm.bias"))))
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            lambda at: _edit(at / "unet/config.json", in_channels=4),
            "StableDiffusionUpscalePipeline, .* 4 input channels",
        ),
        (lambda at: _edit(at / "unet/config.json", num_class_embeds=None), "not an x4 upscaler"),
        (lambda at: _edit(at / "vae/config.json", block_out_channels=[8, 8, 8, 8]), "enlarges 8 times instead of 4"),
        (lambda at: (at / "unet/config.json").unlink(), "unet/config.json cannot be read"),
        (lambda at: (at / "unet/config.json").write_text("[1]"), "not a JSON object"),
        (lambda at: (at / "tokenizer/merges.txt").unlink(), "lacks tokenizer/merges.txt"),
        (lambda at: (at / "vae/diffusion_pytorch_model.safetensors").unlink(), "there are none"),
        (
            lambda at: (at / "text_encoder/model.safetensors").rename(at / "text_encoder/pytorch_model.bin"),
            "only pickles",
        ),
        (lambda at: _truncate(at / "unet/diffusion_pytorch_model.safetensors"), "download it again"),
    ],
)
def test_a_folder_that_is_something_else_is_refused(changed: Path, damage: Callable[[Path], Any], said: str) -> None:
    damage(changed)
    _refused(changed, said)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("unet/diffusion_pytorch_model", "unet lacks 1 of its tensors"),
        ("text_encoder/model", "text encoder in changed lacks 1 tensors, such as .*final_layer_norm.bias"),
    ],
)
def test_a_folder_that_lacks_a_tensor_is_refused(changed: Path, file: str, said: str) -> None:
    _drop_tensor(changed / f"{file}.safetensors")
    with pytest.raises(InputError, match=said):
        load_x4(changed, device="cpu")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:83] err == 0. DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("unable to mmap 9 bytes from file <x4.safetensors>: Cannot allocate memory (12)"),
        RuntimeError("std::bad_alloc"),
        torch.OutOfMemoryError("Tried to allocate 1.00 GiB"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("layout", ["folder", "single_file"])
def test_a_model_that_the_memory_does_not_hold_is_a_sentence(
    layout: str, error: Exception, configuration: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(layout)

    def full(*_: Any) -> None:
        raise error

    monkeypatch.setattr(loading, "_tensors", full)
    with pytest.raises(OutOfMemory, match=rf"memory is not enough for the x4 upscaler {path.name}: close other"):
        load_x4(path, device="cpu", configuration=configuration)


def test_other_faults_of_loading_are_not_taken_for_a_lack_of_memory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("a kernel failed")

    monkeypatch.setattr(loading, "_tensors", broken)
    with pytest.raises(RuntimeError, match="a kernel failed"):
        load_x4(folder, device="cpu")


# --- Hub ---


def test_a_hub_id_is_checked_before_its_weights_are_fetched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[list[str]] = []

    def snapshot(name: str, *, allow_patterns: list[str], local_files_only: bool) -> str:
        assert (name, local_files_only) == ("someone/x4", False)
        asked.append(allow_patterns)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert load_x4("someone/x4", device="cpu").name == "someone/x4"
    assert not any("safetensors" in pattern for pattern in asked[0])
    assert not any("*.safetensors" in pattern or ".bin" in pattern for pattern in asked[1])


def test_a_hub_id_that_cannot_be_had_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"someone/not-cached-x4 is not a folder here and cannot be downloaded"):
        load_x4("someone/not-cached-x4", device="cpu", download=False)


def test_missing_packages_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "diffusers", None)
    with pytest.raises(InputError, match="needs the packages diffusers and transformers"):
        load_x4(folder, device="cpu")


def test_the_default_device_works() -> None:
    assert torch.zeros(1, device=default_device()).sum() == 0


# --- Tokenizer ---

TEXTS = [
    "",
    "a photo of a cat",
    "  Two\tCATS,  naïve café's 2024 — straße!!",
    "日本語 🐱 x²",
    "it's we're 12345",
    "word " * 90,
]


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_are_those_of_openai(text: str) -> None:
    from clip.simple_tokenizer import SimpleTokenizer

    expected = SimpleTokenizer().encode(text)
    numbers, lost = ClipTokenizer.from_file(find_merges(Path("model"))).encode(text)
    kept = expected[:75]
    assert numbers == [49406, *kept, 49407] + [0] * (75 - len(kept))
    assert lost == len(expected) - len(kept)


def test_merges_beside_the_model_come_first(tmp_path: Path) -> None:
    merges = tmp_path / "merges.txt"
    merges.write_text("#version: 0.2\na t</w>\n", "utf-8")
    assert find_merges(tmp_path / "x4.safetensors") == merges
    numbers, _ = ClipTokenizer.from_file(merges).encode("at")
    assert np.array_equal(numbers[:3], [513, 512, 514])


def test_without_merges_the_person_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tokenizer, "_LISTS", (("no_such_package", "merges.txt"),))
    with pytest.raises(InputError, match=r"open_clip_torch.*merges\.txt"):
        find_merges(tmp_path / "x4.safetensors")


def test_a_host_of_forges_kin_brings_the_list_itself(monkeypatch, tmp_path):
    """Forge Neo has neither `open_clip` nor `clip`, but the configuration of SDXL."""
    lists = [file for package, file in tokenizer._LISTS if package == "backend"]
    monkeypatch.setattr(tokenizer, "_LISTS", (("backend", lists[0]),))
    monkeypatch.syspath_prepend(tmp_path)
    merges = tmp_path / "backend" / lists[0]
    merges.parent.mkdir(parents=True)
    merges.touch()
    assert find_merges(tmp_path / "x4.safetensors") == merges
