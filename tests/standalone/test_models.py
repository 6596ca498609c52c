"""Models: what can be loaded, what is refused and why, and that the parts are used as their makers do."""

import json
import os
import shutil
import socket
import urllib.request

import diffusers
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from lib_latent_upscale.errors import InputError
from lib_latent_upscale.memory import default_device
from lib_latent_upscale.noise_tables import sd1_sigmas
from lib_latent_upscale.standalone.engine import models
from lib_latent_upscale.standalone.engine.engine import Engine
from lib_latent_upscale.standalone.engine.generation import GenerationSettings
from lib_latent_upscale.standalone.engine.models import checked_device, checked_source, load_model, model_name
from lib_latent_upscale.standalone.engine.prompts import encode_prompt
from tests.standalone import tiny_model

PROMPTS = ["", "a cat", "ein Käse"]
"""Short enough for one chunk of the tiny tokenizer, which has a token for every byte."""


def test_a_folder_gives_sd1s_noise_table(engine):
    model = engine.model
    assert (model.vae_scale_factor, len(model.encoders), model.predicts_v) == (8, 1, False)
    assert torch.allclose(model.sigmas, sd1_sigmas(), rtol=1e-3)
    assert model.device.type == "cpu"


@pytest.mark.parametrize("prompt", PROMPTS)
def test_prompts_are_encoded_as_diffusers_encodes_them(sd1_folder, engine, prompt):
    pipeline = diffusers.StableDiffusionImg2ImgPipeline.from_pretrained(sd1_folder, safety_checker=None)
    expected, _ = pipeline.encode_prompt(prompt, "cpu", 1, do_classifier_free_guidance=False)
    assert torch.allclose(encode_prompt(engine.model.encoders, prompt).embeddings, expected, atol=1e-5)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_sdxl_prompts_are_encoded_as_diffusers_encodes_them(sdxl_folder, prompt):
    pipeline = diffusers.StableDiffusionXLImg2ImgPipeline.from_pretrained(sdxl_folder)
    expected, _, pooled, _ = pipeline.encode_prompt(prompt, device="cpu", do_classifier_free_guidance=False)
    model = load_model(str(sdxl_folder), device="cpu")
    cond = encode_prompt(model.encoders, prompt)
    assert len(model.encoders) == 2
    assert torch.allclose(cond.embeddings, expected, atol=1e-5)
    assert torch.allclose(cond.pooled, pooled, atol=1e-5)


def test_nothing_of_a_long_prompt_is_cut_off(engine, caplog):
    """A word of 14 bytes fills a chunk of 16 tokens; three chunks are encoded one by one and joined."""
    words = ["abcdefghijklmn", "opqrstuvwxyzab", "cde"]
    with caplog.at_level("INFO"):
        joined = encode_prompt(engine.model.encoders, " ".join(words)).embeddings
    assert joined.shape[1] == 3 * tiny_model.CHUNK
    alone = [encode_prompt(engine.model.encoders, word).embeddings for word in words]
    assert torch.allclose(joined, torch.cat(alone, dim=1), atol=1e-5)
    assert "3 chunks" in caplog.text


def test_weights_in_a_prompt_are_warned_of(engine, caplog):
    encode_prompt(engine.model.encoders, "a (red:1.3) cat")
    assert "plain text" in caplog.text


def small(**changes) -> GenerationSettings:
    return GenerationSettings(**{"width": 96, "height": 64, "steps": 2, "prompt": "a cat", **changes})


@pytest.mark.parametrize("options", [{"prediction": "v_prediction"}, {"channels": 16}], ids=["v", "16 channels"])
def test_other_families_run(tmp_path, photo, options):
    model = load_model(str(tiny_model.save_sd1(tmp_path / "model", **options)), device="cpu")
    assert model.predicts_v == ("prediction" in options)
    assert model.unet.config.in_channels == options.get("channels", 4)
    assert Engine(model).upscale([photo], small()).pictures[0].size == (96, 64)


def test_sdxl_runs_with_prompts_of_different_lengths(sdxl_folder, photo):
    engine = Engine(load_model(str(sdxl_folder), device="cpu"))
    long = small(prompt="a cat on a mat, and a dog", negative_prompt="bad")
    assert engine.upscale([photo], long).pictures[0].size == (96, 64)
    assert engine.upscale([photo, photo], small(cfg_scale=1)).pictures[1].size == (96, 64)


def test_sdxls_empty_negative_prompt_is_zeros(sdxl_folder, photo):
    engine = Engine(load_model(str(sdxl_folder), device="cpu"))
    assert engine.model.zeroes_empty_negative
    assert not engine.prepare([photo], small()).negative.embeddings.any()
    assert engine.prepare([photo], small(negative_prompt="bad")).negative.embeddings.any()


def test_half_precision_keeps_the_autoencoder_whole(sd1_folder, photo):
    model = load_model(str(sd1_folder), device="cpu", dtype="bfloat16")
    assert model.unet.dtype == torch.bfloat16
    assert model.vae.dtype == torch.float32
    assert Engine(model).upscale([photo], small()).pictures[0].size == (96, 64)


def test_zero_terminal_snr_has_a_finite_table(tmp_path, photo):
    folder = tiny_model.save_sd1(tmp_path / "model", prediction="v_prediction")
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "rescale_betas_zero_snr": True}))
    sigmas = load_model(str(folder), device="cpu").sigmas
    assert torch.isfinite(sigmas).all()
    assert sigmas[-1] > 1000


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("no/such/model.safetensors", "does not exist"),
        ("/nowhere", "does not exist"),
        ("nothing", "does not exist"),
    ],
)
def test_missing_models_are_refused(source, message):
    with pytest.raises(InputError, match=message):
        checked_source(source)


def test_a_missing_demo_model_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(models, "DEMO_FILE", tmp_path / "demo.safetensors")
    with pytest.raises(InputError, match="demo model is missing"):
        checked_source("demo")


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".pth", ".bin", ".CKPT"])
def test_pickles_are_not_even_opened(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"cos\nsystem\n(S'echo harm'\ntR.")
    with pytest.raises(InputError, match="pickle"):
        load_model(str(path), device="cpu")


INPUT, OUTPUT = "model.diffusion_model.input_blocks.0.0.weight", "model.diffusion_model.out.2.weight"
VAE = "first_stage_model.decoder.conv_in.weight"


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"lora_unet_down.weight": torch.zeros(1)}, "LoRA"),
        ({INPUT: torch.zeros(8, 4, 3, 3), OUTPUT: torch.zeros(4, 8, 3, 3)}, "a UNet and a VAE"),
        ({INPUT: torch.zeros(8, 9, 3, 3), OUTPUT: torch.zeros(4, 8, 3, 3), VAE: torch.zeros(1)}, "inpainting"),
        ({INPUT: torch.zeros(8, 4, 3, 3), OUTPUT: torch.zeros(4, 8, 3, 3), VAE: torch.zeros(1)}, "cannot be loaded"),
    ],
)
def test_files_that_are_no_whole_model_are_refused(tmp_path, sd1_folder, tensors, message):
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "diffusers").symlink_to(sd1_folder)  # configurations beside the file: nothing is fetched
    with pytest.raises(InputError, match=message):
        load_model(str(tmp_path / "model.safetensors"), device="cpu")


def test_damaged_files_and_folders_are_refused(tmp_path, sd1_folder):
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{")
    (tmp_path / "model_index.json").write_text("[]")
    empty = tmp_path / "empty"
    empty.mkdir()
    for source, message in [("cut.safetensors", "damaged"), ("", "cannot be read"), ("empty", "model_index.json")]:
        with pytest.raises(InputError, match=message):
            load_model(str(tmp_path / source), device="cpu")


def test_a_folder_with_a_part_missing_is_refused(tmp_path, sd1_folder):
    (tmp_path / "model_index.json").write_text((sd1_folder / "model_index.json").read_text())
    with pytest.raises(InputError, match="incomplete: unet, vae, tokenizer, scheduler is missing"):
        load_model(str(tmp_path), device="cpu")


@pytest.mark.parametrize("pipeline", ["FluxPipeline", "StableDiffusion3Pipeline"])
def test_folders_of_other_families_are_refused_by_name(tmp_path, pipeline):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
    with pytest.raises(InputError, match=rf"another family \({pipeline}\); SD 1.x, 2.x and SDXL can be used"):
        load_model(str(tmp_path), device="cpu")


@pytest.mark.parametrize("index", ["gone", "folder"])
def test_a_folder_without_tokenizer_is_refused(tmp_path, sd1_folder, index):
    folder = shutil.copytree(sd1_folder, tmp_path / "model")
    shutil.rmtree(folder / "tokenizer")
    if index == "gone":
        parts = json.loads((folder / "model_index.json").read_text())
        (folder / "model_index.json").write_text(json.dumps({k: v for k, v in parts.items() if k != "tokenizer"}))
    with pytest.raises(InputError, match="incomplete: tokenizer is missing"):
        load_model(str(folder), device="cpu")


@pytest.fixture
def checkpoint(tmp_path):
    """The demo model's tensors, to be changed, and a function that saves and loads them."""
    if not models.DEMO_FILE.exists():
        pytest.skip("the demo model is not in this checkout")
    tensors = load_file(models.DEMO_FILE)
    (tmp_path / "diffusers").symlink_to(models.DEMO_FILE.parent / "diffusers")

    def load(name="own.safetensors"):
        save_file(tensors, tmp_path / name)
        return load_model(str(tmp_path / name), device="cpu")

    return tensors, load


def test_a_name_in_capitals_is_the_same_kind_of_file(checkpoint):
    assert checkpoint[1]("Own.SAFETENSORS").name == "Own"


def test_weights_that_are_no_numbers_are_refused_by_name(checkpoint):
    tensors, load = checkpoint
    tensors[OUTPUT] = tensors[OUTPUT].clone()
    tensors[OUTPUT][0, 0, 0, 0] = float("nan")
    with pytest.raises(InputError, match=r"conv_out.weight holds values that are not numbers: download the file again"):
        load()


@pytest.mark.parametrize(
    ("start", "said"),
    [
        ("model.diffusion_model.out.2.bias", r"weights are missing: download the file again"),
        ("first_stage_model.decoder.conv_out.bias", r"weights are missing: download the file again"),
        ("cond_stage_model.", r"a part of it is missing, such as the text encoder"),
    ],
)
def test_missing_tensors_are_told_in_our_words(checkpoint, start, said):
    tensors, load = checkpoint
    for name in [name for name in tensors if name.startswith(start)]:
        del tensors[name]
    with pytest.raises(InputError, match=rf"own.safetensors: the checkpoint cannot be loaded \({said}"):
        load()


def test_weights_of_another_shape_are_told_in_our_words(checkpoint):
    tensors, load = checkpoint
    name = "model.diffusion_model.input_blocks.0.0.weight"
    tensors[name] = tensors[name][:7].clone()
    with pytest.raises(InputError, match=r"its weights have other shapes than those of SD 1.x"):
        load()


@pytest.mark.parametrize("kind", ["int8", "scaled"])
def test_quantised_weights_are_refused_and_floats_of_any_size_are_not(checkpoint, kind):
    """Eight-bit floats without scales are only less exact; whole numbers, and floats with scales, would be noise."""
    tensors, load = checkpoint
    large = [name for name, tensor in tensors.items() if name.endswith(".weight") and tensor.dim() > 1]
    tensors |= {name: tensors[name].to(torch.float8_e4m3fn) for name in large}
    assert load().name == "own"
    if kind == "int8":
        tensors[large[0]] = tensors[large[0]].to(torch.int8)
    else:
        tensors[large[0].replace(".weight", ".scale_weight")] = torch.ones(())
    with pytest.raises(InputError, match=r"own.safetensors: its weights are quantised, .* give the file in float16"):
        load()


@pytest.mark.parametrize("port", ["closed", "offline"])
def test_without_a_network_a_hub_id_is_one_sentence_at_once(monkeypatch, port):
    """The library is asked for what it has stored only; else it would try for half a minute."""
    asked = []

    def stored(name, **options):
        asked.append(options)
        raise OSError("long explanation")

    if port == "closed":
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
    else:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(urllib.request, "getproxies", dict)
    monkeypatch.setattr(diffusers.DiffusionPipeline, "load_config", stored)
    with pytest.raises(InputError, match=r"cannot be downloaded from the hub \(the hub cannot be reached\)"):
        load_model("someone/some-model", device="cpu")
    assert asked == [{"local_files_only": True}]


def test_an_inpainting_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="takes 9 channels and returns 4"):
        load_model(str(tiny_model.save_sd1(tmp_path / "model", inputs=9)), device="cpu")


def test_a_hub_id_that_cannot_be_had_is_refused(monkeypatch):
    def unreachable(*_, **__):
        raise OSError("cannot reach the hub\nlong explanation")

    monkeypatch.setattr(models, "hub_answers", lambda: True)
    monkeypatch.setattr(diffusers.DiffusionPipeline, "load_config", unreachable)
    with pytest.raises(InputError, match=r"not a file or folder here.*\(cannot reach the hub\)"):
        load_model("someone/some-model", device="cpu")


@pytest.mark.parametrize("device", ["nonsense", "meta", "meta:x", "xpu"])
def test_unusable_devices_are_refused(sd1_folder, device):
    with pytest.raises(InputError, match=f"'{device}' cannot be used"):
        load_model(str(sd1_folder), device=device)


def test_unknown_number_formats_are_refused_with_the_known_ones(sd1_folder):
    with pytest.raises(InputError, match=r"'float8'.*float32, float16, bfloat16"):
        load_model(str(sd1_folder), device="cpu", dtype="float8")


def test_the_best_device_is_torchs_accelerator(monkeypatch):
    class Accelerator:
        @staticmethod
        def is_available():
            return True

        @staticmethod
        def current_accelerator():
            return torch.device("xpu")

    monkeypatch.setattr(torch, "accelerator", Accelerator)
    assert default_device() == torch.device("xpu")
    monkeypatch.delattr(torch, "accelerator")
    assert default_device() == checked_device(None) == torch.device("cpu")


def test_names_as_the_webui_writes_them():
    assert model_name("demo") == "demo"
    assert model_name("models/v1-5-pruned.safetensors") == "v1-5-pruned"
    assert model_name("some/folder-v1.5") == "folder-v1.5"
    assert model_name("folder-v1.5/") == "folder-v1.5"


def test_the_demo_model_is_one_file_with_its_configurations(demo_engine):
    model = demo_engine.model
    assert (model.name, model.vae_scale_factor, model.predicts_v) == ("demo", 8, False)
    assert torch.allclose(model.sigmas, sd1_sigmas(), rtol=1e-3)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_missing_tensor_of_a_folder_is_refused(tmp_path, sd1_folder, part):
    """diffusers and transformers would draw it at random, and every picture would be rubbish."""
    folder = shutil.copytree(sd1_folder, tmp_path / "model")
    (weights,) = (folder / part).glob("*.safetensors")
    tensors = load_file(weights)
    lost = next(name for name in tensors if name.endswith(".weight"))
    count = tensors.pop(lost).numel()
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(InputError, match=rf"{part}: the model is incomplete: {count} of \d+ numbers are missing"):
        load_model(str(folder), device="cpu")


@pytest.fixture
def stored(tmp_path, sd1_folder, monkeypatch):
    """Makes the hub's cache of a model, as the hub's library does: each file is a link to one that its hash names."""

    def make(part):
        model = tmp_path / "hub" / "models--someone--some-model"
        snapshot = model / "snapshots" / ("0123456789" * 4)
        (model / "refs").mkdir(parents=True)
        (model / "refs" / "main").write_text(snapshot.name)
        shutil.copytree(sd1_folder, snapshot)
        (weights,) = (snapshot / part).glob("*.safetensors")
        tensors = load_file(weights)
        del tensors[next(name for name in tensors if name.endswith(".weight"))]
        save_file(tensors, weights, metadata={"format": "pt"})
        (model / "blobs").mkdir()
        for index, file in enumerate(path for path in sorted(snapshot.rglob("*")) if path.is_file()):
            blob = model / "blobs" / f"{index:064x}"
            file.rename(blob)
            file.symlink_to(os.path.relpath(blob, file.parent))
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        return snapshot

    return make


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_a_missing_tensor_in_the_hubs_cache_is_refused(stored, part):
    folder = str(stored(part))
    for source in ("someone/some-model", folder):
        with pytest.raises(InputError, match=rf"{part}: the model is incomplete: \d+ of \d+ numbers are missing"):
            load_model(source, device="cpu")


def test_the_sdxl_refiner_is_named_without_asking_the_hub(tmp_path, sd1_folder, monkeypatch):
    def asked(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", asked)
    unet = "model.diffusion_model."
    tensors = {
        f"{unet}input_blocks.0.0.weight": torch.zeros(384, 4, 3, 3),
        f"{unet}out.2.weight": torch.zeros(4, 384, 3, 3),
        f"{unet}input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": torch.zeros(8, 1280),
        "first_stage_model.decoder.conv_in.weight": torch.zeros(8, 4, 3, 3),
        "conditioner.embedders.0.model.ln_final.weight": torch.zeros(1280),
    }
    save_file(tensors, tmp_path / "refiner.safetensors")
    folder = shutil.copytree(sd1_folder, tmp_path / "refiner")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "requires_aesthetics_score": True}))
    for name in ("refiner.safetensors", "refiner"):
        with pytest.raises(InputError, match="the SDXL refiner, which only finishes"):
            load_model(str(tmp_path / name), device="cpu")
