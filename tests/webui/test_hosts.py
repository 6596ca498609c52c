"""What hosts do differently, each by a double of its contract.

Read in ersatzForge at fca12a2 ("ersatzForge" below), in exo101/sd-webui-forge-neo-v3 at 5692d2d, which holds Forge Neo
2.26 ("Neo"), and of Forge Classic what the X/Y/Z plot script imports.
"""

import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from lib_latent_upscale.interpolation import INTERPOLATIONS, interpolate_latent
from tests.webui.host_double import Flux, ScheduleLinker

ERSATZ = {"encodes_in": "sd_samplers_common", "composite_first": True}


def changed(webui, **values):
    processing = webui.modules["modules.processing"]
    processing.ways = replace(processing.ways, **values)
    if values.get("encodes_in") == "sd_samplers_common":
        del processing.images_tensor_to_samples
    return processing


class Format:
    """`process_in` of a latent format or an autoencoder, as reForge, Forge, Neo and ersatzForge write it."""

    def __init__(self, scale, shift=0.0):
        self.scale, self.shift = scale, shift

    def process_in(self, latent):
        return (latent - self.shift) * self.scale


def forge(made, channels, **flags):
    autoencoder = SimpleNamespace(first_stage_model=made, latent_channels=channels)
    return SimpleNamespace(forge_objects=SimpleNamespace(vae=autoencoder), **flags)


def reforge(made):
    unet = SimpleNamespace(model=SimpleNamespace(latent_format=made))
    return SimpleNamespace(forge_objects=SimpleNamespace(unet=unet, vae=SimpleNamespace(first_stage_model=None)))


class TestWhoseLatents:
    @pytest.mark.parametrize(
        ("model", "family"),
        [
            (SimpleNamespace(is_sd1=True, is_sdxl=False), "sd1"),
            (SimpleNamespace(is_sd1=False, is_sd2=True), "sd1"),
            (SimpleNamespace(is_sdxl=True, is_ssd=True), "sdxl"),
            (SimpleNamespace(is_sd3=True, latent_format=Format(1.5305, 0.0609)), "sd3"),
            (forge(Format(0.18215), 4, is_sd1=True), "sd1"),
            (forge(Format(0.13025), 4, is_sdxl=True), "sdxl"),
            (forge(Format(1.5305, 0.0609), 16, is_sd3=True), "sd3"),
            (forge(Format(0.3611, 0.1159), 16), "flux1"),  # Forge has no name for Flux, Chroma and Lumina 2
            (reforge(Format(0.3611, 0.1159)), "flux1"),
            (SimpleNamespace(is_lumina2=True), "flux1"),
            (SimpleNamespace(is_flux=True), "flux1"),
            (SimpleNamespace(), None),
            (forge(Format(0.13025), 32, is_sdxl=True), None),  # another autoencoder's
            (forge(Format(1.0), 3, is_chromaDCT=True), None),
            (reforge(Format(torch.full((1, 4, 1, 1), 0.06), torch.zeros(1, 4, 1, 1))), None),  # Playground 2.5
            (forge(Format(torch.ones(1, 16, 1, 1, 1)), 16, is_wan=True), None),
            (SimpleNamespace(is_flux2=True, is_flux=True), None),
        ],
        ids=str,
    )
    def test_are_known_by_what_the_host_makes_of_the_autoencoders_numbers(self, webui, model, family):
        assert webui.adapter("host.models").latent_family(model) == family


class TestWhatIsNotThere:
    def test_without_the_function_for_noise_schedules_a_picture_is_made(self, webui, picture):
        del webui.modules["modules.sd_models"].apply_alpha_schedule_override
        assert webui.run(webui.process(picture)).images[0].size == (128, 128)

    def test_an_encode_that_is_called_through_its_module_is_replaced_there(self, webui, picture):
        expected = webui.run(webui.process(picture), {"method": "lanczos"}).latents[0]
        changed(webui, **ERSATZ)
        common = webui.modules["modules.sd_samplers_common"]
        own = common.images_tensor_to_samples
        assert torch.equal(webui.run(webui.process(picture), {"method": "lanczos"}).latents[0], expected)
        assert common.images_tensor_to_samples is own

    def test_noise_that_wants_three_sides_is_drawn(self, webui, picture):
        """ersatzForge's Perlin noise."""

        def perlin(seed, shape, generator):
            _, height, width = shape
            return torch.manual_seed(seed), height, width

        webui.modules["modules.rng"].randn = perlin
        assert webui.run(webui.process(picture)).images[0].size == (128, 128)

    def test_an_option_for_exact_steps_that_is_not_there_is_not_made(self, webui, picture):
        webui.options.data.clear()
        webui.run(webui.process(picture))
        assert not webui.options.data

    def test_axes_appear_where_the_script_imports_only_some_of_their_classes(self, webui):
        """Forge Classic and upstream Neo: the class is in `lib_xyz.classes`."""
        grid = webui.modules["modules.scripts"].scripts_data[0].module
        kept = ModuleType("lib_xyz.classes")
        kept.AxisOptionImg2Img = grid.AxisOptionImg2Img
        del grid.AxisOptionImg2Img
        grid.AxisOption = type("AxisOption", (), {"__module__": "lib_xyz.classes"})
        grid.axis_options.clear()
        sys.modules["lib_xyz.classes"] = kept
        try:
            webui.reload()
        finally:
            del sys.modules["lib_xyz.classes"]
        assert "[Latent Upscale] Method" in [axis.label for axis in webui.axes]


class TestHooksInEitherOrder:
    @pytest.mark.parametrize("composite_first", [False, True])
    def test_pictures_of_a_batch_have_the_asked_size(self, webui, picture, composite_first):
        changed(webui, composite_first=composite_first)
        processed = webui.run(webui.process(picture, width=100, height=92, batch_size=3))
        assert [made.size for made in processed.images] == [(100, 92)] * 3

    @pytest.mark.parametrize("composite_first", [False, True])
    def test_what_a_pass_has_enlarged_stays_so(self, webui, picture, composite_first, monkeypatch):
        changed(webui, composite_first=composite_first)
        passes = SimpleNamespace(size=None, finish=lambda made: made.resize((400, 368)), arrange_mask=lambda _: None)
        monkeypatch.setattr(webui.script_module, "passes_of", lambda _: passes)
        monkeypatch.setattr(passes, "uninstall", lambda: None, raising=False)
        processed = webui.run(webui.process(picture, width=100, height=92, batch_size=2))
        assert [made.size for made in processed.images] == [(400, 368)] * 2

    @pytest.mark.parametrize("composite_first", [False, True])
    def test_what_is_pasted_over_has_the_pictures_size(self, webui, picture, composite_first):
        """At 100x92 the host works at 104x96; ersatzForge pastes before it lets anybody change the picture's size."""
        p = webui.process(picture, width=100, height=92)
        upscale = webui.adapter("run.latent_upscale").LatentUpscale(p, default(webui))
        shown = SimpleNamespace(image=Image.new("RGB", (104, 96), "red"))
        overlay = Image.new("RGBA", (104, 96), "blue")
        overlay.paste((0, 0, 0, 0), (52, 0, 104, 96))
        pasted = SimpleNamespace(overlay_image=overlay, mask_for_overlay=Image.new("L", (104, 96)))
        with upscale.installed():
            if not composite_first:
                webui.companion.postprocess_image(p, shown)
            webui.companion.postprocess_maskoverlay(p, pasted)
            shown.image = Image.alpha_composite(shown.image.convert("RGBA"), pasted.overlay_image).convert("RGB")
            webui.companion.postprocess_image_after_composite(p, shown)
            if composite_first:
                webui.companion.postprocess_image(p, shown)
        pixels = np.asarray(shown.image)
        assert shown.image.size == (100, 92)
        assert (pixels[:, :48] == (0, 0, 255)).all()
        assert (pixels[:, 53:] == (255, 0, 0)).all()

    def test_a_precise_mask_is_fitted_with_its_picture(self, webui, picture):
        """Neo's option `img2img_inpaint_precise_mask`: the overlay is (picture, shares of the result)."""
        p = webui.process(picture, width=100, height=92)
        upscale = webui.adapter("run.latent_upscale").LatentUpscale(p, default(webui))
        share = np.zeros((96, 104), np.float32)
        share[:, 52:] = 1
        pasted = SimpleNamespace(
            overlay_image=(Image.new("RGB", (104, 96), "blue"), share), mask_for_overlay=Image.new("L", (104, 96))
        )
        with upscale.installed():
            webui.companion.postprocess_image(p, SimpleNamespace(image=Image.new("RGB", (104, 96))))
            webui.companion.postprocess_maskoverlay(p, pasted)
        below, mask = pasted.overlay_image
        assert below.size == (100, 92)
        assert mask.shape == (92, 100)
        assert (mask.min(), mask.max()) == (0, 1)
        assert (mask[:, :46] == 0).all()
        assert (mask[:, 54:] == 1).all()


def default(webui):
    return webui.adapter("host.options").default_settings(sys.modules["lib_latent_upscale.settings"].UpscaleSettings)


class TestSizes:
    @pytest.mark.parametrize(("asked", "worked"), [((64, 200), (64, 192)), ((100, 92), (128, 128)), ((64, 128), None)])
    def test_a_host_that_rounds_gives_the_asked_size_and_writes_it(self, webui, picture, asked, worked):
        """Neo's derivative rounds to multiples of 64 when our sides stand already."""
        changed(webui, rounds_to=64)
        p = webui.process(picture, width=asked[0], height=asked[1])
        processed = webui.run(p)
        assert processed.infotexts[0]["Size"] == f"{asked[0]}x{asked[1]}"
        assert processed.images[0].size == asked
        assert p.sampler.latent.shape[:1:-1] == tuple(side // 8 for side in worked or asked)

    def test_another_size_than_the_asked_one_is_said_unless_it_is_a_rounded_one(self, webui, picture):
        """Tiled Diffusion, with "Keep input image size" as it is by default, sets the small picture's size."""
        for rounds_to, said in ((64, 0), (256, 1)):
            changed(webui, rounds_to=rounds_to)
            p = webui.process(picture, width=136, height=128)
            assert webui.run(p).images[0].size == (136, 128)
            assert len([text for text in p.comments if "set the size to 256x256" in text]) == said

    def test_the_models_own_cells_count_when_it_is_loaded(self, webui, picture):
        """Both hosts set `opt_f` with the checkpoint; it is 16 for Flux.2."""

        def load():
            processing.opt_f = 16

        processing = changed(webui, loads=load)
        sizes = cells_of(webui, channels=128, cell=16)
        p = webui.process(picture, width=200, height=184)
        processed = webui.run(p, {"method": "nearest-exact"})
        assert sizes == [(64, 64)]
        assert p.sampler.latent.shape == (1, 128, 12, 13)
        assert processed.infotexts[0]["Size"] == "200x184"

    def test_packed_cells_are_enlarged_as_neighbours(self, webui, picture):
        processing = webui.modules["modules.processing"]
        processing.opt_f = 16
        ramp = torch.arange(8.0).expand(1, 32, 8, 8)
        processing.images_tensor_to_samples = lambda *_: torch.pixel_unshuffle(ramp, 2)
        p = webui.process(picture)
        webui.run(p, {"method": "bilinear"})
        row = torch.pixel_shuffle(p.sampler.latent, 2)[0, 5, 8]
        assert row[2:-2].diff().tolist() == pytest.approx([0.5] * 11)

    def test_a_transformer_gets_whole_patches(self, webui, picture):
        """1080 pixels are 135 cells, and Flux takes two at a time (lllyasviel/stable-diffusion-webui-forge #2623)."""
        model = SimpleNamespace(
            forge_objects=SimpleNamespace(unet=SimpleNamespace(model=SimpleNamespace(diffusion_model=TRANSFORMER)))
        )
        p = webui.process(picture, width=120, height=136, sd_model=model)
        processed = webui.run(p)
        assert p.sampler.latent.shape[-2:] == (18, 16)
        assert processed.images[0].size == (120, 136)
        assert processed.infotexts[0]["Size"] == "120x136"

    @pytest.mark.parametrize(("asked", "worked"), [((120, 136), (128, 144)), ((100, 92), (112, 96)), ((96, 128), None)])
    def test_a_host_that_rounds_down_for_its_model_cuts_nothing(self, webui, picture, asked, worked):
        """v1.10.1 with SD 3 (82a973c): sides become multiples of 16 before `init`; its patches are 2x2 cells."""
        model = SimpleNamespace(
            fix_dimensions=lambda width, height: (width // 16 * 16, height // 16 * 16),
            model=SimpleNamespace(diffusion_model=SimpleNamespace(patch_size=2)),
        )
        p = webui.process(picture, width=asked[0], height=asked[1], sd_model=model)
        processed = webui.run(p)
        assert p.sampler.latent.shape[:1:-1] == tuple(side // 8 for side in worked or asked)
        assert processed.images[0].size == asked
        assert processed.infotexts[0]["Size"] == f"{asked[0]}x{asked[1]}"


TRANSFORMER = SimpleNamespace(patch_size=(1, 2, 2))


def cells_of(webui, *, channels, cell):
    """Let the encode give latents of another kind; what is encoded is kept as (width, height)."""
    sizes = []

    def encode(pictures, *_):
        sizes.append(tuple(pictures.shape[:1:-1]))
        means = torch.nn.functional.avg_pool2d(pictures, cell).mean(1, keepdim=True)
        return means.repeat(1, channels, 1, 1)

    webui.modules["modules.processing"].images_tensor_to_samples = encode
    return sizes


class TestFrames:
    """Wan, Qwen-Image, Anima and Krea in Neo: (batch, 16, 1, h, w)."""

    def still(self, webui):
        def encode(pictures, *_):
            means = torch.nn.functional.avg_pool2d(pictures, 8).mean(1, keepdim=True)
            return means.repeat(1, 16, 1, 1)[:, :, None]

        webui.modules["modules.processing"].images_tensor_to_samples = encode
        return encode

    @pytest.mark.parametrize("method", INTERPOLATIONS)
    def test_a_still_is_enlarged(self, webui, picture, method):
        """A latent of (1, 16, 1, 12, 12) ended Neo (sd-webui-forge-classic #675, #1146)."""
        encode = self.still(webui)
        picture = picture.resize((96, 96))
        pixels = torch.from_numpy(np.asarray(picture, np.float32).transpose(2, 0, 1)[None] / 255)
        p = webui.process(picture, width=144, height=144)
        p.sampler = None
        latent = made_latent(webui, p, {"method": method})
        expected = interpolate_latent(encode(pixels)[:, :, 0], (18, 18), method)
        assert torch.equal(latent, expected[:, :, None])

    def test_a_batch_that_is_a_video_is_refused_before_any_work(self, webui, picture, monkeypatch):
        arguments = ModuleType("backend.args")
        arguments.dynamic_args = SimpleNamespace(wan=True)
        monkeypatch.setitem(sys.modules, "backend.args", arguments)
        p = webui.process(picture, batch_size=5, sd_model=SimpleNamespace(is_wan=True))
        with pytest.raises(ValueError, match="a batch size of 5 makes a video with this model"):
            webui.run(p)
        p.batch_size = 1
        webui.run(p)

    def test_a_batch_that_the_host_makes_smaller_is_noted(self, webui, picture, monkeypatch):
        """Neo makes a still of 2 to 4 frames of Wan: (4 * ((batch - 1) // 4) + 1), before `init`."""
        processing = webui.modules["modules.processing"]
        own = processing.process_images

        def rounded(p):
            p.batch_size = 1
            return own(p)

        monkeypatch.setattr(processing, "process_images", rounded)
        result = webui.run(webui.process(picture, batch_size=2))
        assert result.infotexts[0]["Latent upscale note"] == (
            "the WebUI makes 1 instead of 2 pictures of a batch with this model; use Batch count for several."
        )
        assert "Latent upscale note" not in webui.run(webui.process(picture, batch_size=1)).infotexts[0]


def made_latent(webui, p, given):
    """The latent that the sampler gets; the double cannot show one with frames."""
    seen = []

    class EnoughError(Exception):
        pass

    def sample(**_):
        seen.append(p.init_latent)
        raise EnoughError

    p.sample = sample
    with pytest.raises(EnoughError):
        webui.run(p, given)
    return seen[0]


class TestExactStepsAreTold:
    """Other extensions ask the option how many steps run (`setup_img2img_steps` without steps)."""

    def during(self, webui, picture, given, **values):
        p = webui.process(picture, **values)
        sample, seen = p.sample, []
        p.sample = lambda **kwargs: (seen.append(webui.options.img2img_fix_steps), sample(**kwargs))[1]
        webui.run(p, given)
        return seen

    @pytest.mark.parametrize("before", [False, True])
    def test_the_option_is_on_while_a_picture_is_made_and_then_as_it_was(self, webui, picture, before):
        webui.options.data["img2img_fix_steps"] = before
        assert self.during(webui, picture, {}, n_iter=2) == [True, True]
        assert webui.options.data["img2img_fix_steps"] is before

    def test_settings_saved_meanwhile_keep_what_the_user_has_chosen(self, webui, picture):
        p = webui.process(picture)
        sample, saved = p.sample, []
        p.sample = lambda **kwargs: (saved.append(dict(webui.options.data)), sample(**kwargs))[1]
        webui.run(p)
        assert saved == [{"img2img_fix_steps": False}]

    def test_a_choice_that_is_made_meanwhile_stays(self, webui, picture):
        p = webui.process(picture)
        sample = p.sample
        p.sample = lambda **kwargs: (setattr(webui.options, "img2img_fix_steps", True), sample(**kwargs))[1]
        webui.run(p)
        assert webui.options.img2img_fix_steps is True

    def test_without_exact_steps_it_is_the_persons(self, webui, picture):
        assert self.during(webui, picture, {"exact_steps": False}) == [False]

    @pytest.mark.parametrize("failing", ["init", "sample"])
    def test_after_an_error_it_is_as_it_was(self, webui, picture, failing):
        with pytest.raises(MemoryError):
            webui.run(webui.process(picture, fails_in=failing))
        assert webui.options.data == {"img2img_fix_steps": False}

    def test_a_key_that_did_not_stand_there_does_not_afterwards(self, webui, picture):
        """After loading a file without it the host knows only the option's default, and would keep an override."""
        del webui.options.data["img2img_fix_steps"]
        webui.run(webui.process(picture))
        assert webui.options.data == {}

    def test_x_y_z_plot_tells_it_too(self, webui, picture):
        p = webui.process(picture, fails_in="sample")
        p.latent_upscale_axes = {"method": "bicubic"}
        with pytest.raises(MemoryError):
            webui.host_alone(p)
        assert webui.options.data == {"img2img_fix_steps": False}


class TestTables:
    FLOW = torch.linspace(0.001, 1, 1000)

    def loaded(self, webui, **model):
        webui.modules["modules.sd_models"].model_data.sd_model = SimpleNamespace(**model)
        return webui.adapter("host.models").loaded_model().sigmas()

    def forge(self, **predictor):
        return SimpleNamespace(unet=SimpleNamespace(model=SimpleNamespace(predictor=SimpleNamespace(**predictor))))

    def test_a_flow_models_own_table_counts_whatever_a_sampler_has_left_on_it(self, webui):
        sigmas = self.loaded(webui, forge_objects=self.forge(sigmas=self.FLOW), alphas_cumprod=torch.ones(1000) / 2)
        assert torch.equal(sigmas, self.FLOW)

    def test_zero_terminal_snr_leaves_a_flow_model_alone(self, webui):
        webui.options.sd_noise_schedule = "Zero Terminal SNR"
        assert torch.equal(self.loaded(webui, forge_objects=self.forge(sigmas=self.FLOW)), self.FLOW)

    def test_zero_terminal_snr_without_the_hosts_function(self, webui):
        """The last sigma is 4518.7: the hosts keep 4.897e-8 of the signal's variance there; the first stays."""
        webui.options.sd_noise_schedule = "Zero Terminal SNR"
        kept = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2).cumprod(0)
        sigmas = self.loaded(webui, alphas_cumprod_original=kept)
        assert sigmas[-1].item() == pytest.approx(4518.7, rel=1e-4)
        assert sigmas[0].item() == pytest.approx(0.0292, rel=1e-2)
        assert (sigmas.diff() > 0).all()

    def test_extra_noise_is_said_to_spoil_a_flow_models_picture(self, webui, picture, plain_sampler):
        webui.options.img2img_extra_noise = 0.1
        webui.run(webui.process(picture))
        plain_sampler.model_wrap.sigmas = self.FLOW
        p = webui.process(picture, next_sampler=plain_sampler)
        webui.run(p)
        assert [text for text in p.comments if "Extra noise spoils" in text]

    @pytest.mark.parametrize(
        ("schedule_type", "settings", "said"),
        [
            ("Automatic", {"scheduler": "automatic"}, "starts from σ 4000 "),
            ("Automatic", {"scheduler": "simple"}, ""),
            ("Karras", {"scheduler": "automatic"}, ""),
        ],
    )
    def test_a_schedule_far_above_pure_noise_is_said(
        self, webui, picture, plain_sampler, monkeypatch, schedule_type, settings, said
    ):
        """Forge's and ersatzForge's "Automatic" with Flux.1: the picture is black."""
        monkeypatch.setattr("k_diffusion.external.ForgeScheduleLinker", ScheduleLinker, raising=False)
        flux = Flux()
        webui.modules["modules.sd_models"].model_data.sd_model = flux.loaded()
        plain_sampler.model_wrap.sigmas = flux.sigmas
        p = webui.process(picture, next_sampler=plain_sampler, steps=3, denoising_strength=0.5)
        p.scheduler = schedule_type
        webui.run(p, settings)
        noted = "".join(text for text in p.comments if "pure noise is 1" in text)
        assert (said in noted) if said else not noted


def test_a_call_during_the_start_is_refused_instead_of_running_with_defaults(webui, picture):
    """Until the page is built the API hands over the caller's list alone."""
    p = webui.process(picture)
    p.script_args = [{"method": "bislerp"}]
    with pytest.raises(ValueError, match="the WebUI is still starting"):
        webui.script.run(p)


def test_a_blur_that_has_one_number_is_set_as_one(webui):
    """Neo: `mask_blur_x` and `mask_blur_y` can only be read."""

    class OneNumber:
        mask_blur = 4
        mask_blur_x = mask_blur_y = property(lambda self: self.mask_blur)

    blurred = webui.adapter("host.processing").blurred
    assert blurred(OneNumber(), 2.5) == {"mask_blur": 10}
    assert blurred(SimpleNamespace(mask_blur_x=4, mask_blur_y=2), 2.5) == {"mask_blur_x": 10, "mask_blur_y": 5}
