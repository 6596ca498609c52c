"""The comparison on a double of the host: what runs, how often, and what is kept when something goes wrong."""

import json
import sys
from types import SimpleNamespace

import pytest
import torch

from lib_latent_upscale.comparison.settings import CompareSettings
from lib_latent_upscale.errors import OutOfMemory
from lib_latent_upscale.settings import UpscaleSettings
from tests.webui.comparing_host import RECORD, names
from tests.webui.x4_double import fail

HOST = ["WebUI, latent upscale", "WebUI, Just resize"]


def test_the_resized_picture_carries_no_settings_of_ours(host, picture):
    """No generation made it, so that none can be read out of it."""
    result = host.compare(picture, {"compare_difference": True})
    described = result.extra_generation_params[RECORD]["pictures"]
    texts = {one["name"]: text for one, text in zip(described, result.infotexts, strict=True)}
    assert texts["Picture resized"] == ""
    assert all(text for name, text in texts.items() if name != "Picture resized")


PAIRS = {"compare_methods": ["nearest-exact", "bicubic"], "compare_schedulers": ["simple", "karras"]}
FOUR = {"method": "nearest-exact", **PAIRS}
"""With the script's own settings, which are one of the pairs."""


class TestRuns:
    def test_the_picture_is_encoded_once_for_all(self, host, picture):
        result = host.compare(picture, FOUR)
        assert len(names(result)) == len(host.runs) == 6
        assert host.encoded == 2, "the small picture and, for Just resize, the large one"

    def test_each_latent_is_that_of_the_variant_alone(self, host, picture):
        host.compare(picture, FOUR)
        together = [run.sampler.latent for run in host.runs]
        chosen = [run.extra_generation_params for run in host.runs]
        assert chosen == [{}] * 6  # the processing objects are given back as they were
        variants = [
            ("bilinear", "automatic", False),
            ("pixels", "automatic", False),
            ("nearest-exact", "simple", True),
            ("nearest-exact", "karras", True),
        ]
        for (method, scheduler, exact), latent in zip(variants, together, strict=False):
            p = host.processing(picture)
            host.webui.run(p, {"method": method, "scheduler": scheduler, "exact_steps": exact})
            torch.testing.assert_close(p.sampler.latent, latent, rtol=0, atol=0)

    def test_equal_variants_run_once(self, host, picture):
        """At twice the size nearest, nearest-exact and area are one; at 1.5 times they are not."""
        three = {"method": "nearest-exact", "compare_methods": ["nearest", "area"]}
        result = host.compare(picture, three)
        assert len(host.runs) == 3
        record = result.extra_generation_params[RECORD]["comparisons"][0]["variants"][2]
        assert record["same_result"] == ["nearest + simple", "area + simple"]
        host.runs.clear()
        host.compare(picture, three, width=96, height=96)
        assert len(host.runs) == 5

    @pytest.mark.parametrize(("model", "ran"), [({"is_sd1": True}, "learned"), ({}, "pixels")])
    def test_it_is_said_which_method_automatic_was_and_that_runs_once(self, host, picture, model, ran):
        asked = {"compare_methods": ["learned", "pixels"] if model else ["pixels"]}
        result = host.compare(picture, asked, sd_model=SimpleNamespace(**model))
        described = result.extra_generation_params[RECORD]
        own = described["comparisons"][0]["variants"][2]
        assert (own["method"], own["method_run"], own["same_result"]) == ("automatic", ran, [f"{ran} + simple"])
        (shown,) = [one for one in described["pictures"] if one["role"] == "own"]
        assert shown["notes"][0].startswith(f"automatic ({ran}) + simple")
        assert json.loads(result.infotexts[0])["Latent upscale method"] == "automatic", "to compare again"

    def test_all_have_one_seed(self, host, picture):
        host.compare(picture, FOUR, seed=-1)
        assert {run.seed for run in host.runs} == {11}

    def test_the_persons_processing_object_stays_as_it_was(self, host, picture):
        p = host.processing(picture, seed=-1)
        before = {name: value for name, value in vars(p).items() if name != "script_args"}
        host.webui.run(p, {"compare": True, **FOUR})
        assert {name: value for name, value in vars(p).items() if name != "script_args"} == before

    def test_torchs_generator_stays_as_it_was(self, host, picture):
        torch.manual_seed(123)
        expected = torch.randn(4)
        torch.manual_seed(123)
        host.compare(picture, FOUR)
        torch.testing.assert_close(torch.randn(4), expected, rtol=0, atol=0)


class TestWhatIsKept:
    def test_one_that_fails_does_not_take_the_others_along(self, host, picture):
        host.fails[3] = RuntimeError("out of memory")
        result = host.compare(picture, FOUR)
        assert len(names(result)) == 5
        assert "nearest-exact + karras failed: out of memory" in result.comments
        assert "1 of 6 variants were not finished" in result.comments

    def test_callers_of_the_api_who_see_no_comments_are_told_too(self, host, picture):
        host.fails[3] = RuntimeError("out of memory")
        result = host.compare(picture, FOUR)
        said = ["nearest-exact + karras failed: out of memory."]
        assert result.extra_generation_params[RECORD]["failed"] == said
        assert json.loads(result.infotexts[0])["Latent upscale note"] == said[0]
        host.fails.clear()
        assert json.loads(host.compare(picture, FOUR).infotexts[0])["Latent upscale note"] is None

    def test_if_the_first_fails_the_error_is_said(self, host, picture):
        host.fails[0] = RuntimeError("out of memory")
        with pytest.raises(RuntimeError, match="out of memory"):
            host.compare(picture, FOUR)

    def test_a_skipped_one_is_left_out(self, host, picture):
        host.during[1] = lambda: setattr(host.state, "skipped", True)
        host.during[2] = lambda: setattr(host.state, "skipped", False)
        result = host.compare(picture, FOUR)
        assert names(result) == [
            "WebUI, latent upscale",
            "Latent Upscale",
            "nearest-exact + karras",
            "bicubic + simple",
            "bicubic + karras",
        ]

    def test_after_an_interrupt_only_finished_ones_are_shown(self, host, picture):
        host.during[3] = lambda: setattr(host.state, "interrupted", True)
        result = host.compare(picture, FOUR)
        assert names(result) == [*HOST, "Latent Upscale"]
        assert len(host.runs) == 4

    def test_stopping_after_this_one_keeps_this_one(self, host, picture):
        host.during[2] = lambda: setattr(host.state, "stopping_generation", True)
        assert names(host.compare(picture, FOUR)) == [*HOST, "Latent Upscale"]

    def test_without_scikit_image_the_figures_are_left_out_and_it_is_said(self, host, picture, monkeypatch):
        for name in [name for name in sys.modules if name.split(".")[0] == "skimage"] or ["skimage"]:
            monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.setitem(sys.modules, "skimage", None)
        footers = []
        report = sys.modules["lib_latent_upscale.comparison.report"]
        make_sheet = report.make_sheet
        monkeypatch.setattr(report, "make_sheet", lambda *a, **k: footers.append(k["footer"]) or make_sheet(*a, **k))
        record = host.compare(picture, {}).extra_generation_params[RECORD]["comparisons"][0]
        assert [variant["figures"] for variant in record["variants"]] == [None] * 3
        assert record["plain_resize"] is None
        assert "the package scikit-image is missing" in footers[0]


class TestPasses:
    def record(self, result):
        return result.extra_generation_params[RECORD]["comparisons"][0]["variants"]

    def test_a_pass_that_is_set_up_is_one_more_variant(self, host, upscaler, picture):
        result = host.compare(picture, {"x4": True, "x4_noise_level": 50})
        assert names(result) == [*HOST, "Latent Upscale", "Latent Upscale + x4 upscaler"]
        assert upscaler.seeds == [7]
        *others, last = self.record(result)
        assert last["passes"] == ("x4 upscaler",)
        assert "x4 upscaler noise level: 50" in last["parameters"]
        assert not any("x4" in one["parameters"] for one in others)
        assert [run.extra_generation_params for run in host.runs] == [{}] * 4

    def test_a_larger_result_is_measured_and_shown_shrunk_and_given_whole(self, host, upscaler, picture):
        result = host.compare(picture, {"x4": True})
        assert [image.size for image in result.images[-3:]] == [(128, 128), (128, 128), (512, 512)]
        assert [one["shrunk_from"] for one in self.record(result)] == [None, None, None, [512, 512]]
        assert result.extra_generation_params[RECORD]["comparisons"][0]["size"] == [128, 128]
        assert self.record(result)[-1]["figures"] is not None
        notes = result.extra_generation_params[RECORD]["pictures"][-1]["notes"]
        assert "512 x 512 pixels, shrunk here" in notes

    def test_the_comparison_can_be_made_again_with_its_passes(self, host, upscaler, picture):
        text = json.loads(host.compare(picture, {"x4": True, "x4_steps": 3}).infotexts[0])
        assert (text["Latent upscale compare"], text["x4 upscaler steps"]) == ("True", "3")

    def test_the_same_upscale_with_and_without_it_are_two(self, host, upscaler, picture):
        result = host.compare(picture, {"method": "nearest-exact", "x4": True, "compare_methods": ["nearest", "area"]})
        assert names(result) == [*HOST, "Latent Upscale", "Latent Upscale + x4 upscaler"]
        assert self.record(result)[2]["same_result"] == ["nearest + simple", "area + simple"]
        assert self.record(result)[3]["same_result"] == []

    def test_one_whose_pass_failed_is_left_out_and_it_is_said(self, host, upscaler, picture):
        upscaler.happens[1] = fail(OutOfMemory("The memory is not enough"))
        result = host.compare(picture, {"x4": True})
        assert names(result) == [*HOST, "Latent Upscale"]
        assert "The memory is not enough" in result.comments
        assert "1 of 4 variants were not finished" in result.comments

    def test_a_pass_that_cannot_run_is_refused_before_any_work(self, host, upscaler, picture):
        with pytest.raises(ValueError, match="x4_model is 'none'"):
            host.compare(picture, {"x4": True, "x4_model": "none"}, is_api=True)
        assert host.runs == []

    def test_every_picture_of_a_pass_is_a_job_of_the_progress_bar(self, host, upscaler, picture):
        host.compare(picture, {"x4": True}, n_iter=1)
        assert (host.state.job_count, host.state.job_no) == (5, 5)


class TestVariants:
    @pytest.fixture
    def variants(self, webui):
        return webui.adapter("compare.variants")

    def make(self, variants, asked=None, schedule="karras", **own):
        settings = CompareSettings(compare=True, **(asked or {}))
        return variants.make_variants(UpscaleSettings(**own), settings, schedule)

    def test_none_is_there_twice(self, variants):
        further = {**PAIRS, "compare_variants": [{"method": "bicubic"}, {"steps": 9}]}
        made = self.make(variants, further, method="nearest-exact")
        found = [variant.name for variant in made]
        assert found == [
            *HOST,
            "Latent Upscale",
            "nearest-exact + karras",
            "bicubic + simple",
            "bicubic + karras",
            "nearest-exact + simple, steps 9",
        ]

    def test_a_list_alone_goes_with_the_other_setting(self, variants):
        made = self.make(variants, {"compare_schedulers": ["beta"]}, method="lanczos", keep_statistics=True)
        assert made[3].settings == UpscaleSettings("lanczos", "beta", keep_statistics=True)

    def test_matched_noise_adds_the_hosts_schedule_from_that_noise(self, variants):
        made = self.make(variants, matched_noise=True)
        assert made[2].settings == UpscaleSettings("bilinear", "karras", matched_noise=True)
        assert len(self.make(variants, schedule="turbo", matched_noise=True)) == 3

    def test_a_callers_list_can_change_afterwards(self, variants):
        given = ["area"]
        settings = CompareSettings(compare_methods=given)
        given.append("no such")
        assert settings.compare_methods == ("area",)


class TestPasting:
    def paste(self, webui, infotext):
        fields = {control.label: read for control, read in webui.script.infotext_fields if callable(read)}
        labels = ("Compare", "Methods to compare", "Schedulers to compare", "Difference map")
        return [fields[label](infotext) for label in labels]

    def test_a_sheets_infotext_sets_all_controls(self, webui):
        settings = CompareSettings(True, ["area", "bislerp"], (), True)
        infotext = {**UpscaleSettings().to_infotext(), **settings.to_infotext()}
        assert self.paste(webui, infotext) == [True, ["area", "bislerp"], [], True]

    def test_a_pictures_infotext_switches_the_comparison_off(self, webui):
        assert self.paste(webui, UpscaleSettings().to_infotext()) == [False, None, None, False]

    def test_anothers_infotext_leaves_the_controls_alone(self, webui):
        assert self.paste(webui, {"Steps": "20"}) == [None] * 4
