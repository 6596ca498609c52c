"""What a file is, told from its header."""

import errno
import json
import re
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lib_latent_upscale import checkpoints
from lib_latent_upscale.checkpoints import (
    is_controlnet,
    is_sdxl,
    is_whole_checkpoint,
    kind_of,
    latent_channels,
    read_header,
    text_width,
)
from lib_latent_upscale.errors import ModelFileError
from lib_latent_upscale.learned.files import check_kind
from lib_latent_upscale.standalone.engine.models import header_shapes

PACKAGE = Path(checkpoints.__file__).parent
WEIGHTS = PACKAGE / "weights"


def test_the_demo_model_is_a_checkpoint_and_its_tile_model_a_controlnet():
    model = read_header(WEIGHTS / "demo-model" / "demo.safetensors").shapes
    tile = read_header(WEIGHTS / "demo-tile-controlnet" / "diffusion_pytorch_model.safetensors").shapes
    wanted = json.loads((WEIGHTS / "demo-tile-controlnet" / "config.json").read_text())
    assert is_whole_checkpoint(model)
    assert not is_sdxl(model)
    assert not is_controlnet(model)
    assert latent_channels(model) == wanted["in_channels"]
    assert is_controlnet(tile)
    assert not is_whole_checkpoint(tile)
    assert text_width(tile) == text_width(model) == wanted["cross_attention_dim"]


@pytest.mark.parametrize(
    ("inputs", "kind"), [(4, "normal"), (9, "inpainting"), (5, "depth"), (8, "pix2pix"), (7, "other")]
)
def test_checkpoints_are_told_apart_by_what_their_unet_takes(inputs, kind):
    assert kind in kind_of({checkpoints.UNET_INPUT: (320, inputs, 3, 3)})


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    def locked(path, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    monkeypatch.setattr(Path, "open", locked)  # root may read everything
    for read in (read_header, lambda one: header_shapes(one, one), check_kind):
        with pytest.raises(ModelFileError, match=r"model\.safetensors cannot be read: Permission denied"):
            read(path)


def test_a_header_nested_without_end_is_a_damaged_file(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 100_000) + b"[" * 100_000)
    with pytest.raises(ModelFileError, match="damaged"):
        read_header(path)


def test_a_file_without_attention_has_no_text_width():
    assert text_width({"decoder.conv_in.weight": (512, 4, 3, 3)}) is None
    assert latent_channels({"decoder.conv_in.weight": (512, 4, 3, 3)}) == 0


def test_what_a_file_is_stands_in_one_place():
    """The names of tensors that tell files apart, the endings of pickles and the families of models."""
    marks = r"input_hint_block\.0|attn2\.to_k|input_blocks\.0\.0\.weight\"|\.ckpt\"|1024: \"SD 2"
    sources = {path: path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
    found = {path.name for path, text in sources.items() if re.search(marks, text)}
    assert found == {"checkpoints.py", "tile_models.py"}  # the latter: where a ControlNet takes the latent
