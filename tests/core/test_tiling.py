"""Tiles cover everything, overlap as asked and blend without a trace."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib_latent_upscale.tiling import Tile, TileBlend, map_tiles, split_evenly, tile_grid, tile_weight


@st.composite
def splits(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """(length, tile, overlap, multiple) that are allowed."""
    multiple = draw(st.sampled_from([1, 2, 8, 64]))
    tile = draw(st.integers(multiple, 40 * multiple))
    overlap = draw(st.integers(0, (tile // multiple - 1) * multiple))
    return draw(st.integers(1, 5000)), tile, overlap, multiple


@given(splits())
def test_parts_cover_overlap_and_are_equal(case: tuple[int, int, int, int]) -> None:
    length, tile, overlap, multiple = case
    parts = split_evenly(length, tile, overlap, multiple)
    assert parts[0].start == 0
    assert parts[-1].stop == length
    assert len({part.stop - part.start for part in parts}) == 1
    for before, after in pairwise(parts):
        assert before.start < after.start
        assert before.stop - after.start >= overlap


@given(splits())
def test_parts_are_small_and_aligned(case: tuple[int, int, int, int]) -> None:
    length, tile, overlap, multiple = case
    parts = split_evenly(length, tile, overlap, multiple)
    assert all(part.stop - part.start <= tile for part in parts)
    if len(parts) > 1:
        assert (parts[0].stop - parts[0].start) % multiple == 0
        assert all(part.start % multiple == 0 for part in parts[:-1])
        assert length % multiple or parts[-1].start % multiple == 0


def test_even_parts_cost_what_was_calculated_by_hand() -> None:
    """512 in tiles of at most 256 with overlap 32: ceil(480 / 224) = 3 parts of ceil8(576 / 3) = 192."""
    parts = split_evenly(512, 256, 32)
    assert [(part.start, part.stop) for part in parts] == [(0, 192), (160, 352), (320, 512)]
    assert (sum(part.stop - part.start for part in parts) / 512) ** 2 == pytest.approx(1.2656, abs=1e-4)


@pytest.mark.parametrize(
    ("tile", "overlap", "named"),
    [(7, 0, "tile size 7"), (64, 64, "overlap 64"), (64, -1, "overlap -1"), (60, 56, "0 to 48")],
)
def test_bad_sizes_are_refused_with_what_is_allowed(tile: int, overlap: int, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        split_evenly(512, tile, overlap)


def test_grid_is_row_by_row() -> None:
    tiles = tile_grid((100, 40), 64, 8)
    assert tiles == [Tile(slice(0, 56), slice(0, 40)), Tile(slice(44, 100), slice(0, 40))]
    assert tiles[1].size == (56, 40)
    assert tiles[1].scaled(4) == Tile(slice(176, 400), slice(0, 160))


@given(st.integers(0, 48))
def test_weights_fall_only_towards_other_tiles(overlap: int) -> None:
    first, *_, last = tile_grid((64, 150), 64, 48)
    weight = tile_weight(first, (64, 150), overlap)
    assert weight.dtype == torch.float32
    assert weight.shape == first.size
    assert bool((weight > 0).all())
    assert bool((weight[:, : weight.shape[1] - overlap] == 1).all())
    assert bool((weight.diff(dim=1) <= 0).all())
    assert torch.equal(tile_weight(last, (64, 150), overlap), weight.flip(1))


def test_one_tile_has_weight_one_everywhere() -> None:
    (tile,) = tile_grid((20, 30), 64, 16)
    assert bool((tile_weight(tile, (20, 30), 16) == 1).all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("size", [(64, 64), (96, 200), (333, 77)])
def test_blending_equal_tiles_gives_the_picture_back(size: tuple[int, int], dtype: torch.dtype) -> None:
    picture = torch.rand(2, 3, *size).to(dtype)
    blended = map_tiles(lambda part: part, picture, 64, 16)
    assert blended.dtype == torch.float32
    torch.testing.assert_close(blended, picture.float(), rtol=0, atol=1e-6)


def test_tiles_that_disagree_blend_without_a_step() -> None:
    """Two tiles, 0 and 1: each step of a raised cosine over 16 is at most about pi / 2 / 16 = 0.098."""
    values = iter([0.0, 1.0])
    blended = map_tiles(lambda part: torch.full_like(part, next(values)), torch.zeros(1, 1, 64, 112), 64, 16)
    assert blended[0, 0, 0, 0] == 0
    assert blended[0, 0, 0, -1] == 1
    assert blended.diff(dim=-1).min() >= 0
    assert blended.diff(dim=-1).max() < 0.1


def test_results_may_be_larger_than_their_tiles() -> None:
    picture = torch.rand(1, 4, 72, 100)
    seen: list[tuple[int, int]] = []
    enlarged = map_tiles(
        lambda part: part.repeat_interleave(8, -1).repeat_interleave(8, -2),
        picture,
        48,
        16,
        factor=8,
        finished=lambda done, total: seen.append((done, total)),
    )
    assert enlarged.shape == (1, 4, 576, 800)
    torch.testing.assert_close(enlarged[..., ::8, ::8], picture, rtol=0, atol=1e-6)
    assert seen == [(done, 6) for done in range(1, 7)]


def test_a_hole_is_an_error_not_a_black_spot() -> None:
    blend = TileBlend((64, 64), 8)
    blend.add(Tile(slice(0, 64), slice(0, 32)), torch.ones(1, 1, 64, 32))
    with pytest.raises(ValueError, match="64x64"):
        blend.mean()
