"""What the adapter does to one generation, on a double of the host."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from lib_latent_upscale.interpolation import INTERPOLATIONS
from lib_latent_upscale.schedules import SCHEDULES, get_sigmas
from lib_latent_upscale.settings import AUTOMATIC, UpscaleSettings

LIKE_HOST = {"method": "bilinear", "scheduler": "automatic", "exact_steps": False}
TABLE = torch.linspace(0.03, 14.6, 1000)


def test_with_the_hosts_settings_latents_are_the_hosts(webui, picture):
    host = webui.process(picture)
    torch.manual_seed(host.seed)  # the state in which a generation with this seed leaves the generator
    expected = webui.host_alone(host).latents[0]
    made = webui.run(webui.process(picture), LIKE_HOST).latents[0]
    assert torch.equal(made, expected)


def test_the_encode_draws_where_the_hosts_noise_leaves_the_generator(webui, picture):
    """Forge's noise for a seed leaves another seed behind."""
    webui.modules["modules.rng"].randn = lambda seed, _shape, generator: torch.manual_seed(seed + 100_000)
    made = webui.run(webui.process(picture), LIKE_HOST).latents[0]
    torch.manual_seed(webui.process(picture).seed + 100_000)
    assert torch.equal(made, webui.host_alone(webui.process(picture)).latents[0])


@pytest.mark.parametrize("method", INTERPOLATIONS)
def test_the_encoded_picture_is_enlarged_with_the_method(webui, picture, method):
    p = webui.process(picture)
    made = webui.run(p, {"method": method}).latents[0]
    torch.manual_seed(p.seed)
    small = webui.modules["modules.processing"].images_tensor_to_samples(
        torch.from_numpy(np.array(picture, dtype=np.float32).transpose(2, 0, 1) / 255)[None]
    )
    assert made.shape == (1, 4, 16, 16)
    assert torch.equal(made, INTERPOLATIONS[method](small, (16, 16)))


@pytest.mark.parametrize("scheduler", SCHEDULES)
@pytest.mark.parametrize("strength", [0.2, 0.5, 1.0])
def test_exactly_the_asked_steps_run_along_the_scheduler(webui, picture, scheduler, strength):
    p = webui.process(picture, steps=6, denoising_strength=strength)
    webui.run(p, "area", scheduler)
    whole = get_sigmas(scheduler, int(6 / min(strength, 0.999)), TABLE)
    assert torch.equal(p.sampler.ran, whole[-7:])


def test_without_exact_steps_the_host_cuts(webui, picture):
    p = webui.process(picture, steps=10, denoising_strength=0.45)
    webui.run(p, "area", "karras", False)
    assert torch.equal(p.sampler.ran, get_sigmas("karras", 10, TABLE)[-6:])


def test_a_penultimate_sigma_that_the_sampler_drops_is_given(webui, picture, discarding_sampler):
    p = webui.process(picture, steps=6, next_sampler=discarding_sampler)
    webui.run(p, "area", "karras")
    whole = get_sigmas("karras", 13, TABLE)
    assert torch.equal(p.sampler.ran, torch.cat([whole[-8:-2], whole[-1:]]))


@pytest.mark.parametrize("scheduler", ["karras", "simple", "exponential"])
@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("discards", [True, False])
def test_matched_noise_starts_where_normal_does(webui, picture, scheduler, exact, discards, discarding_sampler):
    sampler = discarding_sampler if discards else None
    p = webui.process(picture, steps=8, denoising_strength=0.6, next_sampler=sampler)
    webui.run(p, {"scheduler": scheduler, "exact_steps": exact, "matched_noise": True})
    normal = get_sigmas("normal", 13, TABLE)[-9:]  # the asked steps, with "Exact steps" or without
    assert len(p.sampler.ran) == len(normal)
    assert p.sampler.ran[0] == normal[0]
    assert (p.sampler.ran.diff() < 0).all()


def test_a_noise_schedule_that_was_changed_counts_at_once(webui, picture, plain_sampler):
    """The host applies its option for zero terminal SNR only after `init`, where the sampler has read the model's."""
    plain_sampler.model_wrap.sigmas = TABLE * 300

    def rescale(_model, p):
        p.next_sampler = plain_sampler

    webui.modules["modules.sd_models"].apply_alpha_schedule_override = rescale
    p = webui.process(picture, denoising_strength=1.0)
    webui.run(p, "area", "simple")
    assert p.sampler.ran[0].item() == pytest.approx(300 * 14.6)


def test_a_model_that_reforge_changes_itself_is_left_alone(webui, picture):
    """It keeps what it finds before a sampling as the model's original schedule, and puts that back."""
    seen = []
    webui.modules["modules.sd_models"].apply_alpha_schedule_override = lambda *_: seen.append("changed")
    unet = SimpleNamespace(model=SimpleNamespace(model_sampling=object()))
    webui.run(webui.process(picture, sd_model=SimpleNamespace(forge_objects=SimpleNamespace(unet=unet))))
    assert seen == []


@pytest.mark.parametrize(
    ("host", "is_api", "shown"),
    [("v1.10.1", False, True), ("Forge", False, True), ("reForge", False, False), ("reForge", True, True)],
)
def test_what_is_refused_is_said_on_every_page(webui, picture, monkeypatch, host, is_api, shown):
    """reForge's page shows nothing of what a script raises."""
    thread = {"Forge": {"last_exception": None}, "reForge": {}}.get(host)
    if thread is not None:
        monkeypatch.setitem(sys.modules, "modules_forge.main_thread", SimpleNamespace(**thread))
    made = webui.modules["modules.processing"]
    made.Processed = lambda p, pictures: SimpleNamespace(images=pictures, comments=p.comments)
    p = webui.process(picture, is_api=is_api)
    if shown:
        with pytest.raises(ValueError, match="method is 'no such'; choose one of"):
            webui.run(p, "no such")
    else:
        answer = webui.run(p, "no such")
        assert answer.images == []
        assert "method is 'no such'; choose one of" in answer.comments[0]


def test_the_persons_own_ends_of_schedules_count(webui, picture):
    webui.options.sigma_max, webui.options.sigma_min, webui.options.rho = 5.0, 0.1, 0
    p = webui.process(picture, denoising_strength=1.0)
    written = webui.run(p, "area", "karras").infotexts[0]
    assert p.sampler.ran[0].item() == pytest.approx(5.0)
    assert p.sampler.ran[-2].item() == pytest.approx(0.1)
    assert (written["Schedule max sigma"], written["Schedule min sigma"]) == (5.0, 0.1)


def test_a_sampler_without_sigmas_is_said_and_runs_its_own(webui, picture, timestep_sampler):
    p = webui.process(picture, next_sampler=timestep_sampler, sampler_name="DDIM")
    processed = webui.run(p, "area", "karras")
    assert p.sampler.steps == 4
    assert "DDIM ignores sigmas" in processed.comments[0]
    written = processed.infotexts[0]
    assert written["Latent upscale scheduler"] == "automatic"
    assert written["Schedule type"] == "Automatic"
    assert "DDIM ignores sigmas" in written["Latent upscale note"]


@pytest.mark.parametrize(("name", "left_out"), [("DDIM", 2), ("DDIM CFG++", 2), ("PLMS", 1), ("UniPC", 1), ("Own", 0)])
def test_steps_are_called_exact_only_where_they_are(webui, picture, timestep_sampler, name, left_out):
    """v1.10.1 hands these samplers one timestep less than steps, and DDIM makes no call for the last one."""
    timestep_sampler.left_out = left_out
    p = webui.process(picture, next_sampler=timestep_sampler, sampler_name=name, steps=20, n_iter=2)
    processed = webui.run(p, "area", "automatic")
    said = f"not exactly 20 steps: {name} of this WebUI ran the model {20 - left_out} times."
    assert [text for text in processed.comments if "not exactly" in text] == [f"Latent Upscale: {said}"] * bool(
        left_out
    )
    assert [infotext.get("Latent upscale note") for infotext in processed.infotexts] == [said if left_out else None] * 2
    assert not timestep_sampler.model_wrap_cfg._forward_pre_hooks, "nothing is left on the host's model"


def test_an_interrupted_picture_is_not_said_to_be_short_of_steps(webui, picture, timestep_sampler):
    timestep_sampler.left_out = 2
    timestep_sampler.model_wrap_cfg.register_forward_pre_hook(
        lambda *_: setattr(webui.modules["modules.shared"].state, "interrupted", True)
    )
    p = webui.process(picture, next_sampler=timestep_sampler, sampler_name="DDIM", steps=20)
    assert not [text for text in webui.run(p, "area", "automatic").comments if "not exactly" in text]


@pytest.mark.parametrize("asked", [{"starting_noise": "continuous"}, {"matched_noise": True}])
def test_the_infotext_of_a_sampler_without_sigmas_can_be_used_again(webui, picture, timestep_sampler, asked):
    p = webui.process(picture, next_sampler=timestep_sampler, sampler_name="DDIM")
    processed = webui.run(p, {"method": "area", "scheduler": "karras", **asked})
    again = UpscaleSettings.from_infotext(processed.infotexts[0])
    assert again == UpscaleSettings("area", AUTOMATIC)
    assert f"karras and the {asked.get('starting_noise', 'matched')} starting noise" in processed.comments[0]


def test_denoising_strength_zero_runs_nothing(webui, picture):
    p = webui.process(picture, denoising_strength=0.0)
    processed = webui.run(p)
    assert p.sampler.ran is None
    assert processed.latents[0].shape == (1, 4, 16, 16)
    assert "no step ran" in processed.comments[0]


def test_every_picture_of_a_batch_is_the_one_made_alone(webui, picture):
    together = webui.run(webui.process(picture, batch_size=2, n_iter=2)).latents
    alone = [webui.run(webui.process(picture, seed=7 + index)).latents[0] for index in range(4)]
    assert torch.equal(torch.cat(together), torch.cat(alone))
    assert not torch.equal(alone[0], alone[1])


def test_several_pictures_of_other_sizes(webui, picture):
    wide = picture.resize((96, 40))
    latents = webui.run(webui.process(picture, wide, batch_size=2)).latents[0]
    assert torch.equal(latents[1:], webui.run(webui.process(wide, seed=8)).latents[0])


def test_sides_that_are_no_multiples_of_eight_come_out_exactly(webui, picture):
    processed = webui.run(webui.process(picture, width=100, height=93))
    assert processed.images[0].size == (100, 93)
    assert processed.infotexts[0]["Size"] == "100x93"
    assert (processed.width, processed.height) == (100, 93)
    assert processed.latents[0].shape[-2:] == (12, 13)


@pytest.mark.parametrize(("mode", "box"), [(0, (0, 0, 96, 64)), (1, (16, 0, 80, 64)), (3, (0, 0, 96, 64))])
def test_resize_modes_are_honoured(webui, picture, mode, box):
    wide = picture.resize((96, 64))
    made, cropped = (
        webui.run(webui.process(given, resize_mode=how), {"method": "nearest-exact"}).latents[0]
        for given, how in ((wide, mode), (wide.crop(box), 0))
    )
    assert torch.equal(made, cropped)


class TestMasks:
    def mask(self, box=(16, 16, 48, 48)):
        mask = Image.new("L", (64, 64))
        mask.paste(255, box)
        return mask

    def test_the_host_sees_pictures_of_the_target_size(self, webui, picture):
        p = webui.process(picture, image_mask=self.mask())
        assert webui.run(p).latents[0].shape[-2:] == (16, 16)
        assert p.encoded.shape[-2:] == (128, 128)

    def test_a_region_is_encoded_small_and_pasted_into_the_enlarged_picture(self, webui, picture):
        seen = {}

        def look(p):
            seen.update(paste_to=p.paste_to, overlay=p.overlay_images[0], pictures=p.init_images)

        p = webui.process(picture, image_mask=self.mask(), inpaint_full_res=True, width=256, height=128)
        own_sample = p.sample
        p.sample = lambda **values: (look(p), own_sample(**values))[1]
        interpolated = {"method": "nearest-exact"}
        latents = webui.run(p, interpolated).latents[0]
        region = webui.process(picture.crop((16, 16, 48, 48)), width=256, height=128)
        region = webui.run(region, interpolated).latents[0]
        assert torch.equal(latents, region)
        assert seen["paste_to"] == (64, 32, 128, 64)
        assert seen["overlay"].size == (256, 128)
        assert seen["pictures"][0].size == (256, 128)
        enlarged = np.asarray(picture.resize((256, 128), Image.Resampling.LANCZOS))
        overlay = np.asarray(seen["overlay"])
        assert (overlay[:16, :32, 3] == 255).all()
        assert (overlay[..., :3] == enlarged).all()
        assert overlay[64, 128, 3] == 0

    def test_filled_content_reaches_the_latents(self, webui, picture):
        blocks = {"method": "nearest-exact"}  # each cell by itself
        plain = webui.run(webui.process(picture, image_mask=self.mask()), blocks).latents[0]
        filled = webui.run(webui.process(picture, image_mask=self.mask(), inpainting_fill=0), blocks).latents[0]
        inside, outside = (slice(6, 10), slice(6, 10)), (slice(0, 2), slice(0, 2))
        assert not torch.equal(plain[(..., *inside)], filled[(..., *inside)])
        assert torch.equal(plain[(..., *outside)], filled[(..., *outside)])


class TestNothingIsLeftBehind:
    @pytest.mark.parametrize("failing", ["", "init", "sample"])
    def test_the_object_and_the_host_are_as_before(self, webui, picture, failing):
        p = webui.process(picture, fails_in=failing)
        own_encode = webui.modules["modules.processing"].images_tensor_to_samples
        host_options = dict(vars(webui.options))
        watched = ("width", "height", "resize_mode", "init_images", "extra_generation_params", "init", "sample")
        before = {name: getattr(p, name) for name in (*watched, "sampler_noise_scheduler_override", "paste_to")}
        generator = torch.get_rng_state()
        if failing:
            with pytest.raises(MemoryError):
                webui.run(p)
        else:
            webui.run(p)
        assert {name: getattr(p, name) for name in before} == before
        assert "latent_upscale" not in vars(p)
        assert webui.modules["modules.processing"].images_tensor_to_samples is own_encode
        assert vars(webui.options) == host_options
        assert torch.equal(torch.get_rng_state(), generator)
        assert p.override_settings == {}

    def test_shared_dictionaries_are_not_written_to(self, webui, picture):
        shared = {"ControlNet": "x"}
        written = webui.run(webui.process(picture, extra_generation_params=shared)).infotexts[0]
        assert written["ControlNet"] == "x"
        assert shared == {"ControlNet": "x"}

    def test_a_second_encode_within_init_is_the_hosts(self, webui, picture):
        """Depth models encode once more."""
        p = webui.process(picture)
        own_init = p.init
        later = []

        def init(*args):
            own_init(*args)
            later.append(webui.modules["modules.processing"].images_tensor_to_samples(torch.zeros(1, 3, 64, 64)))

        p.init = init
        webui.run(p)
        assert later[0].shape == (1, 4, 8, 8)

    def test_a_host_that_encodes_elsewhere_is_an_error(self, webui, picture):
        p = webui.process(picture)
        p.init = lambda *_: None
        with pytest.raises(RuntimeError, match="does not encode where expected"):
            webui.run(p)


def test_infotext_settings_and_defaults(webui, picture):
    written = webui.run(webui.process(picture), "lanczos", "karras", False, True).infotexts[0]
    assert dict(written) == {
        "Size": "128x128",
        "Script": "Latent Upscale",
        "Latent upscale method": "lanczos",
        "Latent upscale scheduler": "karras",
        "Latent upscale exact steps": "False",
        "Latent upscale keep statistics": "True",
        "Latent upscale matched noise": "False",
    }


def test_bilinear_is_not_resized_twice(webui, picture):
    """The host's own resize of the latents would blur them again."""
    p = webui.process(picture)
    latent = webui.run(p, LIKE_HOST).latents[0]
    assert not torch.equal(latent, F.interpolate(latent, scale_factor=0.5, mode="nearest"))
    assert p.resize_mode == 3
