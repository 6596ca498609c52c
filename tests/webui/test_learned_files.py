"""The user's own latent upscalers in the WebUI: the files of a folder are in the menus, and methods like others."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lib_latent_upscale.learned import upscale_with, weights_hash
from lib_latent_upscale.learned.files import file_hash
from tests.core import latent_files
from tests.webui.comparing_host import names

NAME = "sd15_resizer"
METHOD = f"learned-latent: {NAME}"


@pytest.fixture
def folder(webui, tmp_path):
    webui.modules["modules.paths"].models_path = str(tmp_path)
    return tmp_path / "latent-upscaler"


@pytest.fixture
def own(folder):
    return latent_files.saved(latent_files.nnlatent(), folder / f"{NAME}.safetensors")


@pytest.fixture
def sd1(webui):
    return SimpleNamespace(is_sd1=True)


def control(webui, elem_id):
    controls = webui.script.ui(True)
    return next(one for one in controls if one.elem_id == f"script_latent_upscale_{elem_id}")


def pasted(webui, infotext, elem_id="method"):
    menu = control(webui, elem_id)
    webui.script.ui(True)
    read = next(read for one, read in webui.script.infotext_fields if one.elem_id == menu.elem_id)
    return read(infotext)


def test_without_a_folder_nothing_happens(webui, folder):
    assert not any(name.startswith("learned-latent: ") for name in control(webui, "method").choices)
    assert not folder.exists()


@pytest.mark.parametrize("elem_id", ["method", "compare_methods"])
def test_files_stand_behind_the_other_methods(webui, own, elem_id):
    latent_files.saved(latent_files.sesqui(), own.with_name("upscaler_SDXL.safetensors"))
    (own.parent / "notes.txt").write_text("no upscaler")
    choices = control(webui, elem_id).choices
    assert choices[-2:] == [METHOD, "learned-latent: upscaler_SDXL"]
    assert "nearest-exact" in choices


def test_the_button_beside_the_menu_finds_a_file_that_came_later(webui, folder):
    refreshed = {}
    button = webui.adapter("host.ui").__dict__["create_refresh_button"]
    assert callable(button)
    webui.adapter("host.ui").create_refresh_button = lambda _menu, _, look, elem_id: refreshed.update({elem_id: look})
    webui.script.ui(True)
    look = refreshed["script_latent_upscale_method_refresh"]
    assert METHOD not in look()["choices"]
    latent_files.saved(latent_files.nnlatent(), folder / f"{NAME}.safetensors")
    assert look()["choices"][-1] == METHOD


def test_a_setting_names_a_further_folder(webui, own, tmp_path):
    latent_files.saved(latent_files.nnlatent(), tmp_path / "more" / "further.safetensors")
    webui.options.latent_upscale_learned_folder = f' "{tmp_path / "more"}" '
    assert control(webui, "method").choices[-2:] == ["learned-latent: further", METHOD]


def test_a_call_by_name_runs_the_network_and_names_its_weights(webui, own, picture, sd1, plain_sampler):
    made = webui.run(webui.process(picture, sd_model=sd1, next_sampler=plain_sampler), {"method": METHOD})
    assert made.infotexts[0]["Latent upscale method"] == METHOD
    assert made.infotexts[0]["Latent upscale weights"] == file_hash(own)
    webui.run(webui.process(picture, sd_model=sd1, next_sampler=(plain := type(plain_sampler)())), {"method": "area"})
    assert plain_sampler.latent.shape == plain.latent.shape == (1, 4, 16, 16)
    torch.manual_seed(7)
    encode = webui.modules["modules.processing"].images_tensor_to_samples
    pixels = webui.adapter("run.latent_upscale")._pixels(picture)
    expected = upscale_with(own, encode(pixels), (16, 16), "sd1")
    torch.testing.assert_close(plain_sampler.latent, expected, rtol=1e-4, atol=1e-4)


def test_a_batch_has_the_pictures_that_each_seed_has_alone(webui, own, picture, sd1):
    together = webui.run(webui.process(picture, sd_model=sd1, batch_size=2), {"method": METHOD}).latents[0]
    alone = webui.run(webui.process(picture, sd_model=sd1, seed=8), {"method": METHOD}).latents[0]
    torch.testing.assert_close(together[1:], alone)


def damaged(path):
    path.write_bytes(b"no file of numbers")


def unknown(path):
    latent_files.saved({"weight": torch.zeros(3)}, path)


def of_sdxl(path):
    latent_files.saved(latent_files.sesqui(), path)


def pickled(path):
    torch.save(latent_files.nnlatent(), path.with_suffix(".pt"))


def absent(_):
    pass


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (damaged, "damaged"),
        (unknown, "not hold a supported latent upscaler"),
        (of_sdxl, "for the latents of SDXL, not for those of SD 1.x and 2.x"),
        (pickled, "latent-upscale convert mine.pt"),
        (absent, "there is no file of that name; there are: sd15_resizer. Put it into"),
    ],
)
def test_what_cannot_be_used_is_refused_when_it_is_chosen(webui, own, picture, sd1, write, said):
    write(own.with_name("mine.safetensors"))
    webui.reload()
    assert ("learned-latent: mine" in control(webui, "method").choices) == (write is not absent)
    p = webui.process(picture, sd_model=sd1)
    p.sample = lambda **_: pytest.fail("sampling has begun")
    with pytest.raises(ValueError, match=said) as refused:
        webui.run(p, {"method": "learned-latent: mine"})
    assert refused.value.status_code == 422


def test_a_size_that_it_does_not_make_is_refused_in_a_sentence(webui, own, picture, sd1):
    p = webui.process(picture, sd_model=sd1, width=256, height=256)
    with pytest.raises(ValueError, match="makes pictures 1 to 2 times larger") as refused:
        webui.run(p, {"method": METHOD})
    assert refused.value.status_code == 422


def test_a_folder_that_cannot_be_read_is_no_error_at_the_start(webui, folder):
    folder.write_text("a file in its place")
    webui.reload()
    assert control(webui, "method").value == "automatic"


@pytest.mark.parametrize("mask", ["whole", "only masked"])
def test_masks_work_as_with_other_methods(webui, own, picture, sd1, plain_sampler, mask):
    from PIL import Image

    white = Image.new("L", picture.size, 0)
    white.paste(255, (0, 0, 64, 64))
    p = webui.process(picture, sd_model=sd1, next_sampler=plain_sampler, image_mask=white, resize_mode=0)
    p.inpaint_full_res = mask == "only masked"
    assert webui.run(p, {"method": METHOD}).images[0].size == (128, 128)


def test_a_pasted_infotext_finds_the_file_under_another_name(webui, own):
    own.rename(own.with_name("renamed.safetensors"))
    weights = file_hash(own.with_name("renamed.safetensors"))
    update = pasted(webui, {"Latent upscale method": METHOD, "Latent upscale weights": weights})
    assert update.value == "learned-latent: renamed"


def test_a_pasted_infotext_prefers_the_file_of_its_name(webui, own):
    latent_files.saved(latent_files.nnlatent(), own.with_name("another.safetensors"))
    update = pasted(webui, {"Latent upscale method": METHOD, "Latent upscale weights": file_hash(own)})
    assert update.value == METHOD


def test_a_pasted_infotext_of_an_absent_file_is_kept_and_refused_with_its_name(webui, own, picture):
    own.unlink()
    update = pasted(webui, {"Latent upscale method": METHOD, "Latent upscale weights": "0123456789"})
    assert update.value == METHOD
    assert update.choices[-1] == METHOD, "some versions of Gradio refuse a value that the menu has not"
    with pytest.raises(ValueError, match=rf"method is '{METHOD}', and there is no file of that name; there is none"):
        webui.run(webui.process(picture), {"method": update.value})


@pytest.mark.parametrize("method", [METHOD, "learned"])
def test_other_weights_than_those_of_a_pasted_infotext_are_said(webui, own, caplog, monkeypatch, method):
    shown = []
    monkeypatch.setattr(webui.adapter("ui.panel").gr, "Warning", shown.append, raising=False)
    update = pasted(webui, {"Latent upscale method": method, "Latent upscale weights": "0123456789"})
    assert getattr(update, "value", update) == method
    (said,) = shown
    assert said in caplog.text
    here = file_hash(own) if method == METHOD else weights_hash("restore", "sd1")
    assert "made with the weights 0123456789; those here are" in said
    assert here in said
    pasted(webui, {"Latent upscale method": method, "Latent upscale weights": here})
    pasted(webui, {"Latent upscale method": method})
    assert shown == [said]


def test_other_methods_are_pasted_as_they_are(webui, own):
    assert pasted(webui, {"Latent upscale method": "area"}) == "area"
    assert pasted(webui, {}) is None


def test_a_default_whose_file_is_gone_is_shown_and_refused(webui, own, picture):
    webui.options.latent_upscale_method = METHOD
    own.unlink()
    menu = control(webui, "method")
    assert menu.value in menu.choices
    with pytest.raises(ValueError, match="no file of that name"):
        webui.run(webui.process(picture))


def test_it_is_a_value_of_the_axis_and_an_absent_one_is_refused_before_the_first_cell(webui, own, picture):
    (axis,) = [axis for axis in webui.axes if axis.label == "[Latent Upscale] Method"]
    assert METHOD in axis.choices()
    axis.confirm(webui.process(picture), [METHOD, "area"])
    with pytest.raises(ValueError, match="there is no file of that name"):
        axis.confirm(webui.process(picture), ["area", "learned-latent: gone"])


def test_it_takes_part_in_a_comparison_and_one_that_cannot_work_does_not_spoil_it(host, own, picture, sd1):
    of_sdxl(own.with_name("upscaler_SDXL.safetensors"))
    compared = [METHOD, "learned-latent: upscaler_SDXL"]
    result = host.compare(picture, {"compare_methods": compared}, sd_model=sd1)
    assert f"{METHOD} + simple" in names(result)
    assert f"{compared[1]} + simple" not in names(result)
    said = "upscaler_SDXL + simple failed: upscaler_SDXL.safetensors is for the latents of SDXL, not for those of"
    assert said in str(result.comments)


def test_the_settings_page_offers_the_files_that_are_there_when_it_is_shown(webui, own):
    options = webui.adapter("host.options")
    from lib_latent_upscale.options import rows
    from lib_latent_upscale.settings import UpscaleSettings

    row = rows(UpscaleSettings)["method"]
    shown = options._looked_up(row, {"choices": []})
    assert METHOD in shown()["choices"]
    own.rename(own.with_name("other.safetensors"))
    assert shown()["choices"][-1] == "learned-latent: other"
    assert Path(webui.adapter("host.learned_files").own_folder()) == own.parent
