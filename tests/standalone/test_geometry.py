"""Exactly the asked size comes out, and what was at the top left stays there."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lib_latent_upscale.standalone.engine.geometry import fit_picture, padded_picture

SIDES = st.integers(16, 3000)


@given(length=SIDES, factor=st.integers(1, 4), cell=st.sampled_from([4, 8]))
def test_whole_cells_and_factors_need_no_padding(length, factor, cell):
    cells = max(length // cell, 1)
    fit = fit_picture((cells * cell,) * 2, (cells * cell * factor,) * 2, cell)
    assert fit.source == (cells, cells)
    assert fit.target == (cells * factor, cells * factor)


@given(length=SIDES, wanted=SIDES)
def test_any_side_is_covered_and_hardly_stretched(length, wanted):
    fit = fit_picture((length, 64), (wanted, 64))
    source, target = fit.source[1], fit.target[1]
    assert source * 8 >= length
    assert target * 8 >= wanted
    ratio = wanted / length
    if 0.5 <= ratio <= 4 and length >= 64:
        assert abs(length * target / source - wanted) < 8
    assert source * 8 <= length + 72, "at most nine cells of padding"


@given(length=st.integers(64, 2000))
def test_twice_any_length_is_not_stretched_at_all(length):
    fit = fit_picture((length, 64), (2 * length, 64))
    assert length * fit.target[1] / fit.source[1] == 2 * length


def test_padding_mirrors_the_picture(noise_picture):
    padded = np.asarray(padded_picture(noise_picture, (6, 8)))
    values = np.asarray(noise_picture)
    assert padded.shape == (48, 64, 3)
    assert (padded[:40, :56] == values).all()
    assert (padded[40:, :56] == values[-2:-10:-1]).all()


def test_a_picture_that_fits_is_left_alone():
    image = Image.new("RGB", (32, 16))
    assert padded_picture(image, (2, 4)) is image
