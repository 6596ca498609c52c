"""The comparison over the API, against a real WebUI."""

import json
import re
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pytest
from PIL import Image

from tests.live.calls import LONG, need_whole_when_interrupted, refused, while_running

RECORD = "Latent upscale comparison"
LABEL = "Latent upscale "
HOSTS = ("WebUI, latent upscale", "WebUI, Just resize")
"""Variants that are in every comparison: what the host makes without the script."""


def record(result):
    return result.info["extra_generation_params"][RECORD]


def shown(result, kind):
    """Pictures of a kind by name, as pixels; of several seeds the last."""
    described = record(result)["pictures"]
    assert len(described) == len(result.pictures) == len(result.info["infotexts"])
    return {
        one["name"]: np.asarray(picture.convert("RGB")).astype(int)
        for one, picture in zip(described, result.pictures, strict=True)
        if one["kind"] == kind
    }


def variants(result, index=0):
    return {variant["name"]: variant for variant in record(result)["comparisons"][index]["variants"]}


@pytest.fixture(scope="module")
def compared(webui, picture):
    """Two methods with two schedulers; at twice the size nearest is nearest-exact."""
    wanted = {"compare_methods": ["nearest", "bislerp"], "compare_schedulers": ["simple", "karras"]}
    return webui.ours(picture, {"method": "nearest-exact", "compare": True, "compare_difference": True, **wanted})


class TestWhatComesBack:
    def test_the_sheet_and_all_pictures(self, compared):
        kinds = [one["kind"] for one in record(compared)["pictures"]]
        assert kinds == ["sheet", "plain resize", "difference", *["variant"] * 6]
        assert compared.info["index_of_first_image"] == 3
        assert [p.size for p in compared.pictures[1:]] == [(128, 128)] * 8
        assert list(shown(compared, "variant")) == list(variants(compared))
        further = ["Latent Upscale", "nearest + karras", "bislerp + simple", "bislerp + karras"]
        assert list(variants(compared)) == [*HOSTS, *further]

    def test_every_picture_is_the_one_that_is_made_alone(self, webui, picture, compared):
        names = ("method", "scheduler", "exact_steps", "keep_statistics", "matched_noise")
        for name, made in shown(compared, "variant").items():
            alone = webui.ours(picture, {field: variants(compared)[name][field] for field in names})
            webui.same(made, alone.pixels)
            index = [one["name"] for one in record(compared)["pictures"]].index(name)
            assert compared.info["infotexts"][index] == alone.infotext == variants(compared)[name]["parameters"]

    @pytest.mark.parametrize(("name", "mode"), [("WebUI, latent upscale", 3), ("WebUI, Just resize", 0)])
    def test_the_defaults_are_the_webuis_own(self, webui, picture, compared, name, mode):
        own = webui.warm(picture, resize_mode=mode).pixels
        webui.same(shown(compared, "variant")[name], own)

    def test_the_plain_resize_is_the_enlarged_input(self, picture, compared):
        plain = shown(compared, "plain resize")["Picture resized"]
        expected = np.asarray(picture.resize((128, 128), Image.Resampling.LANCZOS)).astype(int)
        np.testing.assert_array_equal(plain, expected)

    def test_equal_variants_run_once_and_are_said_to_be_equal(self, compared):
        assert variants(compared)["Latent Upscale"]["same_result"] == ["nearest + simple"]
        assert "nearest + simple" not in variants(compared)

    def test_steps_and_noise_that_really_ran(self, webui, compared):
        """The WebUI cuts 3 steps at 0.5 to int(3 * 0.5) + 1; ours runs all. SD's noise lies within 0.03 and 14.7.

        ersatzForge, which has no option for that, never cuts.
        """
        cut = 2 if "img2img_fix_steps" in webui.call("/sdapi/v1/options") else 3
        steps = {name: variant["steps_run"] for name, variant in variants(compared).items()}
        assert steps == {name: cut if name in HOSTS else 3 for name in steps}
        assert all(0.03 < variant["first_sigma"] < 14.7 for variant in variants(compared).values())

    def test_figures(self, picture, compared):
        plain = record(compared)["comparisons"][0]["plain_resize"]
        assert plain["sharpness"] == 1
        for name, pixels in shown(compared, "variant").items():
            figures = variants(compared)[name]["figures"]
            small = Image.fromarray(pixels.astype(np.uint8)).resize(picture.size, Image.Resampling.BOX)
            error = np.square((np.asarray(small) - np.asarray(picture).astype(float)) / 255).mean()
            assert figures["faithful_psnr"] == pytest.approx(-10 * np.log10(error), abs=1e-6)
            assert figures["seconds"] > 0

    def test_the_sheet_can_be_made_again_from_its_infotext(self, compared):
        written = compared.info["infotexts"][0]
        assert f"{LABEL}compare: True" in written
        assert f'{LABEL}compare methods: "nearest, bislerp"' in written
        assert f'{LABEL}compare schedulers: "simple, karras"' in written
        assert f"{LABEL}method: nearest-exact" in written
        assert all(f"{LABEL}compare" not in text for text in compared.info["infotexts"][3:])


class TestWhatIsCompared:
    def test_every_control_is_described(self, webui):
        info = next(s for s in webui.call("/sdapi/v1/script-info") if s["name"] == "latent upscale")
        described = [(one["label"], one["value"]) for one in info["args"][5:9]]
        names = ("Compare", "Methods to compare", "Schedulers to compare", "Difference map")
        assert described == list(zip(names, (False, [], [], False), strict=True))
        assert [one["choices"] for one in info["args"][6:8]] == [one["choices"] for one in info["args"][:2]]

    def test_without_a_choice_the_default_and_ours(self, webui, picture):
        assert list(variants(webui.ours(picture, {"compare": True}))) == [*HOSTS, "Latent Upscale"]

    def test_without_compare_nothing_is_compared(self, webui, picture):
        result = webui.ours(picture, {"compare": False, "compare_methods": ["area"]})
        assert len(result.pictures) == 1
        assert RECORD not in result.info["extra_generation_params"]

    def test_the_controls_in_their_order(self, webui, picture):
        listed = ["nearest-exact", "simple", True, False, False, True, ["bicubic"], ["beta"], False]
        assert list(variants(webui.ours(picture, listed)))[3:] == ["bicubic + beta"]

    def test_variants_with_their_own_overrides(self, webui, picture):
        further = [
            {"steps": 5, "denoising_strength": 0.3},
            {"name": "Heun", "sampler_name": "Heun", "method": "area", "scheduler": "karras"},
        ]
        result = webui.ours(picture, {"method": "nearest-exact", "compare": True, "compare_variants": further})
        first, second = list(variants(result).values())[3:]
        assert first["name"] == "nearest-exact + simple, steps 5, denoising strength 0.3"
        assert (first["steps_run"], second["name"]) == (5, "Heun")
        alone = webui.ours(picture, steps=5, denoising_strength=0.3)
        webui.same(shown(result, "variant")[first["name"]], alone.pixels)
        alone = webui.ours(picture, ["area", "karras"], sampler_name="Heun")
        webui.same(shown(result, "variant")["Heun"], alone.pixels)

    def test_matched_noise_starts_all_from_one_sigma(self, webui, picture):
        asked = {"compare": True, "matched_noise": True, "compare_schedulers": ["karras", "exponential", "beta"]}
        result = variants(webui.ours(picture, asked))
        starts = [variant["first_sigma"] for name, variant in result.items() if name not in HOSTS]
        assert "WebUI, latent upscale, matched noise" in result
        assert len(starts) == 5
        assert starts == pytest.approx(starts[:1] * 5, rel=1e-5)
        assert all(variant["steps_run"] == 3 for name, variant in result.items() if name not in HOSTS)

    def test_a_sampler_that_ignores_sigmas_says_so(self, webui, picture):
        result = webui.ours(picture, {"compare": True}, sampler_name="DDIM")
        own = variants(result)["Latent Upscale"]
        assert own["first_sigma"] is None
        assert 1 <= own["steps_run"] <= 3, "v1.10.1's DDIM leaves two of the asked ones out, and that is counted"
        assert "ignores sigmas" in own["parameters"]

    @pytest.mark.parametrize(
        ("asked", "said"),
        [
            (
                {"compare_methods": ["area", "no such"]},
                "compare_methods has 'no such'; choose from: automatic, ",
            ),
            ({"compare_schedulers": ["Karras"]}, "compare_schedulers has 'Karras'; choose from: simple, "),
            ({"compare_methods": "area"}, "compare_methods is 'area'; a list of names is needed"),
            ({"compare": "yes"}, "compare is 'yes'; choose True or False"),
            (
                {"compare_all": True},
                "known are: method, scheduler, exact_steps, keep_statistics, matched_noise, ",
            ),
            ({"compare_variants": [{"step": 3}]}, "compare_variants[0]: unknown names ['step']; known are: name"),
            ({"compare_variants": [{"steps": 2.5}]}, "steps is 2.5; an integer of 1 to 1000 is needed"),
            ({"compare_variants": [{"steps": 0}]}, "steps is 0"),
            ({"compare_variants": [{"method": "none"}]}, "compare_variants[0]: method is 'none'; choose one of"),
            ({"compare_variants": [{"sampler_name": "Oiler"}]}, "sampler_name is 'Oiler'; choose from: "),
            ({"compare_variants": [{"cfg_scale": "high"}]}, "cfg_scale is 'high'; a number is needed"),
        ],
        ids=str,
    )
    def test_bad_values_are_refused(self, webui, picture, asked, said):
        error = refused(webui.ours, picture, {"compare": True, **asked})
        assert error.status == 422
        assert said in error.message


class TestTogetherWith:
    @pytest.mark.parametrize("changes", [{"batch_size": 2}, {"n_iter": 2}], ids=str)
    def test_each_picture_of_a_batch_has_its_sheet(self, webui, picture, changes):
        result = webui.ours(picture, {"compare": True}, **changes)
        described = [(one["kind"], one["seed"]) for one in record(result)["pictures"]]
        expected = [
            ("sheet", 7),
            ("sheet", 8),
            ("plain resize", 7),
            ("plain resize", 8),
            *[("variant", 7), ("variant", 8)] * 3,
        ]
        assert described == expected
        alone = webui.ours(picture, {}, seed=8).pixels
        assert np.abs(shown(result, "variant")["Latent Upscale"] - alone).max() <= 1

    def test_several_init_pictures(self, webui, picture, wide_picture):
        result = webui.ours([picture, wide_picture], {"compare": True}, batch_size=2)
        assert [one["input_size"] for one in record(result)["comparisons"]] == [[64, 64], [96, 64]]

    def test_masks(self, webui, picture):
        mask = Image.new("L", picture.size)
        mask.paste(255, (16, 16, 48, 48))
        changes = {"mask": mask, "inpainting_fill": 1, "override_settings": {"return_mask": True}}
        for only_masked in (False, True):
            result = webui.ours(picture, {"compare": True}, inpaint_full_res=only_masked, **changes)
            made = shown(result, "variant")
            alone = webui.ours(picture, {}, inpaint_full_res=only_masked, **changes)
            webui.same(made["Latent Upscale"], alone.pixels)

    def test_sizes_that_are_no_multiples_of_eight(self, webui, wide_picture):
        result = webui.ours(wide_picture, {"compare": True}, width=100, height=92, resize_mode=1)
        assert {picture.size for picture in result.pictures[1:]} == {(100, 92)}

    def test_a_random_seed_is_one_for_all(self, webui, picture):
        result = webui.ours(picture, {"compare": True}, seed=-1)
        seeds = {one["seed"] for one in record(result)["pictures"]}
        assert len(seeds) == 1
        assert f"Seed: {seeds.pop()}" in variants(result)["Latent Upscale"]["parameters"]


class TestTheHostKeepsItsWays:
    def test_pictures_and_options_stay_the_same(self, webui, picture):
        before, options = webui.warm(picture).pixels, webui.call("/sdapi/v1/options")
        webui.ours(picture, {"compare": True, "compare_schedulers": ["karras"]}, seed=99)
        webui.same(webui.host(picture).pixels, before)
        assert webui.call("/sdapi/v1/options") == options

    def test_interrupting_keeps_what_is_finished(self, webui, picture):
        asked = {"compare": True, "compare_schedulers": ["karras", "beta", "exponential"]}
        with while_running(webui, webui.ours, picture, asked, job=3, **LONG) as running:
            webui.call("/sdapi/v1/interrupt", {})
            result = running.result()
        assert list(variants(result)) == [*HOSTS, "Latent Upscale"]
        assert [one["kind"] for one in record(result)["pictures"]] == ["sheet", "plain resize", *["variant"] * 3]
        alone = webui.ours(picture, {}, **LONG).pixels
        webui.same(shown(result, "variant")["Latent Upscale"], alone)

    def test_interrupting_the_first_variant_gives_its_picture(self, webui, picture):
        with while_running(webui, webui.ours, picture, {"compare": True}, **LONG) as running:
            webui.call("/sdapi/v1/interrupt", {})
            result = running.result()
        assert RECORD not in result.info["extra_generation_params"]
        (made,) = result.pictures
        need_whole_when_interrupted(webui, picture, made.size)
        assert made.size == (LONG["width"], LONG["height"])


class TestSaving:
    """The WebUI must run on this machine, so that its files can be seen."""

    @pytest.fixture
    def grids(self, webui, tmp_path):
        if urlparse(webui.url).hostname not in ("127.0.0.1", "localhost"):
            pytest.skip("the WebUI runs on another machine; its files cannot be seen")
        names = ("outdir_img2img_grids", "outdir_img2img_samples", "grid_save", "grid_format", "grid_save_to_dirs")
        before = webui.call("/sdapi/v1/options")
        places = {"outdir_img2img_grids": str(tmp_path / "grids"), "outdir_img2img_samples": str(tmp_path / "samples")}
        webui.call("/sdapi/v1/options", {**places, "grid_save": True, "grid_save_to_dirs": False, "grid_format": "png"})
        yield tmp_path / "grids"
        webui.call("/sdapi/v1/options", {name: before[name] for name in names})

    @staticmethod
    def names(folder: Path):
        """With one digit: hosts count with four or five."""
        return sorted(re.sub("-0000+", "-0", path.name) for path in folder.glob("*"))

    def test_sheet_and_figures_lie_in_the_grids_folder(self, webui, picture, grids):
        result = webui.ours(picture, {"compare": True}, save_images=True)
        assert self.names(grids) == ["latent_upscale_comparison-0.json", "latent_upscale_comparison-0.png"]
        sheet = Image.open(next(grids.glob("*.png")))
        assert sheet.info["parameters"] == result.info["infotexts"][0]
        np.testing.assert_array_equal(np.asarray(sheet), np.asarray(result.pictures[0]))
        figures = json.loads(next(grids.glob("*.json")).read_text())
        assert figures == record(result)["comparisons"][0]
        assert len(list((grids.parent / "samples").rglob("*.png"))) == 3

    def test_the_hosts_format(self, webui, picture, grids):
        webui.call("/sdapi/v1/options", {"grid_format": "jpg"})
        webui.ours(picture, {"compare": True}, save_images=True)
        assert self.names(grids) == ["latent_upscale_comparison-0.jpg", "latent_upscale_comparison-0.json"]

    @pytest.mark.parametrize(("option", "asked"), [(False, True), (True, False)])
    def test_nothing_is_saved_where_the_host_saves_no_grids(self, webui, picture, grids, option, asked):
        webui.call("/sdapi/v1/options", {"grid_save": option})
        result = webui.ours(picture, {"compare": True}, save_images=asked)
        assert self.names(grids) == []
        assert record(result)["pictures"][0]["kind"] == "sheet"
