"""What callers may hand to the script, and what they are told otherwise."""

import pytest

DEFAULTS = {"Latent upscale method": "pixels", "Latent upscale scheduler": "simple"}
"""What stands in the infotext of a model that no network knows, at denoising strength 0.5."""


@pytest.mark.parametrize("given", [(), ("automatic",), ("automatic", "simple"), ({},), ({"method": "automatic"},)])
def test_absent_arguments_are_defaults_whatever_stands_behind(webui, picture, given):
    written = webui.run(webui.process(picture), *given).infotexts[0]
    assert DEFAULTS.items() <= written.items()


def test_names_and_positions_mean_the_same(webui, picture):
    named = {"method": "area", "scheduler": "karras", "exact_steps": False, "keep_statistics": True}
    listed = webui.run(webui.process(picture), *named.values()).infotexts
    assert webui.run(webui.process(picture), named).infotexts == listed


@pytest.mark.parametrize(
    ("given", "changes", "said"),
    [
        (("no such",), {}, "method is 'no such'; choose one of: automatic, pixels, learned, learned-latent"),
        ((3,), {}, "method is 3"),
        (("area", {}), {}, "scheduler is {}"),
        (({"exact_steps": 1},), {}, "exact_steps is 1; choose True or False"),
        (({"mehtod": "area"},), {}, "known are: method, scheduler"),
        (({"scheduler": "automatic", "matched_noise": True},), {}, "matched_noise needs a scheduler"),
        ((), {"steps": 0}, "steps is 0; an integer from 1"),
        ((), {"denoising_strength": 2}, "denoising strength is 2"),
        ((), {"denoising_strength": 1e-9}, "use 0, or at least"),
        ((), {"width": 0}, "width is 0"),
        ((), {"init_images": []}, "no picture"),
        ((), {"init_images": [None]}, "no picture"),
    ],
    ids=str,
)
def test_bad_values_are_refused_before_any_work(webui, picture, given, changes, said):
    p = webui.process(picture)
    for name, value in changes.items():
        setattr(p, name, value)
    p.init = lambda *_: pytest.fail("work has begun")
    with pytest.raises(ValueError, match="Latent Upscale: ") as refused:
        webui.run(p, *given)
    assert said in str(refused.value)
    assert refused.value.status_code == 422
    assert refused.value.detail == str(refused.value)


def test_too_many_are_refused(webui, picture):
    with pytest.raises(ValueError, match="at most"):
        webui.run(webui.process(picture), *["area"] * 40)


def test_too_many_timesteps_are_refused(webui, picture, timestep_sampler):
    p = webui.process(picture, next_sampler=timestep_sampler, denoising_strength=0.003, sampler_name="DDIM")
    with pytest.raises(ValueError, match="need 1333 timesteps of DDIM"):
        webui.run(p)


HALF = "a\ud800"


@pytest.mark.parametrize(
    ("given", "in_call", "on_page"),
    [
        ({"method": "no such"}, "method is 'no such'", "Upscale method is 'no such'"),
        ({"x4": True, "x4_steps": 0}, "x4_steps is 0", "x4 steps is 0"),
        (
            {"x4": True, "x4_tile": 64, "x4_overlap": 128},
            "x4_overlap must not be larger than x4_tile",
            "x4 tile overlap must not be larger than x4 tile size",
        ),
        ({"x4": True, "x4_prompt": HALF}, r"x4_prompt has half of a character", "x4 prompt has half of a character"),
        ({"compare": True, "compare_methods": ["none"]}, "compare_methods has 'none'", "Methods to compare has 'none'"),
    ],
    ids=str,
)
def test_a_call_is_answered_with_its_names_and_the_page_with_its_labels(webui, picture, given, in_call, on_page):
    for is_api, said in ((True, in_call), (False, on_page)):
        with pytest.raises(ValueError, match="Latent Upscale: ") as refused:
            webui.run(webui.process(picture, is_api=is_api), given)
        assert said in str(refused.value)
        str(refused.value).encode()


@pytest.mark.parametrize("name", ["method", "x4_prompt", "x4_model", "compare_variants", "a" * 2**20])
def test_a_value_of_a_megabyte_is_not_sent_back(webui, picture, name):
    value = ["x" * 2**20] if name == "compare_variants" else HALF + "x" * 2**20
    with pytest.raises(ValueError, match="Latent Upscale: ") as refused:
        webui.run(webui.process(picture), {"x4": True, "compare": name.startswith("compare"), name: value})
    assert len(str(refused.value)) < 2000
    str(refused.value).encode()
