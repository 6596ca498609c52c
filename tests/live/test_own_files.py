"""The user's own latent upscalers in `models/latent-upscaler`, against a real WebUI whose latents are SD 1.x's."""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lib_latent_upscale.checkpoints import short_hash
from lib_latent_upscale.method_files import method_of_file
from tests.core.latent_files import city96, nnlatent, saved, sesqui
from tests.live.browser import Page
from tests.live.calls import (
    MASK_CHANGES,
    MASKED,
    check_each_alone,
    check_masked,
    grid,
    parameters,
    refused,
    square_mask,
)
from tests.live.test_hires import made as made_with_hires_fix
from tests.live.test_hires import upscaler_in

Put = Callable[[str, Mapping[str, Tensor]], Path]

STACKED, EMBEDDED = "latent-upscaler-v2.1_SDv1-x2.0", "sd15_live_resizer"
LAYOUTS: dict[str, Callable[[], dict[str, Tensor]]] = {STACKED: city96, EMBEDDED: nnlatent}
"""Those that know the latents of SD 1.x; SesquiLSR's are for others."""

FOLDER_OPTION = "latent_upscale_learned_folder"
TITLE = "Latent Upscale: "


def calm(numbers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Random numbers small enough that a picture can be seen."""
    return {name: value * 0.5 for name, value in numbers.items()}


@pytest.fixture(scope="module")
def folder(webui, picture) -> Iterator[Path]:
    """The folder among the WebUI's models, as the WebUI names it."""
    said = refused(webui.ours, picture, {"method": method_of_file("no such")}).message
    found = Path(re.search(r"Put it into (.+), or choose", said).group(1))
    if not found.parent.is_dir():
        pytest.skip("the WebUI runs on another machine: no file can be put into its folder")
    new = not found.is_dir()
    found.mkdir(exist_ok=True)
    yield found
    if new:
        found.rmdir()


@pytest.fixture
def put(folder) -> Iterator[Put]:
    """Writes a file for one test."""
    files = []

    def write(name: str, numbers: Mapping[str, Tensor]) -> Path:
        files.append(saved(calm(numbers), folder / f"{name}.safetensors"))
        return files[-1]

    yield write
    for file in files:
        file.unlink(missing_ok=True)


@pytest.fixture
def own(webui, picture, put) -> Path:
    """A file that works with the WebUI's checkpoint."""
    file = put(EMBEDDED, nnlatent())
    try:
        webui.ours(picture, {"method": method_of_file(EMBEDDED)})
    except Exception as error:
        if "is for the latents of" not in str(error):
            raise
        pytest.skip("the latents of the WebUI's checkpoint are not those of SD 1.x")
    return file


METHOD = method_of_file(EMBEDDED)
WEIGHTS = "Latent upscale weights"


@pytest.mark.usefixtures("own")
class TestEachLayout:
    @pytest.fixture(params=LAYOUTS)
    def file(self, request, put) -> Path:
        return put(request.param, LAYOUTS[request.param]())

    def test_a_picture_of_its_own_comes_out_with_the_files_name_and_hash(self, webui, picture, file):
        result = webui.ours(picture, {"method": method_of_file(file.stem)})
        written = parameters(result.infotext)
        assert result.pictures[0].size == (128, 128)
        assert written["Latent upscale method"].strip('"') == method_of_file(file.stem)
        assert written[WEIGHTS] == short_hash(file)
        for other in ("learned-latent", "bicubic"):
            assert (webui.ours(picture, {"method": other}).pixels != result.pixels).any()
        webui.same(webui.ours(picture, {"method": method_of_file(file.stem)}).pixels, result.pixels)

    def test_masks(self, webui, picture, file):
        changes = {**MASK_CHANGES, "inpaint_full_res": False}
        given = {"method": method_of_file(file.stem)}
        made = webui.ours(picture, given, mask=square_mask((64, 64), MASKED), **changes).pixels
        check_masked(made, picture, (128, 128), MASKED)

    def test_a_masked_region_that_would_grow_too_much_is_refused(self, webui, picture, file):
        """Only masked: the region itself is enlarged to the result's size."""
        changes = {**MASK_CHANGES, "inpaint_full_res": True, "inpaint_full_res_padding": 0}
        given = {"method": method_of_file(file.stem)}
        error = refused(webui.ours, picture, given, mask=square_mask((64, 64), MASKED), **changes)
        assert error.status == 422
        assert "times larger, but 16x16 cells from 3x3 are requested" in error.message

    def test_each_picture_of_a_batch_can_be_made_alone(self, webui, picture, file):
        check_each_alone(partial(webui.ours, picture, {"method": method_of_file(file.stem)}))


def test_the_host_goes_on_as_before(webui, picture, own):
    before = webui.warm(picture).pixels
    webui.ours(picture, {"method": method_of_file(own.stem)}, seed=99)
    webui.same(webui.host(picture).pixels, before)


def test_a_file_that_is_replaced_is_read_again(webui, picture, own):
    first = webui.ours(picture, {"method": METHOD})
    saved(calm({**nnlatent(), "conv_out.bias": torch.ones(4)}), own)
    second = webui.ours(picture, {"method": METHOD})
    assert parameters(second.infotext)[WEIGHTS] == short_hash(own) != parameters(first.infotext)[WEIGHTS]
    assert (second.pixels != first.pixels).any()


@pytest.mark.usefixtures("own")
class TestRefusals:
    def said(self, webui: Any, picture: Any, name: str, **changes: Any) -> str:
        error = refused(webui.ours, picture, {"method": method_of_file(name)}, **changes)
        assert error.status == 422
        return error.message

    def test_one_for_another_family(self, webui, picture, put):
        put("upscaler_SDXL", sesqui())
        said = self.said(webui, picture, "upscaler_SDXL")
        assert "upscaler_SDXL.safetensors is for the latents of SDXL, not for those of SD 1.x and 2.x" in said

    def test_a_broken_one(self, webui, picture, put):
        file = put("sd15_broken", nnlatent())
        file.write_bytes(file.read_bytes()[:-1000])
        said = self.said(webui, picture, file.stem)
        assert "sd15_broken.safetensors is not a safetensors file, or it is damaged" in said

    def test_one_of_something_else(self, webui, picture, put):
        put("a_lora", {"lora_down.weight": torch.zeros(4, 4)})
        assert "a_lora.safetensors does not hold a supported latent upscaler" in self.said(webui, picture, "a_lora")

    def test_a_pickle_is_not_opened(self, webui, picture, folder):
        pickle = folder / "sd15_pickle.pt"
        torch.save(nnlatent(), pickle)
        try:
            assert "`latent-upscale convert sd15_pickle.pt`" in self.said(webui, picture, "sd15_pickle")
        finally:
            pickle.unlink()

    def test_a_size_that_it_does_not_make(self, webui, picture, put):
        put(STACKED, city96())
        assert "makes pictures 2 times larger" in self.said(webui, picture, STACKED, width=192, height=192)
        assert "makes pictures 1 to 2 times larger" in self.said(webui, picture, EMBEDDED, width=192, height=192)

    def test_one_that_has_gone(self, webui, picture, own):
        own.unlink()
        assert f"method is '{METHOD}', and there is no file of that name" in self.said(webui, picture, EMBEDDED)


def test_the_setting_names_a_further_folder(webui, picture, own, tmp_path):
    own.rename(tmp_path / own.name)
    assert refused(webui.ours, picture, {"method": METHOD}).status == 422
    webui.call("/sdapi/v1/options", {FOLDER_OPTION: str(tmp_path)})
    try:
        made = webui.ours(picture, {"method": METHOD})
    finally:
        webui.call("/sdapi/v1/options", {FOLDER_OPTION: ""})
    assert parameters(made.infotext)[WEIGHTS] == short_hash(tmp_path / own.name)


def test_it_is_a_value_of_the_axis(webui, picture, own):
    cells = [
        np.asarray(one.convert("RGB")).astype(int)
        for one in grid(webui, picture, ("[Latent Upscale] Method", f"{METHOD},bicubic")).pictures[-2:]
    ]
    for method, cell in zip((METHOD, "bicubic"), cells, strict=True):
        webui.same(cell, webui.ours(picture, {"method": method}).pixels)
    said = refused(grid, webui, picture, ("[Latent Upscale] Method", f"bicubic,{method_of_file('gone')}")).message
    assert "there is no file of that name" in said


def test_it_takes_part_in_a_comparison_and_one_that_cannot_work_is_said(webui, picture, own, put):
    put("upscaler_SDXL", sesqui())
    compared = [METHOD, method_of_file("upscaler_SDXL")]
    result = webui.ours(picture, {"compare": True, "compare_methods": compared})
    record = result.info["extra_generation_params"]["Latent upscale comparison"]["comparisons"][0]
    names = [one["name"] for one in record["variants"]]
    assert f"{METHOD} + simple" in names
    assert not any("SDXL" in name for name in names)
    assert "upscaler_SDXL + simple failed" in result.infotext


class TestHiresFix:
    def test_by_name(self, webui, own):
        result = made_with_hires_fix(webui, TITLE + METHOD)
        assert result.pictures[-1].size == (128, 256)
        assert upscaler_in(result.infotext) == TITLE + METHOD
        assert parameters(result.infotext)[WEIGHTS] == short_hash(own)
        webui.same(made_with_hires_fix(webui, TITLE + METHOD).pixels, result.pixels)

    def test_what_cannot_work_is_refused(self, webui, own, put):
        put("upscaler_SDXL", sesqui())
        said = refused(made_with_hires_fix, webui, TITLE + method_of_file("upscaler_SDXL")).message
        assert "for the latents of SDXL, not for those of SD 1.x" in said
        said = refused(made_with_hires_fix, webui, TITLE + METHOD, hr_scale=3).message
        assert "makes pictures 1 to 2 times larger" in said


class TestOnThePage:
    """Menus are made when the page is built; the button beside one looks again."""

    def refresh(self, page: Page) -> None:
        page.choose("Script", "Latent Upscale")
        page.panel.locator("button[id$=method_refresh]:visible").first.click()
        page.page.wait_for_timeout(1500)

    def shown(self, page: Page, wanted: str) -> None:
        """Wait until the menu of methods shows this."""
        page.page.wait_for_function(
            "([panel, wanted]) => [...document.querySelectorAll(`${panel} input`)].some(one => one.value === wanted)",
            arg=["#img2img_script_container [id$=latent_upscale_method]", wanted],
            timeout=30_000,
        )

    def test_it_is_chosen_after_a_refresh_and_makes_the_apis_picture(self, webui, page, picture, own):
        half = picture.resize((page.edge // 2, page.edge // 2))  # the file makes pictures twice as large at most
        page.upload(half)
        self.refresh(page)
        page.choose("Upscale method", METHOD)
        page.sampler("Euler")
        page.generate()
        assert f'Latent upscale method: "{METHOD}"' in page.infotext
        assert f"{WEIGHTS}: {short_hash(own)}" in page.infotext
        made = np.asarray(page.results[-1].convert("RGB")).astype(int)
        webui.same(made, page.over_api(webui, half, {"method": METHOD}))

    def test_what_cannot_work_is_said_below_the_result(self, page, own, put):
        put("upscaler_SDXL", sesqui())
        self.refresh(page)
        page.choose("Upscale method", method_of_file("upscaler_SDXL"))
        page.generate()
        assert "upscaler_SDXL.safetensors is for the latents of SDXL, not for those of SD 1.x and 2.x" in page.said

    def test_a_pasted_picture_finds_the_file_under_another_name(self, webui, page, picture, own):
        made = webui.ours(picture, {"method": METHOD})
        renamed = own.rename(own.with_name("renamed_resizer.safetensors"))
        try:
            page.paste(made.infotext)
            self.shown(page, method_of_file("renamed_resizer"))
            page.generate()
        finally:
            renamed.unlink()
        assert f"{WEIGHTS}: {parameters(made.infotext)[WEIGHTS]}" in page.infotext
        webui.same(np.asarray(page.results[-1].convert("RGB")).astype(int), made.pixels)

    def test_other_weights_than_those_of_a_pasted_picture_are_said(self, webui, page, picture, own):
        made = webui.ours(picture, {"method": METHOD})
        saved(calm({**nnlatent(), "conv_out.bias": torch.ones(4)}), own)
        page.paste(made.infotext)
        toast = page.page.locator(".toast-body").filter(has_text="made with the weights")
        toast.first.wait_for(timeout=30_000)
        said = toast.first.inner_text()
        assert parameters(made.infotext)[WEIGHTS] in said
        assert short_hash(own) in said
        self.shown(page, METHOD)
