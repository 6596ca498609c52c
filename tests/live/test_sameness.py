"""One model file, two hosts: the demo model gives the same picture in the WebUI and in the standalone host.

Latents and sigmas before sampling cannot be read over HTTP; pictures that differ by no more than the rounding of 8 bits
(the WebUI cuts off, the standalone host rounds) after every step and the decode say more.
"""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from lib_latent_upscale.samplers import SAMPLERS
from lib_latent_upscale.settings import UpscaleSettings
from lib_latent_upscale.standalone.engine.engine import Engine
from lib_latent_upscale.standalone.engine.generation import GenerationSettings
from lib_latent_upscale.standalone.engine.models import DEMO_FILE, load_model
from lib_latent_upscale.standalone.engine.noise import SeededNoise


@pytest.fixture(scope="module")
def demo_checkpoint(webui):
    known = [model for model in webui.checkpoints() if model["model_name"].endswith("demo")]
    if not known:
        pytest.skip(f"the WebUI does not have the demo model: copy {DEMO_FILE.parent.name} to models/Stable-diffusion")
    if known[0]["sha256"] not in (None, hashlib.sha256(DEMO_FILE.read_bytes()).hexdigest()):
        pytest.skip(f"the WebUI has another demo model: copy {DEMO_FILE.parent.name} to models/Stable-diffusion again")
    return known[0]["title"]


@pytest.fixture(scope="module")
def engine():
    return Engine(load_model("demo", device="cpu"))


@pytest.mark.parametrize(
    ("sampler", "method", "scheduler"),
    [
        ("Euler", "nearest-exact", "simple"),
        ("Euler a", "bislerp", "karras"),
        ("DPM++ 2M", "area", "beta"),
        ("DPM2 a", "bicubic", "automatic"),
        ("DPM++ 2M SDE", "lanczos", "automatic"),
        ("Heun", "bilinear", "kl_optimal"),
    ],
)
def test_both_hosts_make_the_same_picture(
    webui, demo_checkpoint, engine, wide_picture, sampler, method, scheduler, monkeypatch
):
    webui.need_samplers([sampler])
    asked = {"method": method, "scheduler": scheduler}
    overrides = {"sd_model_checkpoint": demo_checkpoint, "randn_source": "CPU"}
    overrides["CLIP_stop_at_last_layers"] = 1  # the default of Forge Neo is 2
    there = webui.ours(
        wide_picture, asked, width=192, height=128, sampler_name=sampler, override_settings=overrides
    ).pixels
    here = GenerationSettings(
        width=192,
        height=128,
        prompt="a lighthouse",
        sampler=sampler,
        steps=3,
        seed=7,
        cfg_scale=2,
        upscale=UpscaleSettings.from_dict(asked),
    )

    def apart() -> int:
        own = np.asarray(engine.upscale([wide_picture], here).pictures[0]).astype(int)
        return int(np.abs(there - own).max())

    assert there.std() > 5
    if SAMPLERS[sampler].brownian and apart() > 2:  # ersatzForge's Brownian tree spans only the sigmas that run
        along = SeededNoise.along
        monkeypatch.setattr(
            SeededNoise, "along", lambda noise, plan: along(noise, replace(plan, sigmas=plan.run, start=0))
        )
    assert apart() <= 2
