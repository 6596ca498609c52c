"""The x4 upscaler over the API of a real WebUI that has one in its models; a small random one is enough."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, ClassVar
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from lib_latent_upscale.samplers import X4_SAMPLERS
from lib_latent_upscale.x4_upscaler import X4Settings
from tests.live.calls import described, parameters, refused

FAST = {"x4": True, "x4_steps": 2}
SINGLE_FILE = "x4-upscaler-ema"


@pytest.fixture
def x4(webui, x4_model, picture) -> Any:
    """A call with the pass."""
    return lambda given=(), **changes: webui.ours(
        changes.pop("source", picture), {**FAST, "x4_model": x4_model, **dict(given)}, **changes
    )


@pytest.fixture
def options(webui) -> Iterator[Any]:
    """Set options of the host for one test."""
    before = webui.call("/sdapi/v1/options")
    changed: dict[str, Any] = {}

    def change(**values: Any) -> None:
        webui.need_options(values)
        changed.update({name: before[name] for name in values})
        webui.call("/sdapi/v1/options", values)

    yield change
    webui.call("/sdapi/v1/options", changed)


def pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("RGB")).astype(int)


class TestPictures:
    @pytest.mark.parametrize("size", [(128, 128), (96, 64), (100, 93)])
    def test_they_are_exactly_four_times_larger(self, x4, size):
        result = x4(width=size[0], height=size[1])
        large = (4 * size[0], 4 * size[1])
        assert [one.size for one in result.pictures] == [large]
        assert (result.info["width"], result.info["height"]) == large
        assert parameters(result.infotext)["Size"] == f"{size[0]}x{size[1]}"
        assert result.pixels.std() > 1

    def test_the_same_call_gives_the_same_picture(self, x4, webui, picture):
        first = x4()
        webui.host(picture, seed=3)
        again = x4()
        webui.same(again.pixels, first.pixels)
        assert again.infotext == first.infotext

    def test_the_infotext_says_everything(self, x4, x4_model):
        given = {
            "x4_prompt": "a lighthouse, at dusk",
            "x4_negative_prompt": "fog",
            "x4_noise_level": 100,
            "x4_guidance_scale": 5.5,
            "x4_sampler": "Euler a",
            "x4_scheduler": "karras",
            "x4_colour_guard": False,
            "x4_tile": 96,
            "x4_overlap": 16,
            "x4_decoder_tile": 64,
            "x4_seed": 12,
        }
        infotext = x4(given).infotext
        assert f"x4 upscaler model: {x4_model}" in infotext
        settings = X4Settings(steps=2, **{name.removeprefix("x4_"): value for name, value in given.items()})
        for label, value in settings.to_infotext().items():
            assert f'{label}: "{value}"' in infotext if "," in value else f"{label}: {value}" in infotext

    def test_with_its_infotext_it_can_be_made_again(self, webui, x4, picture):
        """What was chosen for the user, such as tiles, is in the infotext."""
        made = x4(width=200, height=200)
        written = parameters(made.infotext)
        fields = [(field, label) for field, label in X4Settings.labels().items() if label in written]
        read = {field: getattr(X4Settings.from_infotext(written), field) for field, _ in fields}
        again = x4({f"x4_{field}": value for field, value in read.items()}, width=200, height=200)
        webui.same(again.pixels, made.pixels)
        webui.need_infotexts_after_passes(picture)
        assert read["tile"] > 0

    @pytest.mark.parametrize("changes", [{"batch_size": 2}, {"n_iter": 2}], ids=str)
    def test_each_of_a_batch_can_be_made_alone(self, x4, changes):
        together = x4(**changes).pictures[-2:]  # a grid may come first
        assert not np.array_equal(pixels(together[0]), pixels(together[1]))
        for index, one in enumerate(together):
            assert np.abs(pixels(one) - x4(seed=7 + index).pixels).max() <= 1

    def test_settings_change_the_picture(self, x4):
        plain = x4().pixels
        for changes in ({"x4_noise_level": 200}, {"x4_seed": 5}, {"x4_sampler": "Euler a"}, {"x4_colour_guard": False}):
            assert (x4(changes).pixels != plain).any(), changes

    @pytest.mark.parametrize("sampler", X4_SAMPLERS)
    def test_every_sampler_works(self, x4, sampler):
        """The forks have samplers of their own under k-diffusion's names."""
        try:
            made = x4({"x4_sampler": sampler, "x4_steps": 3}, width=64, height=64)
        except Exception as error:
            if "k_diffusion does not have" in str(error):
                pytest.skip(f"this WebUI has no {sampler}")
            raise
        assert f"x4 upscaler sampler: {sampler}" in made.infotext
        assert made.pictures[0].size == (256, 256)

    def test_a_mask_and_its_composite(self, x4, picture, options):
        mask = Image.new("L", picture.size)
        mask.paste(255, (16, 16, 48, 48))
        options(return_mask=True, return_mask_composite=True)
        assert x4(mask=mask, inpainting_fill=1).pictures[0].size == (512, 512)
        options(return_mask_composite=False)
        assert x4(mask=mask, inpainting_fill=1).pictures[0].size == (512, 512)

    def test_it_is_saved_as_it_is_shown(self, x4, options, tmp_path):
        options(outdir_img2img_samples=str(tmp_path), samples_save=True, samples_format="png")
        made = x4(save_images=True)
        files = list(tmp_path.rglob("*.png"))
        if not files:
            pytest.skip("the WebUI does not share a disk with this test")
        assert len(files) == 1
        saved = Image.open(files[0])
        np.testing.assert_array_equal(pixels(saved), made.pixels)
        assert saved.info["parameters"] == made.infotext


class TestErrors:
    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({"x4_noise_level": -1}, "x4_noise_level is -1; an integer from 0 to 349 is needed"),
            ({"x4_noise_level": 350}, "x4_noise_level is 350"),
            ({"x4_noise_level": 3.5}, "x4_noise_level is 3.5"),
            ({"x4_tile": 7}, "x4_tile is 7"),
            ({"x4_sampler": "no such"}, "choose one of: DPM++ 2M, Euler"),
            ({"x4_model": "no such"}, "x4_model is 'no such'; choose one of: "),
            ({"x4_model": "../../etc"}, "choose one of: "),
            ({"x4_modle": "x"}, "unknown settings ['x4_modle']; known are: method"),
            ({"x4": "on"}, "x4 is 'on'; choose True or False"),
        ],
        ids=str,
    )
    def test_they_are_answered_before_any_work(self, x4, webui, given, said):
        jobs = webui.call("/sdapi/v1/progress")["state"]["job_timestamp"]
        error = refused(x4, given)
        assert error.status == 422
        assert said in error.message
        assert webui.call("/sdapi/v1/progress")["state"]["sampling_step"] == 0
        assert jobs


@pytest.fixture
def short_of_memory(webui) -> Any:
    """Hold the WebUI's process to what it has and some mebibytes more, for a while; for one on this Linux machine."""
    psutil = pytest.importorskip("psutil")
    resource = pytest.importorskip("resource")
    port = urlsplit(webui.url).port
    listening = [one.pid for one in psutil.net_connections("tcp") if one.status == "LISTEN" and one.laddr.port == port]
    if not hasattr(resource, "prlimit") or not any(listening):
        pytest.skip("the process of the WebUI cannot be held to a limit from here")

    @contextmanager
    def limit(mebibytes: int) -> Iterator[None]:
        process = psutil.Process(listening[0])
        allowed = process.memory_info().data + mebibytes * 2**20
        before = process.rlimit(resource.RLIMIT_DATA)
        process.rlimit(resource.RLIMIT_DATA, (allowed, before[1]))
        try:
            yield
        finally:
            process.rlimit(resource.RLIMIT_DATA, before)

    return limit


class TestMemory:
    LARGE: ClassVar[dict[str, Any]] = {"x4_steps": 1, "x4_tile": 512, "x4_decoder_tile": 512}

    def test_where_it_runs_out_smaller_tiles_are_tried_and_that_is_said(self, x4, webui, picture, short_of_memory):
        """Before any large model is loaded: what that leaves in the process's heap is memory enough."""
        webui.need_infotexts_after_passes(picture)
        plain = webui.ours(picture, {}, width=256, height=256)
        x4(width=64, height=64)  # the model is there
        with short_of_memory(150):  # with much less, torch itself may crash
            made = x4(self.LARGE, width=256, height=256)
        read = X4Settings.from_infotext(parameters(made.infotext))
        said = ("ran out of memory with tiles of 512 for ", "memory is not enough")
        if not any(text in made.infotext for text in said):
            assert (read.tile, read.decoder_tile, made.pictures[0].size) == (512, 512, (1024, 1024))
            pytest.skip("the WebUI's process has kept memory enough from earlier pictures: start it anew")
        if made.pictures[0].size == plain.pictures[0].size:  # a host that needs more itself: not even small ones fitted
            webui.same(made.pixels, plain.pixels)
            assert "x4 upscaler model" not in made.infotext
            return
        assert made.pictures[0].size == (1024, 1024)
        assert (read.tile, read.decoder_tile) != (512, 512)
        again = x4({**self.LARGE, "x4_tile": read.tile, "x4_decoder_tile": read.decoder_tile}, width=256, height=256)
        # How many tiles go at once depends on the memory, too, and with it the rounding.
        assert np.abs(again.pixels - made.pixels).max() <= 1

    def test_where_the_model_does_not_fit_the_picture_before_is_kept(self, x4, webui, picture, short_of_memory):
        if SINGLE_FILE not in described(webui)["x4 model"]["choices"]:
            pytest.skip(f"this WebUI has no {SINGLE_FILE}.safetensors: put one into models/x4-upscaler and start again")
        before = x4(width=64, height=64)  # another model is kept
        plain = webui.ours(picture, {}, width=64, height=64)
        with short_of_memory(200):
            kept = x4({"x4_model": SINGLE_FILE}, width=64, height=64)
        assert [one.size for one in kept.pictures] == [(64, 64)]
        webui.same(kept.pixels, plain.pixels)
        assert f"The memory is not enough for the x4 upscaler {SINGLE_FILE}" in kept.infotext
        assert "x4 upscaler model" not in kept.infotext
        webui.same(x4(width=64, height=64).pixels, before.pixels)


class TestSingleFile:
    """The published file under its own name, or one with its names and shapes and random values."""

    def test_it_is_chosen_by_its_name_and_used(self, x4, webui):
        if SINGLE_FILE not in described(webui)["x4 model"]["choices"]:
            pytest.skip(f"this WebUI has no {SINGLE_FILE}.safetensors: put one into models/x4-upscaler and start again")
        given = {"x4_model": SINGLE_FILE, "x4_steps": 1, "x4_guidance_scale": 1.0, "x4_colour_guard": False}
        made = x4(given, width=32, height=32)
        assert made.pictures[0].size == (128, 128)
        assert f"x4 upscaler model: {SINGLE_FILE}" in made.infotext
        assert made.pixels.std() > 1
        webui.same(x4(given, width=32, height=32).pixels, made.pixels)


class TestTheHostKeepsItsWays:
    def test_pictures_without_the_pass_stay_the_same(self, x4, webui, picture):
        host = webui.warm(picture).pixels
        ours = webui.ours(picture).pixels
        x4(seed=99, batch_size=2)
        webui.same(webui.ours(picture).pixels, ours)
        x4({"x4_sampler": "DPM++ SDE"}, seed=5)
        x4(seed=7)
        webui.same(webui.host(picture).pixels, host)

    def test_options_stay_the_same(self, x4, webui):
        before = webui.call("/sdapi/v1/options")
        x4()
        assert webui.call("/sdapi/v1/options") == before


class TestWaiting:
    def progress(self, webui):
        return webui.call("/sdapi/v1/progress?skip_current_image=true")

    def during(self, webui, call, then):
        """Run `call`, and `then` when the pass has begun; what the progress bar showed on the way."""
        shown = []
        with ThreadPoolExecutor() as pool:
            running = pool.submit(call)
            while not running.done():
                now = self.progress(webui)
                shown.append(now)
                if (now["textinfo"] or "").startswith("x4 upscaler") and now["state"]["sampling_step"] >= 2:
                    break
                time.sleep(0.01)
            else:
                pytest.fail(f"the pass was never seen: {shown}")
            then()
            return running.result(), shown

    def test_progress_counts_tiles(self, x4, webui):
        given = {"x4_steps": 100, "x4_tile": 64, "x4_overlap": 16}
        shares: list[float] = []

        def watch():
            while len(set(shares)) < 5 and self.progress(webui)["state"]["job"]:
                shares.append(self.progress(webui)["progress"])
                time.sleep(0.02)
            webui.call("/sdapi/v1/interrupt", {})

        _, shown = self.during(webui, lambda: x4(given), watch)
        assert shown[-1]["state"]["sampling_steps"] >= 100 * 4
        assert shares[0] >= 0.5  # the first pass is half of the work
        assert shares == sorted(shares)
        assert len(set(shares)) >= 5

    @pytest.mark.parametrize("how", ["interrupt", "skip"])
    def test_stopped_within_a_tile_the_picture_before_is_kept(self, x4, webui, picture, how):
        started = []

        def stop():
            started.append(time.monotonic())
            webui.call(f"/sdapi/v1/{how}", {})

        result, _ = self.during(webui, lambda: x4({"x4_steps": 400}), stop)
        assert time.monotonic() - started[0] < 10
        webui.same(result.pixels, webui.ours(picture, {}).pixels)
        webui.need_infotexts_after_passes(picture)
        written = parameters(result.infotext)
        assert not [label for label in written if label.startswith("x4")]
        assert "interrupted; the picture before it is kept" in result.infotext


def test_its_numbers_are_axes_of_xyz_plot(webui, picture, x4_model):
    scripts = webui.call("/sdapi/v1/script-info")
    info = next(script for script in scripts if script["name"] == "x/y/z plot" and script["is_img2img"])
    label = "[Latent Upscale] x4 noise level"
    args = [info["args"][0]["choices"].index(label), "10-30 (+20)", [], 0, "", [], 0, "", []]
    wanted = {"Draw legend": False, "Include Sub Images": True, "Use text inputs instead of dropdowns": True}
    args += [wanted.get(control["label"], control["value"]) for control in info["args"][9:]]
    result = webui.host(picture, script_name="x/y/z plot", script_args=args, steps=2)
    written = result.info["infotexts"][-2:]
    assert ["x4 upscaler noise level: 10," in text for text in written] == [True, False]
    assert ["x4 upscaler noise level: 30," in text for text in written] == [False, True]


class TestComparison:
    def test_the_pass_is_one_more_variant(self, x4, webui, picture, x4_model):
        result = x4({"compare": True})
        record = result.info["extra_generation_params"]["Latent upscale comparison"]
        shown = [one["name"] for one in record["pictures"]]
        assert shown[-4:] == [
            "WebUI, latent upscale",
            "WebUI, Just resize",
            "Latent Upscale",
            "Latent Upscale + x4 upscaler",
        ]
        assert [one.size for one in result.pictures[-3:]] == [(128, 128), (128, 128), (512, 512)]
        *others, last = record["comparisons"][0]["variants"]
        assert last["shrunk_from"] == [512, 512]
        assert last["passes"] == ["x4 upscaler"]
        webui.same(pixels(result.pictures[-1]), x4().pixels)
        webui.same(pixels(result.pictures[-2]), webui.ours(picture, {}).pixels)
        assert f"x4 upscaler model: {x4_model}" in result.info["infotexts"][-1]
        assert not any("x4 upscaler" in one["parameters"] for one in others)
        assert f"x4 upscaler model: {x4_model}" in result.infotext
