"""Interpolations against Pillow, numpy and a slow bislerp; what holds for every method; errors."""

import itertools
import math
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from lib_latent_upscale import interpolation
from lib_latent_upscale.interpolation import INTERPOLATIONS, interpolate_latent, same_result

METHODS = list(INTERPOLATIONS)
SIZES = [((8, 8), (16, 16)), ((7, 5), (16, 9)), ((12, 10), (5, 10)), ((9, 6), (4, 20)), ((1, 1), (3, 2))]
SIZES += [((5, 1), (2, 1)), ((5, 4), (8, 1)), ((4, 5), (1, 8))]


def by_pillow(latent: torch.Tensor, size: tuple[int, int], resample: Image.Resampling) -> torch.Tensor:
    planes = [Image.fromarray(plane.numpy()).resize(size[::-1], resample) for plane in latent.flatten(0, 1)]
    return torch.stack([torch.from_numpy(np.array(plane)) for plane in planes]).unflatten(0, latent.shape[:2])


def centres(source: int, target: int) -> np.ndarray:
    return (np.arange(target) + 0.5) * source / target - 0.5


def by_axis(latent: torch.Tensor, size: tuple[int, int], matrix) -> np.ndarray:
    rows, columns = matrix(latent.shape[2], size[0]), matrix(latent.shape[3], size[1])
    return np.einsum("yh,bchw,xw->bcyx", rows, latent.double().numpy(), columns)


def linear_matrix(source: int, target: int) -> np.ndarray:
    basis = np.eye(source)
    return np.stack([np.interp(centres(source, target), np.arange(source), unit) for unit in basis], axis=1)


def cubic_matrix(source: int, target: int) -> np.ndarray:
    """Keys' kernel with a = -0.75, borders repeated."""

    def kernel(x: float, a: float = -0.75) -> float:
        x = abs(x)
        if x <= 1:
            return (a + 2) * x**3 - (a + 3) * x**2 + 1
        return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0

    matrix = np.zeros((target, source))
    for row, centre in enumerate(centres(source, target)):
        for cell in range(math.floor(centre) - 1, math.floor(centre) + 3):
            matrix[row, min(max(cell, 0), source - 1)] += kernel(centre - cell)
    return matrix


def slow_slerp(first: np.ndarray, second: np.ndarray, ratio: float) -> np.ndarray:
    """Directions on the arc, lengths on a line; opposite vectors have no arc (ComfyUI's definition)."""
    lengths = np.linalg.norm(first), np.linalg.norm(second)
    directions = first / lengths[0], second / lengths[1]
    angle = np.arccos(np.clip(directions[0] @ directions[1], -1, 1))
    if angle < 1e-6 or np.cos(angle) < 1e-5 - 1:
        return (1 - ratio) * first + ratio * second
    arc = np.sin((1 - ratio) * angle) * directions[0] + np.sin(ratio * angle) * directions[1]
    return arc / np.sin(angle) * ((1 - ratio) * lengths[0] + ratio * lengths[1])


def slow_bislerp(latent: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """One latent (channels, h, w), pixel by pixel: along the width, then along the height."""
    for axis, target in ((2, size[1]), (1, size[0])):
        source = latent.shape[axis]
        lines = np.moveaxis(latent, axis, 0)  # (position, channels, other axis)
        result = np.empty((target, *lines.shape[1:]))
        for index, centre in enumerate(centres(source, target).clip(0, source - 1)):
            low = int(centre)
            for other in range(lines.shape[2]):
                pair = lines[low, :, other], lines[min(low + 1, source - 1), :, other]
                result[index, :, other] = slow_slerp(*pair, centre - low)
        latent = np.moveaxis(result, 0, axis)
    return latent


@pytest.mark.parametrize(("source", "target"), SIZES)
@pytest.mark.parametrize(
    ("method", "resample"),
    [
        ("nearest-exact", Image.Resampling.NEAREST),
        ("bilinear-antialiased", Image.Resampling.BILINEAR),
        ("bicubic-antialiased", Image.Resampling.BICUBIC),
        ("lanczos", Image.Resampling.LANCZOS),
    ],
)
def test_agrees_with_pillow(method, resample, source, target):
    latent = torch.randn(2, 3, *source)
    torch.testing.assert_close(
        interpolate_latent(latent, target, method), by_pillow(latent, target, resample), atol=2e-5, rtol=1e-5
    )


@pytest.mark.parametrize(("source", "target"), SIZES)
@pytest.mark.parametrize(("method", "matrix"), [("bilinear", linear_matrix), ("bicubic", cubic_matrix)])
def test_agrees_with_the_kernel_written_out(method, matrix, source, target):
    latent = torch.randn(2, 3, *source)
    expected = by_axis(latent, target, matrix)
    np.testing.assert_allclose(interpolate_latent(latent, target, method).numpy(), expected, atol=2e-5)


def test_nearest_takes_the_cell_at_the_floor():
    latent = torch.randn(1, 2, 7, 5)
    rows, columns = np.arange(16) * 7 // 16, np.arange(9) * 5 // 9
    expected = latent[:, :, rows][..., columns]
    assert torch.equal(interpolate_latent(latent, (16, 9), "nearest"), expected)


def test_area_averages_blocks():
    latent = torch.randn(1, 2, 12, 6)
    expected = latent.reshape(1, 2, 4, 3, 3, 2).mean(dim=(3, 5))
    torch.testing.assert_close(interpolate_latent(latent, (4, 3), "area"), expected)


@pytest.mark.parametrize("channels", [1, 2, 4, 16])
@pytest.mark.parametrize(("source", "target"), SIZES)
def test_bislerp_agrees_with_a_loop_over_pixels(source, target, channels):
    latent = torch.randn(2, channels, *source, dtype=torch.float64)
    if channels == 1:
        latent = latent.abs()  # one channel has no arc between signs: lengths alone change
        expected = np.stack([by_axis(one[None], target, linear_matrix)[0] for one in latent])
    else:
        expected = np.stack([slow_bislerp(one.numpy(), target) for one in latent])
    np.testing.assert_allclose(interpolate_latent(latent, target, "bislerp").numpy(), expected, rtol=1e-5, atol=1e-4)


def test_bislerp_keeps_the_length_of_vectors_of_one_length():
    latent = torch.nn.functional.normalize(torch.randn(1, 4, 9, 9), dim=1) * 3
    lengths = interpolate_latent(latent, (21, 21), "bislerp").norm(dim=1)
    torch.testing.assert_close(lengths, torch.full_like(lengths, 3.0), atol=1e-4, rtol=0)


@pytest.mark.parametrize("second", [[0.0, 0.0], [-1.0, 0.0], [2.0, 0.0]], ids=["zero", "opposite", "parallel"])
def test_bislerp_is_linear_where_there_is_no_arc(second):
    latent = torch.tensor([[1.0, 0.0], second]).T.reshape(1, 2, 1, 2)
    middle = interpolate_latent(latent, (1, 4), "bislerp")[0, :, 0]
    expected = [np.interp([0, 0.25, 0.75, 1], [0, 1], [1.0, second[0]]), np.zeros(4)]
    np.testing.assert_allclose(middle, expected, atol=1e-6)


def test_bislerp_is_vectorised():
    latent = torch.randn(1, 4, 512, 512)
    began = time.process_time()
    interpolate_latent(latent, (1024, 1024), "bislerp")
    assert time.process_time() - began < 10  # about a second on two idle cores; minutes in a loop over pixels


@pytest.mark.parametrize(
    ("method", "kept"),
    [
        ("nearest", 1.00),
        ("area", 1.00),
        ("bislerp", 0.93),
        ("bicubic", 0.73),
        ("bicubic-antialiased", 0.66),
        ("bilinear", 0.40),
    ],
)
def test_variance_of_white_noise_that_is_kept_at_twice_the_size(method, kept):
    noise = torch.randn(2, 4, 128, 128)
    ratio = interpolate_latent(noise, (256, 256), method).var() / noise.var()
    assert float(ratio) == pytest.approx(kept, abs=0.01)


@pytest.mark.parametrize("method", METHODS)
class TestEveryMethod:
    @pytest.mark.parametrize("shape", [(1, 4, 6, 9), (3, 1, 5, 5), (1, 16, 4, 7), (1, 4, 1, 1)])
    @pytest.mark.parametrize("size", [(12, 18), (7, 4), (1, 1), (3, 50)])
    def test_gives_the_asked_size_and_finite_values(self, method, shape, size):
        result = interpolate_latent(torch.randn(shape), size, method)
        assert result.shape == (*shape[:2], *size)
        assert result.isfinite().all()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    @pytest.mark.parametrize("size", [(13, 18), (5, 4)])
    def test_works_in_every_float_type(self, method, dtype, size):
        latent = torch.randn(2, 4, 8, 9).to(dtype)
        result = interpolate_latent(latent, size, method)
        expected = interpolate_latent(latent.float(), size, method)
        assert result.dtype == dtype
        precision = max(torch.finfo(dtype).eps, 1e-6)
        torch.testing.assert_close(result.float(), expected, rtol=precision, atol=10 * precision)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("keep_statistics", [False, True])
    def test_keeps_the_values_at_the_same_size(self, method, dtype, keep_statistics):
        latent = torch.randn(2, 4, 7, 10).to(dtype)
        result = interpolate_latent(latent, (7, 10), method, keep_statistics=keep_statistics)
        assert torch.equal(result, latent)
        assert result.data_ptr() != latent.data_ptr()

    def test_does_not_mind_the_memory_layout(self, method):
        latent = torch.randn(9, 8, 4, 2).permute(3, 2, 1, 0)
        assert not latent.is_contiguous()
        kept = latent.clone()
        result = interpolate_latent(latent, (11, 20), method)
        torch.testing.assert_close(result, interpolate_latent(latent.contiguous(), (11, 20), method))
        assert torch.equal(latent, kept)

    def test_a_flat_latent_stays_flat(self, method):
        latent = torch.full((1, 4, 5, 6), 0.7)
        for size in [(10, 12), (13, 7), (2, 3)]:
            torch.testing.assert_close(interpolate_latent(latent, size, method), torch.full((1, 4, *size), 0.7))

    def test_samples_of_a_batch_do_not_mix(self, method):
        latent = torch.randn(3, 4, 6, 5)
        whole = interpolate_latent(latent, (9, 10), method)
        torch.testing.assert_close(whole[1:2], interpolate_latent(latent[1:2], (9, 10), method))

    @pytest.mark.parametrize("size", [(16, 20), (5, 33)])
    def test_statistics_can_be_kept(self, method, size):
        latent = torch.randn(2, 4, 8, 10) * torch.tensor([0.5, 1.0, 2.0, 4.0])[:, None, None] + 3
        result = interpolate_latent(latent, size, method, keep_statistics=True)
        for measure in (np.mean, np.std):
            np.testing.assert_allclose(
                measure(result.numpy(), axis=(2, 3)), measure(latent.numpy(), axis=(2, 3)), rtol=1e-4
            )

    def test_statistics_of_a_flat_latent_and_of_a_single_cell(self, method):
        flat = torch.full((1, 4, 3, 3), -0.3)
        larger = interpolate_latent(flat, (6, 7), method, keep_statistics=True)
        torch.testing.assert_close(larger, torch.full((1, 4, 6, 7), -0.3), atol=1e-5, rtol=0)
        latent = torch.randn(1, 4, 4, 4)
        cell = interpolate_latent(latent, (1, 1), method, keep_statistics=True)
        torch.testing.assert_close(cell[..., 0, 0], latent.mean(dim=(2, 3)))


SAME_RESULT_SIZES = [
    ((5, 6), (10, 12)),
    ((5, 6), (15, 12)),
    ((5, 6), (5, 12)),
    ((5, 6), (5, 6)),
    ((5, 6), (8, 9)),
    ((64, 48), (192, 96)),
]


@pytest.mark.parametrize(("source", "target"), SAME_RESULT_SIZES)
def test_same_result_says_what_running_both_shows(source, target):
    latent = torch.randn(2, 4, *source)
    results = {method: interpolate_latent(latent, target, method) for method in METHODS}
    for first, second in itertools.product(METHODS, repeat=2):
        shown = torch.equal(results[first], results[second])
        assert same_result(first, second, source, target) == shown, (first, second)


def test_shrinking_by_a_whole_factor_is_no_reason_to_be_the_same():
    for first, second in itertools.combinations(["nearest", "nearest-exact", "area"], 2):
        assert not same_result(first, second, (6, 6), (2, 3))


@pytest.mark.parametrize("factor", range(2, 9))
def test_block_methods_are_identical_at_every_integer_factor(factor):
    for length in range(1, 200):
        latent = torch.arange(float(length)).reshape(1, 1, 1, length)
        size = (1, length * factor)
        results = [interpolate_latent(latent, size, method) for method in ("nearest", "nearest-exact", "area")]
        assert torch.equal(results[0], results[1])
        assert torch.equal(results[1], results[2])
        assert same_result("nearest", "area", (1, length), size)


def test_unknown_methods_are_answered_with_the_known_ones():
    for call in (
        lambda: interpolate_latent(torch.zeros(1, 4, 2, 2), (4, 4), "trilinear"),
        lambda: same_result("area", "trilinear", (2, 2), (4, 4)),
    ):
        with pytest.raises(ValueError, match="'trilinear'") as error:
            call()
        assert all(method in str(error.value) for method in METHODS)


@pytest.mark.parametrize(
    ("latent", "told"),
    [
        (torch.zeros(4, 2, 2), r"\(4, 2, 2\)"),
        (torch.zeros(1, 4, 2, 2, dtype=torch.int64), "int64"),
        (torch.zeros(1, 4, 0, 2), "empty"),
        (np.zeros((1, 4, 2, 2)), "ndarray"),
    ],
)
def test_what_is_no_latent_is_an_error(latent, told):
    with pytest.raises(ValueError, match=told):
        interpolate_latent(latent, (4, 4), "nearest")


@pytest.mark.parametrize("size", [(0, 4), (-1, 4), (4, 2.5), (4,), (4, 4, 4), (True, 4), ("4", 4)])
def test_what_is_no_size_is_an_error(size):
    with pytest.raises(ValueError, match="size"):
        interpolate_latent(torch.zeros(1, 4, 2, 2), size, "nearest")


def test_a_device_without_the_kernel_falls_back_to_the_cpu(monkeypatch):
    real = torch.nn.functional.interpolate

    def only_on_cpu(latent, **options):
        if not isinstance(latent, torch.Tensor):
            raise NotImplementedError
        return real(latent, **options)

    monkeypatch.setattr(interpolation.F, "interpolate", only_on_cpu)
    elsewhere = SimpleNamespace(device=torch.device("meta"), cpu=lambda: torch.zeros(1, 4, 2, 2))
    result = INTERPOLATIONS["bicubic-antialiased"](elsewhere, (4, 6))
    assert (result.device.type, result.shape) == ("meta", (1, 4, 4, 6))


def test_an_error_of_the_cpu_kernel_is_not_hidden(monkeypatch):
    def broken(latent, **options):
        raise RuntimeError("no memory")

    monkeypatch.setattr(interpolation.F, "interpolate", broken)
    with pytest.raises(RuntimeError, match="no memory"):
        interpolate_latent(torch.zeros(1, 4, 2, 2), (4, 4), "area")
