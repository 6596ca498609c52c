"""The x4 upscaler as the last pass, on a double of the host."""

import copy
import struct
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from lib_latent_upscale.errors import OutOfMemory
from lib_latent_upscale.x4_upscaler import X4Settings, load_x4, upscale_x4
from tests.webui.x4_double import fail


class TestRefusals:
    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({"x4_noise_level": -1}, "x4_noise_level is -1; an integer from 0 to 349"),
            ({"x4_noise_level": 350}, "x4_noise_level is 350"),
            ({"x4_noise_level": 3.5}, "x4_noise_level is 3.5"),
            ({"x4_tile": 7}, "x4_tile is 7; an integer from 32 to 2048 in steps of 8, or 0"),
            ({"x4_sampler": "DDIMM"}, "x4_sampler is 'DDIMM'; choose one of: DPM++ 2M"),
            ({"x4_model": "large"}, "x4_model is 'large'; choose one of: small"),
            ({"x4_model": "../x4-upscaler/small"}, "choose one of: small"),
            ({"x4": 1}, "x4 is 1; choose True or False"),
            ({"x4_steps": 3, "x4": None}, "x4 is None"),
        ],
        ids=str,
    )
    def test_bad_values_are_refused_before_any_work(self, webui, picture, models, given, said):
        assert said in self.refused(webui, picture, {"x4": True, **given})

    def refused(self, webui, picture, given):
        p = webui.process(picture)
        p.init = lambda *_: pytest.fail("work has begun")
        with pytest.raises(ValueError, match="Latent Upscale: ") as refused:
            webui.run(p, given)
        assert refused.value.status_code == 422
        return str(refused.value)

    def test_a_sampler_that_the_host_does_not_have(self, webui, picture, models, monkeypatch):
        """Forge Neo's k_diffusion has no `sample_dpm_2_ancestral`."""
        monkeypatch.delattr("k_diffusion.sampling.sample_dpm_2_ancestral")
        said = self.refused(webui, picture, {"x4": True, "x4_sampler": "DPM2 a"})
        assert "x4_sampler is 'DPM2 a', which this WebUI's k_diffusion does not have; choose one of: DPM++ 2M" in said
        assert said.count("DPM2 a") == 1

    def test_a_path_is_no_name(self, webui, picture, models, small):
        assert "choose one of: small" in self.refused(webui, picture, {"x4": True, "x4_model": str(small)})

    def test_settings_without_the_pass(self, webui, picture, models):
        said = self.refused(webui, picture, {"x4_steps": 3})
        assert "x4_steps: only with x4" in said

    def test_no_model_is_there(self, webui, picture, models):
        (models / "small").unlink()
        said = self.refused(webui, picture, {"x4": True})
        assert (
            f"put x4-upscaler-ema.safetensors, or the folder of stabilityai/stable-diffusion-x4-upscaler, into {models}"
            in said
        )

    def test_one_of_several_has_to_be_named(self, webui, picture, models, small):
        (models / "other").symlink_to(small)
        assert "x4_model is needed; choose one of: other, small" in self.refused(webui, picture, {"x4": True})

    @pytest.mark.parametrize(
        ("name", "content", "said"),
        [
            ("broken.safetensors", b"not a model", "broken.safetensors is not a safetensors file, or it is damaged"),
            ("empty.safetensors", struct.pack("<Q", 2) + b"{}", "some other model; the x4 upscaler is needed"),
            ("x4-upscaler-ema.ckpt", b"\x80\x02", "is a pickle, which can run code"),
        ],
    )
    def test_other_files(self, webui, picture, models, name, content, said):
        (models / "small").unlink()
        (models / name).write_bytes(content)
        assert said in self.refused(webui, picture, {"x4": True})

    def test_a_normal_checkpoint(self, webui, picture, models):
        weights = {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(8, 4, 3, 3)}
        save_file(weights, models / "v1-5.safetensors")
        said = self.refused(webui, picture, {"x4": True, "x4_model": "v1-5"})
        assert "v1-5.safetensors is a normal Stable Diffusion checkpoint" in said

    def test_without_diffusers(self, webui, picture, models):
        webui.adapter("passes.x4").missing = lambda: "The x4 upscaler needs diffusers"
        assert "needs diffusers" in self.refused(webui, picture, {"x4": True})


class TestModels:
    def test_a_setting_names_a_further_folder(self, webui, picture, upscaler, small, tmp_path):
        further = tmp_path / "elsewhere"
        further.mkdir()
        (further / "mine").symlink_to(small)
        webui.options.latent_upscale_x4_folder = f' "{further}" '
        webui.run(webui.process(picture), {"x4": True, "x4_model": "mine"})
        assert upscaler.loaded == [further / "mine"]

    def test_the_setting_may_name_the_model_itself(self, webui, picture, upscaler, small, models):
        (models / "small").unlink()
        webui.options.latent_upscale_x4_folder = str(small)
        webui.run(webui.process(picture), {"x4": True})
        assert upscaler.loaded == [small]

    def test_two_of_one_name_stay_apart(self, webui, upscaler, small):
        webui.options.latent_upscale_x4_folder = str(small)
        assert list(webui.adapter("passes.x4_models").find_models()) == ["small", "small/small"]

    def test_files_and_folders_are_found_and_nothing_else(self, webui, models):
        (models / "b.safetensors").touch()
        (models / "notes.txt").touch()
        (models / "empty folder").mkdir()
        (models / "a.ckpt").touch()
        assert list(webui.adapter("passes.x4_models").find_models()) == ["b", "small"]

    @pytest.mark.parametrize(("keep", "loads"), [(True, 1), (False, 2)])
    def test_it_is_kept_or_dropped_as_the_setting_says(self, webui, picture, upscaler, keep, loads):
        webui.options.latent_upscale_x4_keep = keep
        for _ in range(2):
            webui.run(webui.process(picture, batch_size=2), {"x4": True})
        assert len(upscaler.loaded) == loads
        assert bool(webui.script.kept) == keep

    def test_a_changed_file_is_loaded_again(self, webui, picture, upscaler, models, small, tmp_path):
        (models / "small").unlink()
        (models / "small").mkdir()
        for path in small.iterdir():
            (models / "small" / path.name).symlink_to(path)
        for _ in range(2):
            webui.run(webui.process(picture), {"x4": True})
            assert len(upscaler.loaded) == 1
        (models / "small" / "README.md").write_text("new")
        webui.run(webui.process(picture), {"x4": True})
        assert len(upscaler.loaded) == 2


class TestPictures:
    def test_they_are_four_times_larger_and_say_how(self, webui, picture, upscaler):
        processed = webui.run(webui.process(picture, width=100, height=93), {"x4": True, "x4_prompt": "a cat"})
        assert processed.images[0].size == (400, 372)
        assert (processed.width, processed.height) == (400, 372)
        written = processed.infotexts[0]
        assert written["Size"] == "100x93"
        expected = X4Settings(prompt="a cat", tile=96, decoder_tile=128).to_infotext()
        del expected["x4 upscaler seed"]
        assert {label: value for label, value in written.items() if label.startswith("x4")} == {
            "x4 upscaler model": "small",
            **expected,
        }
        assert "Smaller tiles were used." in written["Latent upscale note"]

    def test_without_the_pass_nothing_of_it_runs(self, webui, picture, upscaler):
        processed = webui.run(webui.process(picture), {"x4": False, "x4_noise_level": 30})
        assert processed.images[0].size == (128, 128)
        assert not [label for label in processed.infotexts[0] if label.startswith("x4")]
        assert not upscaler.seeds + upscaler.moves

    def test_each_has_its_own_seed_unless_one_is_given(self, webui, picture, upscaler):
        processed = webui.run(webui.process(picture, batch_size=2, n_iter=2), {"x4": True})
        assert upscaler.seeds == [7, 8, 9, 10]
        assert not any("x4 upscaler seed" in written for written in processed.infotexts)
        upscaler.seeds.clear()
        processed = webui.run(webui.process(picture, batch_size=2), {"x4": True, "x4_seed": 3})
        assert upscaler.seeds == [3, 3]
        assert processed.infotexts[1]["x4 upscaler seed"] == "3"

    def test_positions_and_names_mean_the_same(self, webui, picture, upscaler):
        arguments = [control.value for control in webui.script.ui(True)]
        fields = webui.adapter("request").POSITIONS
        assert len(arguments) == len(fields)
        changes = {"x4": True, "x4_noise_level": 100, "x4_steps": 5.0, "x4_negative_prompt": "blur", "x4_tile": 256}
        for name, value in changes.items():
            arguments[fields.index(name)] = value
        listed = webui.run(webui.process(picture), *arguments).infotexts
        assert listed == webui.run(webui.process(picture), {**changes, "x4_steps": 5}).infotexts
        assert listed[0]["x4 upscaler steps"] == "5"

    def test_x_y_z_plot_takes_the_panels_pass(self, webui, picture, upscaler):
        p = webui.process(picture)
        p.script_args[webui.script.args_from + webui.adapter("request").POSITIONS.index("x4")] = True
        cell = copy.copy(p)
        next(axis for axis in webui.axes if axis.label.endswith("Method")).apply(cell, "area", ["area"])
        processed = webui.host_alone(cell)
        assert processed.images[0].size == (512, 512)
        assert processed.infotexts[0]["x4 upscaler model"] == "small"
        assert "latent_upscale_passes" not in {**vars(p), **vars(cell)}

    def test_a_masked_composite_that_the_host_could_not_make_is_left_out(self, webui, picture, upscaler):
        webui.options.return_mask_composite = True
        passes = webui.adapter("request").Request.parse([{"x4": True}]).passes(p := webui.process(picture), {})
        shown = SimpleNamespace(mask_for_overlay=Image.new("L", (8, 8)))
        passes.arrange_mask(shown)
        assert shown.mask_for_overlay is None
        assert "masked composite are left out" in p.comments[0]


def not_finite(text):
    """The error of the core that the adapter knows: "Reload UI" in a test before may have loaded the core again."""
    return sys.modules["lib_latent_upscale.errors"].NotFinite(text)


class TestWhatGoesWrong:
    @pytest.mark.parametrize(
        "error",
        [OutOfMemory("The memory is not enough"), RuntimeError("a kernel failed"), OSError("the file is gone")],
    )
    def test_the_picture_before_is_kept_and_it_is_said(self, webui, picture, upscaler, error):
        upscaler.happens[2] = fail(error)
        processed = webui.run(webui.process(picture, batch_size=3), {"x4": True})
        assert [image.size for image in processed.images] == [(512, 512), (128, 128), (512, 512)]
        first, second, third = processed.infotexts
        assert str(error) in second["Latent upscale note"]
        assert not [label for label in second if label.startswith("x4")]
        assert "x4 upscaler model" in first
        assert first == third
        assert any(str(error) in comment for comment in processed.comments)
        assert upscaler.moves == ["away", "back"] * 3

    def test_what_overflows_in_half_precision_runs_in_whole_precision(self, webui, picture, upscaler):
        upscaler.happens[1] = fail(not_finite("no numbers"))
        processed = webui.run(webui.process(picture, batch_size=2), {"x4": True})
        assert [image.size for image in processed.images] == [(512, 512)] * 2
        assert upscaler.formats == [None, torch.float32]
        assert "was run again in full precision" in processed.infotexts[0]["Latent upscale note"]
        webui.run(webui.process(picture), {"x4": True})
        assert len(upscaler.formats) == 2  # it is remembered

    def test_what_overflows_in_whole_precision_is_said(self, webui, picture, upscaler):
        upscaler.happens.update({1: fail(not_finite("no numbers")), 2: fail(not_finite("still none"))})
        processed = webui.run(webui.process(picture), {"x4": True})
        assert processed.images[0].size == (128, 128)
        assert "still none" in processed.infotexts[0]["Latent upscale note"]

    @pytest.mark.parametrize(("how", "sizes"), [("interrupted", [512, 128, 128]), ("skipped", [512, 128, 512])])
    def test_interrupt_and_skip_keep_the_picture_before(self, webui, picture, upscaler, how, sizes):
        upscaler.happens[2] = lambda: setattr(upscaler.state, how, True)
        processed = webui.run(webui.process(picture, n_iter=3), {"x4": True})
        assert [image.width for image in processed.images] == sizes[: len(processed.images)]
        assert "interrupted; the picture before it is kept" in processed.infotexts[1]["Latent upscale note"]
        assert len(upscaler.seeds) == (2 if how == "interrupted" else 3)

    def test_what_was_interrupted_before_is_not_enlarged(self, webui, picture, upscaler):
        p = webui.process(picture)
        own_sample = p.sample
        p.sample = lambda **values: (setattr(upscaler.state, "interrupted", True), own_sample(**values))[1]
        processed = webui.run(p, {"x4": True})
        assert not upscaler.seeds
        assert "interrupted before the x4 upscaler" in processed.infotexts[0]["Latent upscale note"]

    def test_nothing_is_left_behind(self, webui, picture, upscaler):
        p = webui.process(picture)
        before = webui.host_alone(webui.process(picture)).infotexts
        names = set(vars(p))
        webui.run(p, {"x4": True})
        assert set(vars(p)) - {"sampler", "encoded", "init_latent", "seeds", "batch_index"} == names
        assert p.extra_generation_params == {}
        assert webui.host_alone(webui.process(picture)).infotexts == before


class TestProgress:
    def test_it_counts_every_picture_as_a_job_and_its_tiles_as_steps(self, webui, picture, upscaler):
        webui.run(webui.process(picture, batch_size=2, n_iter=2), {"x4": True})
        assert upscaler.progress == [("x4 upscaler:", 1, 2)] * 4
        assert (upscaler.state.job_count, upscaler.state.job_no) == (6, 6)
        assert upscaler.state.textinfo is None


class TestWithARealModel:
    """Small and randomly initialised, but with everything that the true one has."""

    def test_it_is_what_the_core_makes_with_the_pictures_seed(self, webui, picture, models, small):
        given = {"x4": True, "x4_steps": 1, "x4_noise_level": 40}
        with torch.inference_mode():  # as in Forge
            made = webui.run(webui.process(picture, width=61, height=40), given).images[0]
        again = webui.run(webui.process(picture, width=61, height=40), given).images[0]
        settings = X4Settings(steps=1, noise_level=40, seed=7)
        before = webui.run(webui.process(picture, width=61, height=40)).images[0]
        alone = upscale_x4(before, load_x4(small, device="cpu"), settings).image
        assert made.size == (244, 160)
        np.testing.assert_array_equal(np.asarray(made), np.asarray(alone))
        np.testing.assert_array_equal(np.asarray(again), np.asarray(alone))

    def test_later_draws_of_the_host_are_the_same(self, webui, picture, models):
        torch.manual_seed(5)
        webui.run(webui.process(picture, width=64, height=64), {"x4": True, "x4_steps": 1, "x4_sampler": "Euler a"})
        drawn = torch.randn(3)
        torch.manual_seed(5)
        webui.run(webui.process(picture, width=64, height=64), {})
        assert torch.equal(torch.randn(3), drawn)


class TestPanel:
    def pasted(self, webui, infotext):
        script = webui.script
        controls = script.ui(True)
        found = {}
        for control, read in script.infotext_fields:
            if callable(read) and str(control.elem_id).startswith("script_latent_upscale_x4"):
                value = read(infotext)
                found[control.elem_id.removeprefix("script_latent_upscale_")] = getattr(value, "value", value)
        assert len(controls) == len(webui.adapter("request").POSITIONS)
        return found

    def test_every_setting_comes_back_from_the_infotext(self, webui, models):
        settings = X4Settings(
            prompt="a cat, sitting", negative_prompt="dog", noise_level=77, guidance_scale=3.5, steps=9,
            sampler="Heun", scheduler="karras", seed=5, colour_guard=False, tile=128, overlap=16, decoder_tile=64,
        )  # fmt: skip
        infotext = {"Latent upscale method": "area", "x4 upscaler model": "mine", **settings.to_infotext()}
        pasted = self.pasted(webui, infotext)
        assert pasted.pop("x4") is True
        assert pasted.pop("x4_model") == "mine"
        assert pasted == {f"x4_{field}": getattr(settings, field) for field, _ in X4Settings.labels().items()}

    def test_what_the_infotext_leaves_out_is_set_back(self, webui, models):
        pasted = self.pasted(webui, {"Latent upscale method": "area", "x4 upscaler model": "mine"})
        assert (pasted["x4_prompt"], pasted["x4_seed"]) == ("", -1)

    def test_an_infotext_of_ours_without_it_switches_it_off(self, webui, models):
        pasted = self.pasted(webui, {"Latent upscale method": "area"})
        assert pasted.pop("x4") is False
        assert set(pasted.values()) == {None}

    def test_other_infotexts_leave_it_alone(self, webui, models):
        assert set(self.pasted(webui, {"Steps": "20"}).values()) == {None}

    def test_defaults_are_the_cores(self, webui, models):
        arguments = dict(zip(webui.adapter("request").POSITIONS, (c.value for c in webui.script.ui(True)), strict=True))
        assert arguments["x4"] is False
        assert arguments["x4_model"] == "small"
        for field in X4Settings.labels():
            assert arguments[f"x4_{field}"] == getattr(X4Settings(), field)

    def test_labels_are_unique(self, webui):
        labels = [control.label for control in webui.script.ui(True)]
        assert len(set(labels)) == len(labels)
