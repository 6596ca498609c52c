"""Schedules against formulas written out in float64; exactly steps + 1 decreasing sigmas; the cut."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import betaincinv

from lib_latent_upscale.samplers import import_k_diffusion
from lib_latent_upscale.schedules import SCHEDULES, Limits, continuous_start, get_sigmas, plan_steps, scheduled_steps

NAMES = list(SCHEDULES)
PUBLISHED = {
    "align_your_steps": [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029],
    "align_your_steps_sdxl": [14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029],
}


def sigmas_of_betas(betas: np.ndarray) -> np.ndarray:
    kept = np.cumprod(1 - betas)
    return np.sqrt((1 - kept) / kept)


SD1 = sigmas_of_betas(np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
TABLES = {
    "sd1": SD1,
    "x4": np.exp(np.linspace(math.log(0.01), math.log(36.9), 1000)),
    "zero-terminal": np.append(SD1[:-1], 4518.0),
    "short": SD1[50::100],
    "halved": np.repeat(SD1[::2], 2),
    "two": np.array([0.1, 10.0]),
    "one": np.array([1.0]),
}


def at(table, positions):
    return np.exp(np.interp(positions, np.arange(len(table)), np.log(table)))


def simple(n, table):
    return np.array([table[len(table) - 1 - math.floor(i * len(table) / n)] for i in range(n)])


def normal(n, table):
    return at(table, np.linspace(len(table) - 1, 0, n))


def sgm_uniform(n, table):
    return at(table, np.linspace(len(table) - 1, 0, n + 1)[:n])


def ddim_uniform(n, table):
    stride = max(len(table) // n, 1)
    return table[1::stride][:n][::-1]


def beta(n, table):
    quantiles = [betaincinv(0.6, 0.6, 1 - i / n) for i in range(n)]
    return table[np.rint(np.array(quantiles) * (len(table) - 1)).astype(int)]


def karras(n, table, rho=7.0):
    low, high = table[0] ** (1 / rho), table[-1] ** (1 / rho)
    return (high + np.arange(n) / max(n - 1, 1) * (low - high)) ** rho


def exponential(n, table):
    return np.exp(np.linspace(np.log(table[-1]), np.log(table[0]), n))


def kl_optimal(n, table):
    ratio = np.arange(n) / max(n - 1, 1)
    return np.tan(ratio * np.arctan(table[0]) + (1 - ratio) * np.arctan(table[-1]))


def linear_quadratic(n, table, tau=0.025):
    linear = n // 2
    quadratic, d = n - linear, linear - tau * n
    values = []
    for i in range(n):
        if i < linear:
            values.append(i * tau / linear)
        elif linear:
            q = d / (linear * quadratic**2)
            values.append(q * (i**2 + linear**2) + (tau / linear - 2 * d / quadratic**2) * i)
        else:
            values.append(0.0)
    return (1 - np.array(values)) * table[-1]


def aligned(name):
    def interpolated(n, table):
        levels = np.log(PUBLISHED[name][::-1])
        return np.exp(np.interp(np.linspace(0, 1, n), np.linspace(0, 1, 11), levels))[::-1] if n > 1 else [14.615]

    return interpolated


FORMULAS = {
    "simple": simple,
    "normal": normal,
    "karras": karras,
    "exponential": exponential,
    "polyexponential": exponential,  # with its default curvature of 1
    "sgm_uniform": sgm_uniform,
    "ddim_uniform": ddim_uniform,
    "beta": beta,
    "kl_optimal": kl_optimal,
    "linear_quadratic": linear_quadratic,
    "align_your_steps": aligned("align_your_steps"),
    "align_your_steps_sdxl": aligned("align_your_steps_sdxl"),
}


def assert_is_schedule(sigmas, steps):
    assert sigmas.shape == (steps + 1,)
    assert (sigmas.dtype, sigmas.device.type) == (torch.float32, "cpu")
    assert sigmas.isfinite().all()
    assert (sigmas.diff() < 0).all()
    assert sigmas[-1] == 0


def test_every_schedule_has_a_formula_to_compare_with():
    assert FORMULAS.keys() == SCHEDULES.keys()


@pytest.mark.parametrize("name", NAMES)
def test_equals_the_formula_wherever_that_gives_a_schedule(name):
    compared = []
    for steps in range(1, 1001):
        sigmas = get_sigmas(name, steps, torch.from_numpy(SD1))
        assert_is_schedule(sigmas, steps)
        expected = np.array(FORMULAS[name](steps, SD1))
        if len(expected) == steps and (np.diff(expected) < 0).all():
            np.testing.assert_allclose(sigmas[:-1], expected, rtol=1e-5, err_msg=f"{steps} steps")
            compared.append(steps)
    # The formulas' own limits: beta's lowest quantiles share a timestep from 139 steps on, DDIM leaves out entry 0.
    assert len(compared) == {"beta": 138, "ddim_uniform": 999}.get(name, 1000)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("table", TABLES)
def test_any_model_gets_exactly_the_steps(name, table):
    for steps in [*range(1, 60), 99, 100, 333, 500, 501, 999, 1000]:
        assert_is_schedule(get_sigmas(name, steps, torch.from_numpy(TABLES[table])), steps)


@given(
    name=st.sampled_from(NAMES),
    steps=st.integers(1, 1000),
    table=st.lists(st.floats(2**-10, 1e4, width=32), min_size=1, max_size=30),
)
def test_any_ascending_table_gets_exactly_the_steps(name, steps, table):
    assert_is_schedule(get_sigmas(name, steps, sorted(table)), steps)


@pytest.mark.parametrize("steps", [600, 800, 1000])
@pytest.mark.parametrize(("name", "table"), [("beta", SD1), ("simple", TABLES["short"]), ("simple", TABLES["halved"])])
def test_repairing_repeated_sigmas_leaves_the_others_and_the_ends(name, table, steps):
    expected = FORMULAS[name](steps, table)
    assert len(np.unique(expected)) < steps
    sigmas = get_sigmas(name, steps, torch.from_numpy(table))[:-1].numpy()
    alone = np.array([np.count_nonzero(expected == sigma) == 1 for sigma in expected])
    np.testing.assert_allclose(sigmas[alone], expected[alone], rtol=1e-6)
    np.testing.assert_allclose(sigmas[[0, -1]], expected[[0, -1]], rtol=1e-6)
    assert (np.abs(np.log(sigmas / expected)) <= np.log(table[1:] / table[:-1]).max() + 1e-6).all()


def test_ddim_takes_its_usual_steps():
    """Diffusers' leading spacing with an offset of 1: 30 steps are 1, 34, ..., 958, though 31 would fit."""
    np.testing.assert_allclose(get_sigmas("ddim_uniform", 30, SD1)[:-1], SD1[np.arange(1, 959, 33)][::-1], rtol=1e-6)


def test_normal_is_the_schedule_of_k_diffusion():
    external = pytest.importorskip("k_diffusion.external")
    schedule = external.DiscreteSchedule(torch.from_numpy(SD1).float(), quantize=True)
    for steps in (2, 7, 20, 150):
        torch.testing.assert_close(get_sigmas("normal", steps, SD1), schedule.get_sigmas(steps), rtol=1e-5, atol=0)


@pytest.mark.parametrize("steps", [1, 2, 7, 20, 1000])
@pytest.mark.parametrize(
    ("name", "rho"), [("karras", 7.0), ("karras", 3.0), ("exponential", None), ("polyexponential", 2.0)]
)
def test_the_formulas_of_k_diffusion_give_its_bits(name, rho, steps):
    """So a picture made with its function can be made again with ours."""
    function = getattr(import_k_diffusion("sampling"), f"get_sigmas_{name}")
    expected = function(steps, float(SD1[0]), float(SD1[-1]), *([rho] if rho else []))
    assert torch.equal(get_sigmas(name, steps, SD1.tolist(), rho=rho), expected)


FLOW = {
    "flow, shift 3": 3 * np.linspace(0.001, 1, 1000) / (1 + 2 * np.linspace(0.001, 1, 1000)),
    "Flux, 10,000 entries": math.e**1.15 / (math.e**1.15 + 10_000 / np.arange(1, 10_001) - 1),
}
STRENGTHS = st.floats(0.001, 1) | st.just(1.0)


@given(st.sampled_from(NAMES), st.sampled_from([SD1, *FLOW.values()]), STRENGTHS, STRENGTHS, st.integers(1, 1000))
def test_a_continuous_start_grows_with_the_denoising_strength_and_never_jumps(name, table, first, second, steps):
    low, high = sorted([first, second])
    starts = [continuous_start(name, strength, table) for strength in (low, high)]
    assert 0 < starts[0] <= starts[1] <= table[-1] * (1 + 1e-4), "published levels are rounded"
    near = continuous_start(name, min(low * 1.0005, 1.0), table)
    assert near - starts[0] <= 0.02 * table[-1], "a two-thousandth more strength is hardly more noise"
    run = plan_steps(name, steps, max(low, 0.01), table, start_sigma=continuous_start(name, max(low, 0.01), table)).run
    assert len(run) == steps + 1
    assert (run.diff() < 0).all()
    assert run[-1] == 0


@pytest.mark.parametrize("name", set(NAMES) - {"linear_quadratic"})
def test_a_continuous_start_is_where_many_steps_start(name):
    for strength in (0.1, 0.33, 0.5, 0.75, 0.95):
        rounded = plan_steps(name, 1000, strength, SD1.tolist()).run[0].item()
        assert continuous_start(name, strength, SD1.tolist()) == pytest.approx(rounded, rel=0.03)


def test_a_continuous_start_begins_at_zero_and_ends_at_the_largest_sigma():
    for name in NAMES:
        assert continuous_start(name, 0, SD1.tolist()) == 0
        assert continuous_start(name, 1, SD1.tolist()) == pytest.approx(get_sigmas(name, 1000, SD1.tolist())[0].item())


def test_few_steps_have_no_cliff():
    """Seen with rounding to whole steps: 4 steps start at one sigma from 0.74 to 0.80, and from pure noise at 0.81."""
    rounded = [plan_steps("simple", 4, strength, SD1.tolist()).run[0].item() for strength in (0.74, 0.80, 0.81)]
    assert rounded[0] == rounded[1] < 0.4 * rounded[2]
    starts = [continuous_start("simple", strength, SD1.tolist()) for strength in (0.74, 0.80, 0.81)]
    assert starts[0] < starts[1] < starts[2] < 1.1 * starts[1]


def test_the_published_levels_come_out_as_published():
    for name, levels in PUBLISHED.items():
        np.testing.assert_allclose(get_sigmas(name, 11, SD1), [*levels, 0.0], rtol=1e-6)


def test_published_levels_are_stretched_to_another_models_range():
    sigmas = get_sigmas("align_your_steps", 11, TABLES["x4"])[:-1].numpy()
    ratios = np.diff(np.log(sigmas)) / np.diff(np.log(PUBLISHED["align_your_steps"]))
    np.testing.assert_allclose(sigmas[[0, -1]], [36.9, 0.01], rtol=1e-5)
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-4)


@pytest.mark.parametrize("make", [torch.from_numpy, list, lambda table: torch.from_numpy(table).float(), np.copy])
def test_the_table_may_come_as_it_is(make):
    np.testing.assert_allclose(get_sigmas("normal", 5, make(SD1))[:-1], normal(5, SD1), rtol=1e-5)


class TestOverrides:
    def test_karras(self):
        sigmas = get_sigmas("karras", 12, SD1, sigma_min=0.1, sigma_max=20.0, rho=3.0)
        np.testing.assert_allclose(sigmas[:-1], karras(12, np.array([0.1, 20.0]), rho=3.0), rtol=1e-5)

    def test_polyexponential(self):
        sigmas = get_sigmas("polyexponential", 12, SD1, sigma_min=0.1, sigma_max=10.0, rho=2.0)
        expected = np.exp(np.linspace(1, 0, 12) ** 2 * np.log(100.0) + np.log(0.1))
        np.testing.assert_allclose(sigmas[:-1], expected, rtol=1e-5)

    @pytest.mark.parametrize("name", ["karras", "exponential", "polyexponential", "kl_optimal", "normal"])
    def test_the_ends_are_where_they_are_wanted(self, name):
        sigmas = get_sigmas(name, 9, SD1, sigma_min=0.2, sigma_max=5.0)
        np.testing.assert_allclose([sigmas[0], sigmas[-2]], [5.0, 0.2], rtol=1e-5)

    @pytest.mark.parametrize("name", NAMES)
    def test_a_largest_sigma_is_where_every_schedule_starts(self, name):
        assert float(get_sigmas(name, 9, SD1, sigma_max=5.0)[0]) == pytest.approx(5.0, rel=1e-5)

    @pytest.mark.parametrize("name", ["simple", "normal", "sgm_uniform", "beta", "align_your_steps"])
    def test_ends_outside_the_table_count_as_its_ends(self, name):
        beyond = get_sigmas(name, 9, SD1, sigma_min=1e-4, sigma_max=80.0)
        torch.testing.assert_close(beyond, get_sigmas(name, 9, SD1))

    @pytest.mark.parametrize("name", NAMES)
    def test_still_exactly_the_steps(self, name):
        for steps in (1, 2, 31, 1000):
            assert_is_schedule(get_sigmas(name, steps, SD1, sigma_min=0.5, sigma_max=2.0), steps)
            assert_is_schedule(get_sigmas(name, steps, SD1, sigma_min=1.0, sigma_max=1.0), steps)


@pytest.mark.parametrize(
    ("name", "starts"),
    [
        ("simple", (0.84, 1.61, 3.53)),
        ("normal", (0.81, 1.55, 3.38)),
        ("karras", (0.34, 1.18, 3.82)),
        ("exponential", (0.18, 0.60, 2.32)),
        ("beta", (0.66, 1.62, 4.71)),
    ],
)
def test_where_twenty_exact_steps_start(name, starts):
    found = [float(plan_steps(name, 20, strength, SD1).run[0]) for strength in (0.3, 0.5, 0.7)]
    assert found == pytest.approx(starts, abs=0.0101)


class TestPlan:
    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("strength", [0.01, 0.3, 0.5, 0.75, 0.999, 1])
    @pytest.mark.parametrize("steps", [1, 2, 20, 150])
    def test_exact_runs_the_steps_that_were_asked_for(self, name, strength, steps):
        plan = plan_steps(name, steps, strength, SD1)
        scheduled = int(steps / min(strength, 0.999))
        assert plan.steps == steps
        assert scheduled_steps(steps, strength) == scheduled
        assert torch.equal(plan.sigmas, get_sigmas(name, scheduled, SD1))
        assert torch.equal(plan.run, plan.sigmas[-steps - 1 :])

    @pytest.mark.parametrize(("strength", "runs"), [(0.01, 1), (0.3, 7), (0.5, 11), (0.75, 16), (1.0, 20)])
    def test_the_default_cut_is_the_webuis(self, strength, runs):
        plan = plan_steps("karras", 20, strength, SD1, exact=False)
        encoded = int(min(strength, 0.999) * 20)
        assert plan.steps == runs
        assert torch.equal(plan.sigmas, get_sigmas("karras", 20, SD1))
        assert torch.equal(plan.run, plan.sigmas[20 - encoded - 1 :])

    @pytest.mark.parametrize("options", [{}, {"exact": False}, {"start_sigma": 1.0}, {"discard_penultimate": True}])
    def test_denoising_strength_zero_runs_no_step(self, options):
        plan = plan_steps("simple", 20, 0.0, SD1, **options)
        assert (scheduled_steps(20, 0), plan.steps, plan.run.tolist()) == (0, 0, [0.0])

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("start", [0.01, float(SD1[0]), 0.03, 0.5, 1.61, 7.77, float(SD1[-1])])
    @pytest.mark.parametrize("steps", [1, 2, 20, 1000])
    def test_matched_noise_starts_at_the_sigma_and_runs_the_steps(self, name, start, steps):
        plan = plan_steps(name, steps, 0.5, SD1, start_sigma=start)
        assert_is_schedule(plan.run, steps)
        assert plan.start == 0
        assert plan.run[0] == np.float32(start)

    @pytest.mark.parametrize("name", ["simple", "normal", "sgm_uniform", "ddim_uniform"])
    def test_matched_noise_keeps_the_spacing(self, name):
        """A schedule that strides evenly over the timesteps does so from its own starting sigma, too."""
        own = plan_steps(name, 20, 0.5, SD1)
        matched = plan_steps(name, 20, 0.5, SD1, start_sigma=float(own.run[0]))
        np.testing.assert_allclose(matched.run[:-2], own.run[:-2], rtol=0.1)

    def test_matched_noise_of_karras_is_karras_from_there(self):
        plan = plan_steps("karras", 20, 0.5, SD1, start_sigma=2.0)
        np.testing.assert_allclose(plan.run[:-1], karras(20, np.array([SD1[0], 2.0])), rtol=1e-5)

    @pytest.mark.parametrize("options", [{}, {"exact": False}, {"start_sigma": 1.0}])
    def test_discarding_the_penultimate_sigma_keeps_the_number_of_steps(self, options):
        kept = plan_steps("karras", 20, 0.5, SD1, **options)
        plan = plan_steps("karras", 20, 0.5, SD1, discard_penultimate=True, **options)
        assert plan.steps == kept.steps
        assert_is_schedule(plan.run, kept.steps)
        assert float(plan.run[-2]) > float(kept.run[-2])

    def test_overrides_reach_the_schedule(self):
        plan = plan_steps("karras", 10, 1.0, SD1, limits=Limits(0.1, 9.0, 5.0))
        assert torch.equal(plan.sigmas, get_sigmas("karras", 10, SD1, sigma_min=0.1, sigma_max=9.0, rho=5.0))

    @given(steps=st.integers(1, 1000), strength=st.floats(0.001, 1))
    def test_the_longest_plans_still_descend(self, steps, strength):
        assert_is_schedule(plan_steps("simple", steps, strength, SD1).run, steps)


class TestErrors:
    def test_an_unknown_schedule_is_answered_with_the_known_ones(self):
        for call in (get_sigmas, lambda *given: plan_steps(given[0], 3, 0.5, SD1, start_sigma=1.0)):
            with pytest.raises(ValueError, match="'Karras'") as error:
                call("Karras", 3, SD1)
            assert all(name in str(error.value) for name in NAMES)

    @pytest.mark.parametrize("steps", [0, -1, 1001, 2.5, 20.0, "20", True, None])
    def test_steps(self, steps):
        with pytest.raises(ValueError, match=r"steps is .*1 to 1000"):
            plan_steps("simple", steps, 0.5, SD1)
        with pytest.raises(ValueError, match="steps is"):
            scheduled_steps(steps, 0.5)

    def test_steps_of_a_schedule(self):
        with pytest.raises(ValueError, match="steps is 0"):
            get_sigmas("simple", 0, SD1)

    @pytest.mark.parametrize("strength", [-0.1, 1.1, math.nan, math.inf, "0.5", None, True])
    def test_denoising_strength(self, strength):
        with pytest.raises(ValueError, match=r"denoising strength is .* from 0 to 1"):
            plan_steps("simple", 20, strength, SD1)

    def test_a_denoising_strength_too_small_to_schedule(self):
        with pytest.raises(ValueError, match=r"1e-09 with 20 steps.* at least 2e-05"):
            plan_steps("simple", 20, 1e-9, SD1)
        assert plan_steps("simple", 20, 2e-5, SD1).steps == 20

    @pytest.mark.parametrize("field", ["sigma_min", "sigma_max", "rho", "start_sigma"])
    @pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, True])
    def test_ends(self, field, value):
        given = {"start_sigma": value} if field == "start_sigma" else {"limits": Limits(**{field: value})}
        with pytest.raises(ValueError, match=field):
            plan_steps("karras", 20, 0.5, SD1, **given)

    def test_ends_the_wrong_way_round(self):
        with pytest.raises(ValueError, match="sigma_min 3 must not exceed sigma_max 2"):
            get_sigmas("karras", 20, SD1, sigma_min=3.0, sigma_max=2.0)

    def test_a_start_beyond_the_model(self):
        with pytest.raises(ValueError, match=r"start_sigma is 20; the largest noise level is 14\.6146"):
            plan_steps("karras", 20, 0.5, SD1, start_sigma=20.0)

    @pytest.mark.parametrize("table", [[], [[1.0, 2.0]], SD1[::-1].copy(), [0.0, 1.0], [1.0, math.inf], [math.nan]])
    def test_tables(self, table):
        with pytest.raises(ValueError, match="model_sigmas"):
            get_sigmas("simple", 5, table)
