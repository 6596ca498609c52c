"""Latents with a frame axis, and with cells packed into channels."""

import pytest
import torch

from lib_latent_upscale.interpolation import INTERPOLATIONS, interpolate_latent
from lib_latent_upscale.latent_layouts import pack_cells, resized, unpack_cells


def by(method):
    return lambda latent, size: interpolate_latent(latent, size, method)


@pytest.mark.parametrize("method", INTERPOLATIONS)
def test_a_still_of_a_video_model_is_enlarged_as_a_picture_is(method):
    still = torch.randn(1, 16, 1, 12, 12, generator=torch.Generator().manual_seed(0))

    enlarged = resized(still, (18, 18), by(method))

    assert enlarged.shape == (1, 16, 1, 18, 18)
    assert torch.equal(enlarged[:, :, 0], interpolate_latent(still[:, :, 0], (18, 18), method))


def test_a_video_is_refused_in_a_sentence():
    with pytest.raises(ValueError, match="latent has 3 frames; a video is not resized"):
        resized(torch.zeros(1, 16, 3, 12, 12), (18, 18), by("bilinear"))


def test_packed_cells_lie_row_by_row_in_four_neighbouring_channels():
    packed = torch.arange(8.0).reshape(1, 8, 1, 1)

    assert unpack_cells(packed).tolist() == [[[[0, 1], [2, 3]], [[4, 5], [6, 7]]]]


def test_packing_loses_nothing():
    packed = torch.randn(2, 128, 5, 7, generator=torch.Generator().manual_seed(0))

    assert unpack_cells(packed).shape == (2, 32, 10, 14)
    assert torch.equal(pack_cells(unpack_cells(packed)), packed)


def test_a_ramp_in_packed_latents_stays_a_ramp():
    ramp = torch.arange(12.0).expand(1, 32, 12, 12)

    enlarged = resized(pack_cells(ramp), (12, 12), by("bilinear"), cell=16)
    row = unpack_cells(enlarged)[0, 0, 10]

    assert enlarged.shape == (1, 128, 12, 12)
    assert row[2:-2].diff().tolist() == pytest.approx([0.5] * 19)  # packed, the steps would alternate between 0 and 1


def test_only_the_packed_kind_is_unpacked():
    """A model with 128 true channels, or with the same cells and others, is enlarged as it is."""
    sizes = []

    def noted(latent, size):
        sizes.append((latent.shape[1], size))
        return latent

    resized(torch.zeros(1, 128, 6, 6), (12, 12), noted, cell=8)
    resized(torch.zeros(1, 64, 6, 6), (12, 12), noted, cell=16)
    resized(torch.zeros(1, 128, 6, 6), (12, 12), noted, cell=16)

    assert sizes == [(128, (12, 12)), (64, (12, 12)), (32, (24, 24))]
