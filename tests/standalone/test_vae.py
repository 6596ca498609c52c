"""Tiles leave no seam: not in brightness, not in contrast, not in place."""

import math
import weakref
from contextlib import nullcontext

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from lib_latent_upscale.standalone.engine import vae as vae_module
from lib_latent_upscale.standalone.engine.vae import decode_latent, encode_picture
from tests.standalone.tiny_model import make_vae


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    return make_vae().eval()


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles as they are, only smaller, so that a small latent needs several."""
    monkeypatch.setattr(vae_module, "TILE", 16)


def smooth_latent(height, width, kind):
    """Flat, or rising along both axes, in every channel."""
    down = torch.linspace(-1, 1, height)[:, None].expand(height, width)
    across = torch.linspace(-1, 1, width)[None].expand(height, width)
    values = {"flat": torch.full((height, width), 0.6), "gradient": down + across}[kind]
    return torch.stack([values, -values, values / 2, values * 0 + 0.3])[None] * 0.18215


def steps(picture):
    """Mean absolute step from each column of the picture to the next."""
    return picture.diff(dim=-1).abs().mean(dim=(0, 1, 2))


@pytest.mark.parametrize("kind", ["flat", "gradient"])
def test_no_step_at_a_tile_border_of_a_decoded_picture(vae, small_tiles, kind):
    """Columns repeat with the decoder's period of 8; borders must not step out of what other columns do."""
    latent = smooth_latent(16, 40, kind)
    grid = vae_module.tile_grid((16, 40), 16, 2, multiple=1)
    assert len(grid) > 2
    decoded = decode_latent(vae, latent, 8)
    change = steps(decoded)[32:-32]
    borders = [edge * 8 - 32 for tile in grid for edge in (tile.columns.start, tile.columns.stop) if 4 < edge < 36]
    others = torch.ones(len(change), dtype=torch.bool)
    for border in borders:
        others[border - 4 : border + 4] = False
    for border in borders:
        assert change[border - 4 : border + 4].max() <= change[others].max() * 1.05


@torch.no_grad()
def test_tiles_of_a_photograph_agree_with_the_whole(demo_engine, monkeypatch):
    """With statistics of their own, tiles differ from the whole about as much as a strong JPEG does."""
    monkeypatch.setattr(vae_module, "TILE", 32)
    vae, photo = demo_engine.model.vae, Image.fromarray(skimage.data.astronaut()).resize((320, 320))
    picture = torch.from_numpy(np.array(photo, dtype=np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
    whole = vae.encode(picture).latent_dist.mode() * vae.config.scaling_factor
    expected = vae.decode(whole / vae.config.scaling_factor).sample

    def decibel():
        return -10 * math.log10(((decode_latent(vae, whole, 8) - expected) / 2).pow(2).mean())

    assert (encode_picture(vae, picture, 8) - whole).abs().mean() < 0.1 * whole.std()
    shared = decibel()
    monkeypatch.setattr(vae_module, "_shared_statistics", lambda _: nullcontext())
    assert shared > 34
    assert shared > decibel() + 3


def test_small_latents_are_not_tiled_and_batches_are_their_pictures(vae):
    latent = torch.randn(2, 4, 8, 12)
    decoded = decode_latent(vae, latent, 8)
    assert torch.allclose(decoded[:1], decode_latent(vae, latent[:1], 8), atol=1e-5)
    assert torch.allclose(decoded, vae.decode(latent / 0.18215).sample, atol=1e-5)


@pytest.mark.parametrize("singly", [True, False])
def test_a_processor_takes_the_pictures_of_a_batch_one_after_another(vae, monkeypatch, singly):
    """It is faster so and the same; an accelerator is faster with all at once."""
    latent, picture = torch.randn(3, 4, 8, 12), torch.rand(3, 3, 64, 96) * 2 - 1
    expected = [decode_latent(vae, latent, 8), encode_picture(vae, picture, 8)]
    assert vae_module._on_processor(vae)
    monkeypatch.setattr(vae_module, "_on_processor", lambda _: singly)
    seen = []
    hooks = [part.register_forward_pre_hook(lambda _, given: seen.append(len(given[0]))) for part in
             (vae.decoder, vae.encoder)]  # fmt: skip
    made = [decode_latent(vae, latent, 8), encode_picture(vae, picture, 8)]
    for hook in hooks:
        hook.remove()
    assert seen == ([1] * 6 if singly else [3] * 2)
    for one, other in zip(made, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_tiled_batches_are_their_pictures(vae, small_tiles):
    latent = torch.randn(2, 4, 20, 20)
    both = decode_latent(vae, latent, 8)
    assert both.shape == (2, 3, 160, 160)
    assert torch.allclose(both[1], decode_latent(vae, latent[1:], 8)[0], atol=1e-5)


def test_where_the_memory_does_not_suffice_smaller_tiles_are_tried(monkeypatch):
    """A device that holds 20 x 20 cells at once, and a picture of 48 x 48."""
    monkeypatch.setattr(vae_module, "_SMALLEST_TILE", 8)
    sizes = []

    def code(part):
        sizes.append(part.shape[-1])
        if part.shape[-1] > 20:
            raise RuntimeError("accelerator out of memory. Tried to allocate 9 GiB")
        return part * 2

    latent = torch.randn(1, 4, 48, 48)
    coder = vae_module._Coder(nn.Identity(), code, 1, 1)
    assert torch.allclose(coder._within_memory(latent, 64), latent * 2, atol=1e-6)
    assert sizes[0] == 48
    assert max(sizes[sizes.index(26) + 1 :]) <= 20, "after the attempt with tiles of 26 of 32 allowed cells"
    monkeypatch.setattr(vae_module, "_SMALLEST_TILE", 32)
    with pytest.raises(RuntimeError, match="out of memory"):
        coder._within_memory(latent, 64)


def test_other_faults_of_a_network_are_not_taken_for_a_lack_of_memory():
    def code(_):
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes"):
        vae_module._Coder(nn.Identity(), code, 1, 1)(torch.zeros(1, 4, 8, 8))


def test_the_encode_is_the_same_each_time(vae):
    picture = torch.rand(1, 3, 64, 64) * 2 - 1
    assert torch.equal(encode_picture(vae, picture, 8), encode_picture(vae, picture, 8))


def test_group_norms_are_as_before(vae, small_tiles):
    decode_latent(vae, torch.randn(1, 4, 20, 20), 8)
    assert not [module for module in vae.modules() if isinstance(module, nn.GroupNorm) and "forward" in vars(module)]


def test_a_shift_and_scale_of_the_latents_is_undone():
    """SD 3-like autoencoders shift; what decode undoes, encode did."""
    torch.manual_seed(0)
    plain = make_vae(16).eval()
    shifted = make_vae(16, scaling_factor=0.5, shift_factor=0.1).eval()
    shifted.load_state_dict(plain.state_dict())
    picture = torch.rand(1, 3, 32, 32) * 2 - 1
    latent, moved = encode_picture(plain, picture, 8), encode_picture(shifted, picture, 8)
    assert torch.allclose(moved, (latent / 0.18215 - 0.1) * 0.5, atol=1e-5)
    assert torch.allclose(decode_latent(plain, latent, 8), decode_latent(shifted, moved, 8), atol=1e-4)


@torch.no_grad()
def test_a_seed_draws_from_the_distribution_as_a_host_does_with_its_global_generator(vae):
    picture = torch.rand(1, 3, 64, 40) * 2 - 1
    distribution = vae.encode(picture).latent_dist
    torch.manual_seed(5)
    drawn = (distribution.mean + distribution.std * torch.randn(distribution.mean.shape)) * vae.config.scaling_factor
    torch.testing.assert_close(encode_picture(vae, picture, 8, seed=5), drawn)
    assert not torch.equal(encode_picture(vae, picture, 8, seed=6), encode_picture(vae, picture, 8, seed=5))


class LiveMemory(TorchDispatchMode):
    """The most bytes that tensors made within have held at once."""

    def __init__(self):
        super().__init__()
        self.now = self.most = 0
        self.known = weakref.WeakSet()

    def __torch_dispatch__(self, function, types, given=(), options=None):
        made = function(*given, **(options or {}))
        for tensor in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(tensor, torch.Tensor) and (storage := tensor.untyped_storage()) not in self.known:
                self.known.add(storage)
                self.change(storage.nbytes())
                weakref.finalize(storage, self.change, -storage.nbytes())
        return made

    def change(self, size):
        self.now += size
        self.most = max(self.most, self.now)


def decoded(vae):
    return decode_latent(vae, torch.randn(1, 4, 48, 48, generator=torch.Generator().manual_seed(0)), 8)


def encoded(vae):
    return encode_picture(vae, torch.rand(1, 3, 384, 384, generator=torch.Generator().manual_seed(0)) * 2 - 1, 8)


@pytest.mark.parametrize("code", [decoded, encoded])
def test_at_most_three_large_tensors_are_held_at_once_and_nothing_changes(vae, monkeypatch, code):
    """Why a whole picture of 1024x1024 must not need more than a larger one in tiles; diffusers' blocks hold five."""
    with LiveMemory() as memory:
        result = code(vae)
    large = vae.config.block_out_channels[0] * 384 * 384 * 4
    assert memory.most < 3.5 * large
    monkeypatch.setattr(vae_module, "_sums_in_place", lambda _: nullcontext())
    with LiveMemory() as memory:
        assert torch.equal(code(vae), result)
    assert memory.most > 3.9 * large
