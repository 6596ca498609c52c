"""Features of the host that go on working with the script, over the API, against a real WebUI."""

import base64
import io
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from safetensors import safe_open
from safetensors.torch import save_file

from tests.live.calls import (
    LIKE_HOST,
    LONG,
    MASK_CHANGES,
    MASKED,
    check_masked,
    checkpoint,
    need_whole_when_interrupted,
    options,
    refused,
    square_mask,
    while_running,
)

TOO_LARGE = "LATENT_UPSCALE_TOO_LARGE"
"""A side length in pixels at which the WebUI is out of memory: for a WebUI with limited memory."""


def pictures_of(result: Any, count: int) -> list[np.ndarray]:
    """The last pictures of a result; a grid may come before them."""
    return [np.asarray(one.convert("RGB")).astype(int) for one in result.pictures[-count:]]


LORA = "latent-upscale-live-test"


@pytest.fixture(scope="module")
def lora(webui) -> Iterator[str]:
    """A small random LoRA in the WebUI's folder, which must be on this machine; as it is written in a prompt."""
    chosen = webui.call("/sdapi/v1/options")["sd_model_checkpoint"]
    models = {model["title"]: Path(model["filename"]) for model in webui.checkpoints()}
    checkpoint = models.get(chosen) or next(iter(models.values()))
    folder = lora_folder(webui, checkpoint)
    if not folder.is_dir() or not os.access(folder, os.W_OK) or not checkpoint.is_file():
        pytest.skip(f"the WebUI's folder for LoRA ({folder}) is not on this machine, or not writable")
    file = folder / f"{LORA}.safetensors"
    save_file(random_lora(checkpoint), file)
    try:
        webui.call("/sdapi/v1/refresh-loras", {})
        yield f"<lora:{LORA}:1>"
    finally:
        file.unlink()
        webui.call("/sdapi/v1/refresh-loras", {})


def lora_folder(webui: Any, checkpoint: Path) -> Path:
    """As the WebUI says; Forge fails when it is asked, and has it beside the folder of its checkpoints."""
    try:
        return Path(webui.call("/sdapi/v1/cmd-flags").get("lora_dir") or "no such folder")
    except Exception as error:
        if type(error).__name__ != "RefusedError":
            raise
        return checkpoint.parent.parent / "Lora"


def random_lora(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Rank 4, on the U-Net's last convolution, as strong as its own weights."""
    with safe_open(checkpoint, "pt") as kept:
        weight = kept.get_tensor("model.diffusion_model.out.2.weight").float()
    rng = torch.Generator().manual_seed(5)
    return {
        "lora_unet_conv_out.lora_down.weight": torch.randn(4, *weight.shape[1:], generator=rng) * weight.std(),
        "lora_unet_conv_out.lora_up.weight": torch.randn(weight.shape[0], 4, 1, 1, generator=rng) / 2,
        "lora_unet_conv_out.alpha": torch.tensor(4.0),
    }


class TestLora:
    def test_it_changes_the_picture(self, webui, picture, lora):
        plain = webui.ours(picture)
        changed = webui.ours(picture, prompt=f"a lighthouse {lora}")
        assert np.abs(changed.pixels - plain.pixels).mean() > 1
        host = webui.host(picture, prompt=f"a lighthouse {lora}")
        assert ("Lora hashes: " in changed.infotext) == ("Lora hashes: " in host.infotext)
        webui.same(webui.ours(picture).pixels, plain.pixels)

    def test_the_hosts_settings_give_the_hosts_picture(self, webui, picture, lora):
        changes = {"prompt": f"a lighthouse {lora}"}
        host = webui.warm(picture, **changes).pixels
        webui.same(webui.ours(picture, LIKE_HOST, **changes).pixels, host)
        webui.same(webui.host(picture, **changes).pixels, host)


class TestRestoreFaces:
    def test_every_restorer_gets_what_the_host_gives_it(self, webui, picture):
        """One whose weights are missing leaves the picture as it is, with the script and without it."""
        for restorer in webui.call("/sdapi/v1/face-restorers"):
            chosen = {"override_settings": {"face_restoration_model": restorer["name"]}, "restore_faces": True}
            host = webui.warm(picture, **chosen)
            ours = webui.ours(picture, LIKE_HOST, **chosen)
            webui.same(ours.pixels, host.pixels)
            assert f"Face restoration: {restorer['name']}" in ours.infotext

    def test_sizes_that_are_no_multiples_of_eight(self, webui, picture):
        for restorer in webui.call("/sdapi/v1/face-restorers"):
            chosen = {"override_settings": {"face_restoration_model": restorer["name"]}, "restore_faces": True}
            assert webui.ours(picture, width=100, height=92, **chosen).pictures[0].size == (100, 92)


class TestSeedsAndBatches:
    def test_batch_count_and_size_together(self, webui, picture):
        together = webui.ours(picture, n_iter=2, batch_size=2)
        assert together.info["all_seeds"] == [7, 8, 9, 10]
        for seed, made in zip(together.info["all_seeds"], pictures_of(together, 4), strict=True):
            assert np.abs(made - webui.ours(picture, seed=seed).pixels).max() <= 1

    def test_variation_seeds_of_a_batch(self, webui, picture):
        varied = {"subseed": 20, "subseed_strength": 0.3}
        together = webui.ours(picture, batch_size=2, **varied)
        assert together.info["all_seeds"] == [7, 7]
        for subseed, made in zip(together.info["all_subseeds"], pictures_of(together, 2), strict=True):
            alone = webui.ours(picture, subseed=subseed, subseed_strength=0.3).pixels
            assert np.abs(made - alone).max() <= 1
            assert (alone != webui.ours(picture).pixels).any()

    def test_a_variation_of_full_strength_is_the_other_seed(self, webui, picture):
        """At denoising strength 1 the encode's draw, which keeps the seed, no longer shows."""
        whole = {"denoising_strength": 1.0, "steps": 8}
        varied = webui.ours(picture, subseed=20, subseed_strength=1.0, **whole).pixels
        distances = [np.abs(varied - webui.ours(picture, seed=seed, **whole).pixels).mean() for seed in (20, 7)]
        assert distances[0] < distances[1]

    def test_seeds_resized_from_another_size(self, webui, picture):
        changes = {"seed_resize_from_w": 64, "seed_resize_from_h": 64}
        host = webui.warm(picture, **changes).pixels
        webui.same(webui.ours(picture, LIKE_HOST, **changes).pixels, host)

    @pytest.mark.parametrize("full_res", [False, True], ids=["whole picture", "only masked"])
    def test_several_init_pictures_with_a_mask(self, webui, picture, full_res):
        """The host takes pictures of one size and one mask."""
        pictures = [picture, ImageOps.flip(picture)]
        mask = square_mask((64, 64), MASKED)
        changes = {**MASK_CHANGES, "inpaint_full_res": full_res, "batch_size": 2}
        made = pictures_of(webui.ours(pictures, mask=mask, **changes), 2)
        for result, source in zip(made, pictures, strict=True):
            check_masked(result, source, (128, 128), MASKED)

    @pytest.mark.parametrize("full_res", [False, True], ids=["whole picture", "only masked"])
    def test_batch_count_and_size_with_a_mask(self, webui, picture, full_res):
        mask = square_mask((64, 64), MASKED)
        changes = {**MASK_CHANGES, "inpaint_full_res": full_res, "batch_size": 2, "n_iter": 2}
        for made in pictures_of(webui.ours(picture, mask=mask, **changes), 4):
            check_masked(made, picture, (128, 128), MASKED)


class TestMasks:
    @pytest.mark.parametrize("invert", [0, 1], ids=["", "inverted"])
    @pytest.mark.parametrize("blur", [0, 3], ids=["sharp", "blurred"])
    @pytest.mark.parametrize("fill", [0, 1, 2, 3], ids=["fill", "original", "latent noise", "latent nothing"])
    @pytest.mark.parametrize("full_res", [False, True], ids=["whole picture", "only masked"])
    def test_all_of_its_controls_together(self, webui, picture, full_res, fill, blur, invert):
        mask = square_mask((64, 64), MASKED)
        changes = {
            "mask": ImageOps.invert(mask) if invert else mask,
            "inpaint_full_res": full_res,
            "inpainting_fill": fill,
            "mask_blur": blur,
            "inpainting_mask_invert": invert,
            "denoising_strength": 0.9,
        }
        made = webui.ours(picture, **changes).pixels
        check_masked(made, picture, (128, 128), MASKED, fade=4 * blur)

    @pytest.mark.parametrize("size", [(128, 128), (100, 92)])
    @pytest.mark.parametrize("fill", [0, 1, 2, 3], ids=["fill", "original", "latent noise", "latent nothing"])
    @pytest.mark.parametrize("full_res", [False, True], ids=["whole picture", "only masked"])
    def test_an_inpainting_model(self, webui, picture, full_res, fill, size):
        changes = {
            **MASK_CHANGES,
            "inpaint_full_res": full_res,
            "inpainting_fill": fill,
            "override_settings": {"sd_model_checkpoint": checkpoint(webui, "inpainting")},
        }
        mask = square_mask((64, 64), MASKED)
        made = webui.ours(picture, mask=mask, width=size[0], height=size[1], **changes).pixels
        check_masked(made, picture, size, MASKED)

    def test_what_is_outside_the_mask_comes_back_without_the_script_too(self, webui, picture):
        """A generation with a mask leaves nothing behind."""
        call = {"mask": square_mask((64, 64), MASKED), "resize_mode": 0, **MASK_CHANGES}
        before = webui.warm(picture, **call).pixels
        alone = webui.host(picture, **call).pixels
        webui.ours(picture, mask=call["mask"], inpaint_full_res=True)
        after = webui.host(picture, **call).pixels
        if (alone == before).all():
            webui.same(after, before)
        else:  # ersatzForge never seeds the encode's draw, which decides what is filled in
            check_masked(after, picture, after.shape[1::-1], MASKED)


class TestStopping:
    long: ClassVar = LONG

    def test_skip_goes_on_with_the_next_picture(self, webui, picture):
        before = webui.warm(picture).pixels
        with while_running(webui, webui.ours, picture, n_iter=2, **self.long) as running:
            webui.call("/sdapi/v1/skip", {})
            skipped, whole = pictures_of(running.result(), 2)
        alone = webui.ours(picture, **{**self.long, "seed": 8}).pixels
        assert skipped.shape == whole.shape
        assert np.abs(whole - alone).max() <= 1
        assert (skipped != webui.ours(picture, **self.long).pixels).any()
        webui.same(webui.host(picture).pixels, before)

    @pytest.mark.parametrize("full_res", [False, True], ids=["whole picture", "only masked"])
    def test_interrupting_with_a_mask_keeps_the_surroundings(self, webui, picture, full_res):
        before = webui.warm(picture).pixels
        mask = square_mask((64, 64), MASKED)
        changes = {**MASK_CHANGES, "inpaint_full_res": full_res, **self.long}
        with while_running(webui, webui.ours, picture, mask=mask, **changes) as running:
            webui.call("/sdapi/v1/interrupt", {})
            made = running.result().pixels
        webui.same(webui.host(picture).pixels, before)
        need_whole_when_interrupted(webui, picture, made.shape[1::-1])
        check_masked(made, picture, (256, 256), MASKED)

    def test_an_interrupted_batch_keeps_what_is_finished(self, webui, picture):
        with while_running(webui, webui.ours, picture, n_iter=4, job=1, **self.long) as running:
            webui.call("/sdapi/v1/interrupt", {})
            result = running.result()
        finished, unfinished = pictures_of(result, 2)
        assert len(result.pictures) <= 3  # with a grid
        webui.same(finished, webui.ours(picture, **self.long).pixels)
        need_whole_when_interrupted(webui, picture, unfinished.shape[1::-1])
        assert unfinished.shape == finished.shape

    def test_skip_and_interrupt_of_a_comparison(self, webui, picture):
        """Neither of them breaks it; the host goes on as before."""
        before = webui.warm(picture).pixels
        for path in ("/sdapi/v1/skip", "/sdapi/v1/interrupt"):
            with while_running(webui, webui.ours, picture, {"compare": True}, job=1, **self.long) as running:
                webui.call(path, {})
                result = running.result()
            assert result.pictures[-1].size == (256, 256)
            webui.same(webui.host(picture).pixels, before)


def test_settings_changed_while_a_picture_is_made_are_the_users(webui, picture):
    """Other extensions are told meanwhile that all steps run, by an option of the host."""
    name = "img2img_fix_steps"
    with options(webui, **{name: False}):
        with while_running(webui, webui.ours, picture, {"exact_steps": True}, **LONG) as running:
            assert webui.call("/sdapi/v1/options")[name] is False
            webui.call("/sdapi/v1/options", {name: True})
            assert not running.done()
            running.result()
        assert webui.call("/sdapi/v1/options")[name] is True


class TestLivePreviews:
    @pytest.mark.parametrize("compare", [False, True], ids=["alone", "comparing"])
    def test_they_show_the_enlarged_picture(self, webui, wide_picture, compare):
        changes = {"steps": 60, "width": 384, "height": 256}
        wanted = {"live_previews_enable": True, "show_progress_every_n_steps": 1, "show_progress_type": "Approx cheap"}
        shown: list[Image.Image] = []
        call = (webui, webui.ours, wide_picture, {"compare": compare})
        with options(webui, **wanted), while_running(*call, **changes) as running:
            while not running.done() and len({one.tobytes() for one in shown}) < 3:
                current = webui.call("/sdapi/v1/progress")["current_image"]
                shown += [Image.open(io.BytesIO(base64.b64decode(current)))] if current else []
                time.sleep(0.05)
            if compare:
                webui.call("/sdapi/v1/interrupt", {})
            result = running.result()
        assert len({one.tobytes() for one in shown}) >= 2
        assert all(one.width * 256 == one.height * 384 for one in shown)
        if not compare:
            with options(webui, live_previews_enable=False):
                webui.same(webui.ours(wide_picture, {}, **changes).pixels, result.pixels)


class TestOthers:
    def test_calls_without_the_script_between_calls_with_it(self, webui, picture, wide_picture):
        """The host's own draw of an encode depends on what ran before; at one seed for all it is that seed's."""
        calls = [lambda: webui.host(picture), lambda: webui.ours(picture), lambda: webui.ours(wide_picture, ["area"])]
        calls = [call for _ in range(4) for call in calls]
        webui.warm(picture)
        alone = [call().pixels for call in calls]
        with ThreadPoolExecutor(len(calls)) as pool:
            together = list(pool.map(lambda call: call().pixels, calls))
        for single, result in zip(alone, together, strict=True):
            webui.same(result, single)

    @pytest.mark.skipif(
        TOO_LARGE not in os.environ, reason=f"put a size that exhausts the WebUI's memory into {TOO_LARGE}"
    )
    @pytest.mark.parametrize("source", [False, True], ids=["the result", "the init picture"])
    def test_running_out_of_memory_leaves_the_host_as_it_was(self, webui, picture, source):
        side = int(os.environ[TOO_LARGE])
        size = (128, 128) if source else (side, side)
        before, kept = webui.warm(picture).pixels, webui.call("/sdapi/v1/options")
        ours = webui.ours(picture).pixels
        large = picture.resize((side, side)) if source else picture
        error = refused(webui.ours, large, seed=99, width=size[0], height=size[1])
        assert error.status == 500
        assert "memory" in error.message
        webui.same(webui.host(picture).pixels, before)
        webui.same(webui.ours(picture).pixels, ours)
        assert webui.call("/sdapi/v1/options") == kept
