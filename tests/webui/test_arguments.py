"""What callers may hand to the script, and what they are told otherwise."""

import pytest

DEFAULTS = {"Latent upscale method": "nearest-exact", "Latent upscale scheduler": "simple"}


@pytest.mark.parametrize(
    "given", [(), ("nearest-exact",), ("nearest-exact", "simple"), ({},), ({"method": "nearest-exact"},)]
)
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
        (("no such",), {}, "method is 'no such'; choose one of: nearest, nearest-exact"),
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
