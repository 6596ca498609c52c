"""Samplers: they solve what can be solved on paper, and keep the WebUI's conventions about sigmas and noise."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib_latent_upscale.errors import InputError
from lib_latent_upscale.noise_tables import sd1_sigmas
from lib_latent_upscale.samplers import GENERATION_SAMPLERS, run_sampler
from lib_latent_upscale.samplers import SAMPLERS as ALL
from lib_latent_upscale.schedules import SCHEDULES, StepPlan, get_sigmas
from lib_latent_upscale.settings import AUTOMATIC, UpscaleSettings
from lib_latent_upscale.standalone.engine.generation import GenerationSettings
from lib_latent_upscale.standalone.engine.noise import SeededNoise

SAMPLERS = {name: ALL[name] for name in GENERATION_SAMPLERS}
RANDOM = {name for name in SAMPLERS if name.endswith(" a") or "SDE" in name}
DISCARDING = {"DPM2", "DPM2 a", "DPM++ 3M SDE"}
"""Those with `discard_next_to_last_sigma` in the WebUI v1.10.1's sd_samplers_kdiffusion.py."""
DEFAULT_SCHEDULES = {
    "karras": {"DPM2", "DPM2 a", "DPM++ 2S a", "DPM++ 2M", "DPM++ SDE"},
    "exponential": {"DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 3M SDE"},
    "normal": {"Euler", "Euler a", "Heun", "LMS"},
}
"""Schedules behind "Automatic" in the same file; without one it is the model's own uniform steps, "normal" here."""


def generation(**changes) -> GenerationSettings:
    upscale = UpscaleSettings(**{key: changes.pop(key) for key in list(changes) if hasattr(UpscaleSettings, key)})
    return GenerationSettings(512, 512, upscale=upscale, **changes)


def gaussian_model(mean: float, deviation: float):
    """The exact denoiser of pictures whose values are all drawn from one normal distribution."""

    def model(x, sigma, **_):
        variance = (sigma**2).view(-1, 1, 1, 1)
        return (deviation**2 * x + variance * mean) / (deviation**2 + variance)

    return model


@pytest.mark.parametrize("name", sorted(set(SAMPLERS) - RANDOM))
def test_deterministic_samplers_solve_the_gaussian_case(name):
    """The probability flow of a Gaussian is known: distances from the mean shrink by s / sqrt(s^2 + sigma^2)."""
    mean, deviation = 0.7, 0.5
    sigmas = get_sigmas("karras", 60, sd1_sigmas())
    noise = SeededNoise([1], (4, 8, 8))
    start = mean + noise.draw() * math.hypot(deviation, sigmas[0])
    result = run_sampler(
        SAMPLERS[name], gaussian_model(mean, deviation), start, sigmas, noise.along(StepPlan(sigmas, 0))
    )
    expected = mean + (start - mean) * deviation / math.hypot(deviation, sigmas[0])
    tolerance = 0.06 if name == "Euler" else 0.02
    assert (result - expected).abs().max() < tolerance


@pytest.mark.parametrize("name", sorted(RANDOM))
def test_random_samplers_reach_the_distribution(name):
    mean, deviation = 0.7, 0.5
    sigmas = get_sigmas("karras", 60, sd1_sigmas())
    noise = SeededNoise([1], (4, 48, 48))
    start = mean + noise.draw() * math.hypot(deviation, sigmas[0])
    result = run_sampler(
        SAMPLERS[name], gaussian_model(mean, deviation), start, sigmas, noise.along(StepPlan(sigmas, 0))
    )
    assert result.mean() == pytest.approx(mean, abs=0.05)
    assert result.std() == pytest.approx(deviation, rel=0.1 if name == "Euler a" else 0.06)  # first order


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_every_sampler_runs_the_steps_that_were_asked_for(name, steps):
    plan = generation(steps=steps, sampler=name, denoising_strength=0.6).plan(sd1_sigmas())
    noise, seen = SeededNoise([3], (4, 4, 4)), []
    start = noise.draw() * plan.run[0]
    result = run_sampler(
        SAMPLERS[name],
        gaussian_model(0, 1),
        start,
        plan.run,
        noise.along(plan),
        callback=lambda state: seen.append(state["i"]),
    )
    assert seen == list(range(steps))
    assert torch.isfinite(result).all()


@pytest.mark.parametrize("scheduler", [*SCHEDULES, AUTOMATIC])
@pytest.mark.parametrize("name", ["Euler a", "DPM2", "DPM++ 3M SDE"])
@pytest.mark.parametrize("strength", [0.05, 0.5, 1.0])
@pytest.mark.parametrize("matched", [False, True])
def test_plans_hold_exactly_the_steps_and_descend_to_zero(scheduler, name, strength, matched):
    settings = generation(
        steps=13, sampler=name, denoising_strength=strength, scheduler=scheduler, matched_noise=matched
    )
    run = settings.plan(sd1_sigmas()).run
    assert len(run) == 14
    assert (run.diff() < 0).all()
    assert run[-1] == 0


def test_automatic_is_the_webuis_choice():
    for schedule, names in DEFAULT_SCHEDULES.items():
        assert {name for name, sampler in SAMPLERS.items() if sampler.automatic == schedule} == names
    assert {name for name, sampler in SAMPLERS.items() if sampler.discards_penultimate} == DISCARDING


def test_the_default_cut_runs_what_the_webui_runs():
    """setup_img2img_steps: t_enc = int(0.5 * 20) = 10, then sigmas[20 - 10 - 1:], eleven steps."""
    settings = generation(steps=20, sampler="Euler a", scheduler=AUTOMATIC, exact_steps=False)
    plan = settings.plan(sd1_sigmas())
    table = np.log(sd1_sigmas().double().numpy())
    expected = np.exp(np.interp(np.linspace(999, 0, 20), np.arange(1000), table))[9:]
    assert plan.steps == 11
    np.testing.assert_allclose(plan.run[:-1], expected, rtol=1e-5)


def test_the_penultimate_sigma_is_left_out():
    """The WebUI asks for a schedule of one step more and drops the last sigma above zero."""
    plan = generation(steps=10, sampler="DPM2", scheduler="karras", denoising_strength=1).plan(sd1_sigmas())
    low, high = (sd1_sigmas()[place].item() ** (1 / 7) for place in (0, -1))
    karras = (high + np.linspace(0, 1, 11) * (low - high)) ** 7
    np.testing.assert_allclose(plan.run, [*karras[:-1], 0], rtol=1e-5)


def test_matched_noise_starts_where_normal_starts():
    start = generation(scheduler="normal", steps=9, denoising_strength=0.4).plan(sd1_sigmas()).run[0]
    for name in ("Euler", "DPM2"):
        for scheduler in ("karras", "exponential", "beta"):
            settings = generation(
                scheduler=scheduler, steps=9, denoising_strength=0.4, matched_noise=True, sampler=name
            )
            assert settings.plan(sd1_sigmas()).run[0] == pytest.approx(start.item())


@pytest.mark.parametrize("matched", [False, True])
@pytest.mark.parametrize("name", ["Euler", "DPM2"])
def test_denoising_strength_zero_leaves_the_latent(matched, name):
    settings = generation(denoising_strength=0, matched_noise=matched, sampler=name)
    plan = settings.plan(sd1_sigmas())
    noise = SeededNoise([1], (4, 4, 4))
    latent = noise.draw()
    assert plan.steps == 0
    assert run_sampler(SAMPLERS[name], gaussian_model(0, 1), latent, plan.run, noise.along(plan)) is latent


@given(seed=st.integers(0, 2**32 - 1))
def test_noise_is_what_torch_draws_on_the_cpu(seed):
    """The WebUI with "RNG: CPU": torch.manual_seed(seed), then randn after randn."""
    torch.manual_seed(seed)
    first, second = torch.randn(4, 6, 5), torch.randn(4, 6, 5)
    noise = SeededNoise([seed, 7], (4, 6, 5))
    assert torch.equal(noise.draw()[0], first)
    assert torch.equal(noise.draw()[0], second)


@pytest.mark.parametrize("name", sorted(RANDOM))
def test_a_picture_does_not_depend_on_its_batch(name):
    sigmas = get_sigmas("simple", 6, sd1_sigmas())

    def run(seeds):
        noise = SeededNoise(seeds, (4, 4, 4))
        return run_sampler(
            SAMPLERS[name], gaussian_model(0.2, 0.5), noise.draw() * sigmas[0], sigmas, noise.along(StepPlan(sigmas, 0))
        )

    assert torch.allclose(run([5])[0], run([9, 5])[1], atol=1e-5)


def test_unknown_samplers_are_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"'UniPC'.*Euler a, .*DPM\+\+ 2M"):
        generation(sampler="UniPC")


def test_k_diffusion_is_loaded_without_what_it_needs_for_training():
    """And an import of the whole package afterwards gives the whole package."""
    code = (
        "import sys\n"
        "from lib_latent_upscale.samplers import import_k_diffusion\n"
        "sampling, external = import_k_diffusion('sampling'), import_k_diffusion('external')\n"
        "print(sorted({'clip', 'kornia', 'wandb', 'k_diffusion'} & set(sys.modules)))\n"
        "import k_diffusion\n"
        "print(k_diffusion.sampling is sampling, k_diffusion.external is external, hasattr(k_diffusion, 'models'))\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "True True True"]
