"""The `parameters` text: the WebUI's form, and the way back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_latent_upscale.errors import InputError
from lib_latent_upscale.interpolation import INTERPOLATIONS
from lib_latent_upscale.samplers import GENERATION_SAMPLERS
from lib_latent_upscale.schedules import SCHEDULES
from lib_latent_upscale.settings import AUTOMATIC, UpscaleSettings
from lib_latent_upscale.standalone.engine.generation import GenerationSettings, write_parameters
from tests.standalone.parameters import parse_parameters

LINES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30).map(str.strip)
PROMPTS = (
    st.lists(LINES, max_size=3)
    .map("\n".join)
    .map(lambda text: text.strip())
    .filter(lambda text: not any(line.startswith("Negative prompt:") for line in text.split("\n")))
)

GENERATIONS = st.builds(
    GenerationSettings,
    width=st.integers(16, 8192),
    height=st.integers(16, 8192),
    prompt=PROMPTS,
    negative_prompt=PROMPTS,
    steps=st.integers(1, 1000),
    sampler=st.sampled_from(GENERATION_SAMPLERS),
    cfg_scale=st.floats(0, 100),
    seed=st.integers(0, 2**32 - 1),
    denoising_strength=st.floats(0, 1),
    model=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).map(str.strip).filter(bool),
    upscale=st.builds(
        UpscaleSettings,
        method=st.sampled_from(list(INTERPOLATIONS)),
        scheduler=st.sampled_from([*SCHEDULES, AUTOMATIC]),
        exact_steps=st.booleans(),
        keep_statistics=st.booleans(),
        matched_noise=st.booleans(),
    ),
)


@given(GENERATIONS)
def test_what_is_written_reads_back_as_the_same(generation):
    assert parse_parameters(write_parameters(generation)) == generation


def test_the_text_has_the_webuis_form():
    generation = GenerationSettings(
        640, 512, "a cat,\nsitting", "blurry", 25, "DPM++ 2M", 7.5, 42, 0.45, "my, model", UpscaleSettings("bislerp")
    )
    assert write_parameters(generation).split("\n") == [
        "a cat,",
        "sitting",
        "Negative prompt: blurry",
        (
            'Steps: 25, Sampler: DPM++ 2M, CFG scale: 7.5, Seed: 42, Size: 640x512, Model: "my, model", '
            "Denoising strength: 0.45, RNG: CPU, Script: Latent Upscale, Latent upscale method: bislerp, "
            "Latent upscale scheduler: simple, Latent upscale exact steps: True, "
            "Latent upscale keep statistics: False, "
            "Latent upscale matched noise: False"
        ),
    ]


def test_the_webuis_own_text_can_be_read():
    """The example in the docstring of the WebUI's parse_generation_parameters, shortened."""
    text = (
        "girl with an artist's beret, (coquettish), detailed\n"
        "Negative prompt: ugly, fat, [blurry], (poorly drawn hands)\n"
        "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 965400086, Size: 512x512, Model hash: 45dee52b"
    )
    generation = parse_parameters(text)
    assert generation.prompt == "girl with an artist's beret, (coquettish), detailed"
    assert generation.negative_prompt == "ugly, fat, [blurry], (poorly drawn hands)"
    assert (generation.steps, generation.sampler, generation.seed) == (20, "Euler a", 965400086)
    assert generation.size == (512, 512)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Steps: x, Sampler: Euler, Size: 64x64", "Steps is 'x'; a number is needed"),
        ("Steps: 3, Sampler: Euler, Size: 64x64, Latent upscale method: cubic", "Latent upscale method"),
        ("Steps: 3, Sampler: Oiler, Size: 64x64", "Oiler"),
        ("Steps: 3, Sampler: Euler, Size: 64x9999", "64x9999"),
    ],
)
def test_text_that_makes_no_generation_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        parse_parameters(text)


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 0},
        {"steps": -1},
        {"steps": 10_000},
        {"denoising_strength": -0.1},
        {"denoising_strength": 1.1},
        {"denoising_strength": float("nan")},
        {"cfg_scale": float("inf")},
        {"seed": -1},
        {"seed": 2**32},
        {"width": 0},
        {"height": 20_000},
    ],
)
def test_values_out_of_range_are_refused_by_name(change):
    with pytest.raises(InputError, match=r"(out of range|is not)"):
        GenerationSettings(**{"width": 64, "height": 64, **change})
