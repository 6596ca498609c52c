"""Settings of the x4 upscaler for hypothesis."""

from hypothesis import strategies as st

from lib_latent_upscale.samplers import X4_SAMPLERS
from lib_latent_upscale.schedules import SCHEDULES
from lib_latent_upscale.x4_settings import X4Settings


def any_settings(prompts: st.SearchStrategy[str]) -> st.SearchStrategy[X4Settings]:
    """Any settings that are allowed, with these prompts."""
    return st.builds(
        X4Settings,
        prompt=prompts,
        negative_prompt=prompts | st.just("blurry, dark: bad"),
        noise_level=st.integers(0, 349),
        guidance_scale=st.floats(1, 50),
        steps=st.integers(1, 1000),
        sampler=st.sampled_from(X4_SAMPLERS),
        scheduler=st.sampled_from(list(SCHEDULES)),
        seed=st.integers(-1, 2**63 - 1),
        colour_guard=st.booleans(),
        tile=st.sampled_from([0, 32, 256, 2048]),
        overlap=st.sampled_from([0, 32]),
        decoder_tile=st.sampled_from([0, 64, 128]),
    )
