"""Checkpoints in one file load without a network."""

import json
import shutil
import socket

import diffusers
import pytest
import torch
import transformers

from lib_latent_upscale.standalone.engine import models
from lib_latent_upscale.standalone.engine.tokenizer import END_OF_TEXT, clip_tokenizer

PARAMETERS = {
    ("sd1", "unet"): 859_520_964,
    ("sd1", "vae"): 83_653_863,
    ("sd1", "text_encoder"): 123_060_480,
    ("sd2", "unet"): 865_910_724,
    ("sd2", "text_encoder"): 340_387_840,
    ("sdxl", "unet"): 2_567_463_684,
    ("sdxl", "text_encoder_2"): 694_659_840,
}
"""Of the published models, as their weights have them."""


@pytest.fixture
def no_network(monkeypatch):
    def refused(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)


@pytest.mark.parametrize(("family", "part"), PARAMETERS)
def test_the_shipped_configurations_are_those_of_the_published_models(family, part):
    folder = next(folder for folder in models.SHIPPED.values() if folder.name == family) / part
    config = json.loads((folder / "config.json").read_text())
    name = config.get("_class_name") or config["architectures"][0]
    with torch.device("meta"):
        if name in ("UNet2DConditionModel", "AutoencoderKL"):
            network = getattr(diffusers, name).from_config(config)
        else:
            network = getattr(transformers, name)(transformers.CLIPTextConfig(**config))
    assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS[family, part]


@pytest.mark.parametrize("padding", [END_OF_TEXT, "!"])
def test_the_tokenizer_is_clips(tmp_path, no_network, padding):
    """The numbers of "a photo of a cat" in OpenAI's CLIP."""
    tokenizer = clip_tokenizer(tmp_path / "sd15.safetensors", padding)
    made = tokenizer("a photo of a cat", padding="max_length").input_ids
    assert made[:7] == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert set(made[7:]) == {0 if padding == "!" else 49407}
    assert len(made) == 77


def test_a_checkpoint_alone_in_its_folder_loads_without_a_network(tmp_path, monkeypatch, no_network):
    """The demo model is a checkpoint in the layout of SD 1.x, with a text width of its own."""
    folder = shutil.copytree(models.DEMO_FILE.parent / "diffusers", tmp_path / "configurations")
    shutil.rmtree(folder / "tokenizer")
    unet = json.loads((folder / "unet" / "config.json").read_text())
    alone = tmp_path / "alone" / "sd15.safetensors"
    alone.parent.mkdir()
    shutil.copy(models.DEMO_FILE, alone)
    _, width = models._check_checkpoint(alone)
    monkeypatch.setattr(models, "SHIPPED", {width: folder})
    model = models.load_model(str(alone), device="cpu")
    assert model.unet.config.block_out_channels == unet["block_out_channels"]
    assert len(model.encoders[0].tokenizer) == 49408
