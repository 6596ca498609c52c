"""Tile ControlNet and the second pass, on doubles of the host and of its ControlNet."""

import copy
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import field as dataclass_field
from dataclasses import fields, make_dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from lib_latent_upscale.schedules import get_sigmas
from lib_latent_upscale.tile_settings import TileSettings

TABLE = torch.linspace(0.03, 14.6, 1000)
WIDTHS = {"SD 1.x": 768, "SD 2.x": 1024, "SDXL": 2048, "thin": 64}


def _double() -> Any:
    path = Path(__file__).with_name("controlnet_double.py")
    spec = importlib.util.spec_from_file_location("controlnet_double", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["controlnet_double"] = module
    spec.loader.exec_module(module)
    return module


double = _double()


def control_file(path: Path, family: str = "SD 1.x", layout: str = "control_model.input_hint_block.0.weight") -> str:
    attention = "control_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    save_file({layout: torch.zeros(16, 3, 3, 3), attention: torch.zeros(320, WIDTHS[family])}, path)
    return str(path)


class Lab:
    """A host with a ControlNet, a checkpoint and models."""

    models: dict[str, str]
    """Files in ControlNet's folder, which it finds when it looks again."""

    def __init__(self, webui: Any, script: Any, folder: Path) -> None:
        self.webui, self.script, self.folder = webui, script, folder
        webui.runner.alwayson_scripts = [script, webui.companion]
        webui.runner.scripts = [script, *webui.runner.scripts]
        webui.arguments[:3] = [None, None, None]
        webui.modules["modules.paths"].models_path = str(folder)
        self.checkpoint("SD 1.x")

    def checkpoint(self, family: str) -> None:
        path = self.folder / f"{family}.safetensors"
        save_file({"model.diffusion_model.x.attn2.to_k.weight": torch.zeros(320, WIDTHS[family])}, path)
        aliases = self.webui.modules["modules.sd_models"].checkpoint_aliases
        aliases[family] = SimpleNamespace(name=path.name, filename=str(path))
        self.webui.options.sd_model_checkpoint = family

    def unit(self, picture: Image.Image, weight: float) -> Any:
        """One that a user has set up."""
        if isinstance(self.script, double.Extension):
            return {"enabled": True, "model": "canny", "weight": weight, "image": np.asarray(picture)}
        return double.BuiltInUnit(model="canny", weight=weight, image={"image": np.asarray(picture)})

    def run(self, picture: Image.Image, *script_args: Any, units: Any = (), **changes: Any) -> Any:
        p = self.webui.process(picture, **changes)
        p.script_args[: len(units)] = units
        return self.webui.run(p, *script_args)


@pytest.fixture(params=["extension", "built-in"])
def kind(request) -> str:
    return request.param


@pytest.fixture
def lab(webui, kind, tmp_path) -> Iterator[Lab]:
    models = {
        "control_v11p_sd15_canny [11]": control_file(tmp_path / "canny.safetensors"),
        "other_tile [22]": control_file(tmp_path / "other.safetensors"),
        "control_v11f1e_sd15_tile [33]": control_file(tmp_path / "tile.safetensors"),
        "big-Tile [44]": control_file(tmp_path / "big.safetensors", "SDXL", "controlnet_cond_embedding.conv_in.weight"),
        "tile_xl_lora [55]": control_file(tmp_path / "lora.safetensors", "SDXL", "lllite_unet_x"),
        "old_xl_tile [66]": str(tmp_path / "old.pth"),
    }
    with double.installed(kind, models) as script:
        lab = Lab(webui, script, tmp_path)
        lab.models = models
        yield lab


def shift(lab: Lab, picture: Image.Image, given: dict[str, Any], **changes: Any) -> float:
    """How far tile ControlNet moves the latents, all by the same."""
    names = ("method", "scheduler")
    plain = lab.run(picture, {name: given[name] for name in names if name in given}, **changes).latents[0]
    moved = lab.run(picture, {"tile_controlnet": True, **given}, **changes).latents[0] - plain
    assert moved.std() < 1e-6
    return float(moved.mean())


class TestDuringTheUpscale:
    @pytest.mark.parametrize("weight", [0, 0.5, 1.0, 2])
    def test_the_small_picture_guides_by_the_weight(self, lab, picture, weight):
        mean = np.asarray(picture).mean() / 255
        assert shift(lab, picture, {"tile_controlnet_weight": weight}) == pytest.approx(weight * mean, abs=1e-5)

    def test_without_weight_it_is_the_picture_without(self, lab, picture):
        made = lab.run(picture, {"tile_controlnet": True, "tile_controlnet_weight": 0}).latents[0]
        assert torch.equal(made, lab.run(picture, {}).latents[0])

    @pytest.mark.parametrize("count", [1, 2, 3])
    def test_units_of_the_person_work_beside_it_and_stay_as_they_are(self, lab, picture, count):
        dark = Image.new("RGB", (32, 32), (51, 51, 51))
        units = [lab.unit(dark, weight) for weight in (1.0, 0.5, 0.25)[:count]]
        before = copy.deepcopy(units)
        own = sum((1.0, 0.5, 0.25)[:count]) * 0.2
        p = lab.webui.process(picture)
        p.script_args[:count] = units
        plain = lab.run(picture, {}).latents[0]
        given = p.script_args
        processed = lab.webui.run(p, {"tile_controlnet": True})
        moved = processed.latents[0] - plain
        assert float(moved.mean()) == pytest.approx(np.asarray(picture).mean() / 255 + own, abs=1e-5)
        assert p.script_args is given
        assert str(units) == str(before)
        assert lab.script.args_to == 3
        written = [label for label in processed.infotexts[0] if label.startswith("ControlNet ")]
        assert written == [f"ControlNet {index}" for index in range(count)]

    def test_what_is_asked_for_reaches_the_unit(self, lab, picture, kind):
        given = {
            "weight": 0.7,
            "start": 0.1,
            "end": 0.8,
            "preprocessor": "tile_colorfix",
            "control_mode": "ControlNet is more important",
        }
        lab.run(
            picture, {"tile_controlnet": True, **{f"tile_controlnet_{n}": v for n, v in given.items()}}, resize_mode=2
        )
        unit = lab.script.seen[-1]
        assert (unit.model, unit.module) == ("control_v11f1e_sd15_tile [33]", "tile_colorfix")
        assert (unit.weight, unit.guidance_start, unit.guidance_end, unit.resize_mode) == (0.7, 0.1, 0.8, "filled")
        assert unit.control_mode == ("ControlNet is more important" if kind == "extension" else "Prefer ControlNet")
        assert unit.save_detected_map is False

    def test_latents_of_the_host_are_stretched_and_so_is_the_control_picture(self, lab, picture):
        lab.run(picture, {"tile_controlnet": True}, resize_mode=3)
        assert lab.script.seen[-1].resize_mode == "stretched"

    def test_the_down_sampling_rate(self, lab, picture, kind):
        lab.run(picture, {"tile_controlnet": True, "tile_controlnet_down_sampling_rate": 4})
        unit = lab.script.seen[-1]
        if kind == "extension":
            assert (unit.threshold_a, unit.image.shape) == (4, (64, 64, 3))
        else:  # their tile_resample has none
            blocks = np.asarray(picture).reshape(16, 4, 16, 4, 3).mean((1, 3))
            assert np.abs(unit.image["image"] - blocks).max() <= 1

    def test_a_transparent_picture_is_shown_as_it_is_enlarged(self, lab, picture):
        transparent = picture.convert("RGBA")
        assert shift(lab, transparent, {}) == pytest.approx(shift(lab, picture, {}))

    def test_the_infotext_has_everything(self, lab, picture):
        written = lab.run(picture, {"tile_controlnet": True, "tile_controlnet_weight": 0.5}).infotexts[0]
        assert written[TileSettings.MODEL_LABEL] == "control_v11f1e_sd15_tile"
        assert TileSettings.from_infotext(written) == TileSettings(weight=0.5)
        assert "ControlNet 0" not in written
        assert TileSettings.MODEL_LABEL not in lab.run(picture, {}).infotexts[0]

    def test_the_panel_counts_in_an_xyz_plot(self, lab, picture):
        p = lab.webui.process(picture)
        own = lab.webui.script
        fields = lab.webui.adapter("request").POSITIONS
        p.script_args[own.args_from + fields.index("tile_controlnet")] = True
        axis = next(axis for axis in lab.webui.axes if axis.label == "[Latent Upscale] Method")
        lab.webui.runner.alwayson_scripts = [lab.webui.companion, lab.script]
        cell = copy.copy(p)
        axis.apply(cell, "area", ["area"])
        written = lab.webui.host_alone(cell).infotexts[0]
        assert (written[TileSettings.MODEL_LABEL], written["Latent upscale method"]) == (
            "control_v11f1e_sd15_tile",
            "area",
        )
        p.script_args[own.args_from + fields.index("tile_controlnet_second_pass")] = True
        cell = copy.copy(p)
        axis.apply(cell, "area", ["area"])
        with pytest.raises(ValueError, match="X/Y/Z plot runs no second pass"):
            lab.webui.host_alone(cell)


class TestNothingIsLeftBehind:
    @pytest.mark.parametrize("second", [False, True])
    def test_after_a_run_everything_is_as_before(self, lab, picture, second):
        p = lab.webui.process(picture)
        given, names = p.script_args, set(vars(p))
        before = {name: value for name, value in vars(p).items() if name not in MADE}
        lab.webui.run(p, {"tile_controlnet": True, "tile_controlnet_second_pass": second})
        assert p.script_args is given
        assert set(vars(p)) - names <= MADE
        assert {name: value for name, value in vars(p).items() if name in before} == before

    def test_the_batch_tab_goes_on_with_the_next_file(self, lab, picture):
        """sd-webui-controlnet keeps the first `sample` that it finds on an object."""
        light = Image.new("RGB", (64, 64), (204, 204, 204))
        alone = lab.run(light, {"tile_controlnet": True}, n_iter=2).latents
        p = lab.webui.process(picture, n_iter=2)
        lab.webui.run(p, {"tile_controlnet": True})
        p.init_images, p.script_args = [light], list(lab.webui.arguments)
        for made, expected in zip(lab.webui.run(p, {"tile_controlnet": True}).latents, alone, strict=True):
            assert torch.equal(made, expected)

    def test_copies_of_the_arguments_are_plain(self, lab):
        """ADetailer copies them in its own way, others with `copy`."""
        arguments = lab.webui.adapter("host.controlnet")._Arguments([1, 2, 3, 4], (1, 3), "ours")
        assert arguments[1:3] == (2, 3, "ours")
        assert (arguments[0:3], arguments[1], len(arguments), list(arguments)) == ((1, 2, 3), 2, 4, [1, 2, 3, 4])
        for made in (type(arguments)(list(arguments)), copy.deepcopy(arguments), copy.copy(arguments), arguments[:]):
            assert type(made) is tuple
            assert made == (1, 2, 3, 4)


MADE = {"sampler", "encoded", "init_latent", "seeds", "batch_index", "rng", "noise", "sd_model", "comments"}
MADE |= {"all_prompts", "all_negative_prompts", "all_seeds", "all_subseeds", "iteration"}


class TestRefusals:
    def refused(self, lab: Lab, *pictures: Image.Image, **given: Any) -> str:
        p = lab.webui.process(*pictures)
        p.init = lambda *_: pytest.fail("work has begun")
        with pytest.raises(ValueError, match="Latent Upscale: ") as refused:
            lab.webui.run(p, {"tile_controlnet": True, **{f"tile_controlnet_{n}": v for n, v in given.items()}})
        assert refused.value.status_code == 422
        return str(refused.value)

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({"weight": 3}, "tile_controlnet_weight is 3; a number from 0 to 2"),
            ({"start": 0.5, "end": 0.5}, "tile_controlnet_start must be smaller than tile_controlnet_end"),
            ({"preprocessor": "canny"}, "choose one of: none, tile_resample"),
            ({"control_mode": "Mine"}, "choose one of: Balanced"),
            ({"second_steps": 0}, "tile_controlnet_second_steps is 0; an integer from 1 to 1000"),
            ({"second_scheduler": "quick"}, "tile_controlnet_second_scheduler is 'quick'"),
            ({"model": "no such"}, "choose one of: control_v11f1e_sd15_tile, other_tile, big-Tile, old_xl_tile"),
            ({"model": "control_v11p_sd15_canny"}, "tile_controlnet_model is 'control_v11p_sd15_canny'; choose one of"),
            ({"model": "tile_xl_lora"}, "tile_controlnet_model is 'tile_xl_lora'; choose one of"),
            ({"model": "big-Tile"}, "big-Tile is made for SDXL, but the checkpoint SD 1.x.safetensors is SD 1.x"),
            ({"model": "old_xl_tile"}, "old_xl_tile is made for SDXL"),
        ],
        ids=str,
    )
    def test_bad_values_are_refused_before_any_work(self, lab, picture, given, said):
        assert said in self.refused(lab, picture, **given)

    def test_several_pictures_with_one_unit(self, lab, picture):
        assert "shown one picture, but init_images has 2" in self.refused(lab, picture, picture)

    def test_where_to_put_a_model(self, lab, picture):
        assert str(lab.folder / "ControlNet") in self.refused(lab, picture, model="no such")
        lab.checkpoint("SD 2.x")
        said = self.refused(lab, picture)
        assert "no tile model fits the checkpoint SD 2.x.safetensors, which is SD 2.x" in said
        assert "big-Tile (SDXL)" in said

    def test_no_controlnet(self, webui, picture):
        for runner in (webui.runner, None):
            p = webui.process(picture)
            p.scripts = runner
            with pytest.raises(ValueError, match="has no ControlNet: install the extension sd-webui-controlnet"):
                webui.script.run(p, {"tile_controlnet": True}) if runner is None else webui.run(
                    p, {"tile_controlnet": True}
                )

    def test_no_model_at_all(self, webui, picture, kind, tmp_path):
        with double.installed(kind, {}) as script:
            lab = Lab(webui, script, tmp_path)
            assert "there is none yet. Put tile models" in self.refused(lab, picture)
            state = (
                sys.modules.get("lib_controlnet.global_state")
                or lab.webui.adapter("host.controlnet")._code().global_state
            )
            assert state.refreshed  # it may have been put there a minute ago

    def test_a_damaged_file_is_named_and_never_taken(self, lab, picture):
        """The most common fault is a download that was cut short."""
        (lab.folder / "tile.safetensors").write_bytes((lab.folder / "tile.safetensors").read_bytes()[:-8])
        (lab.folder / "other.safetensors").unlink()
        offered = lab.webui.adapter("passes.tile_models").offered_models
        assert offered() == []
        said = self.refused(lab, picture, model="control_v11f1e_sd15_tile")
        assert "control_v11f1e_sd15_tile cannot be loaded: tile.safetensors has" in said
        assert "download it again" in said
        assert "other_tile cannot be loaded: " in self.refused(lab, picture, model="other_tile")
        assert "control_v11f1e_sd15_tile (damaged)" in self.refused(lab, picture)
        assert "; choose one of: big-Tile, old_xl_tile. " in self.refused(lab, picture, model="no such")

    def test_a_mode_that_controlnet_ignores(self, lab, picture, kind):
        """reForge's."""
        if kind == "built-in":
            del sys.modules["backend.patcher.controlnet"].compute_controlnet_weighting
            said = self.refused(lab, picture, control_mode="ControlNet is more important")
            assert "which the ControlNet of this WebUI ignores; choose Balanced" in said
            mode = next(control for control in lab.webui.script.ui(True) if control.label == "Tile control mode")
            assert mode.choices == ["Balanced"]

    @pytest.mark.parametrize("second", [False, True])
    def test_a_unit_that_controlnet_does_not_take_is_noticed(self, lab, picture, second):
        """The host swallows what the hook raises, and would make a picture without it."""
        lab.script.fails = RuntimeError("is not compatible with sd model")
        p = lab.webui.process(picture)
        given = {"tile_controlnet": True, "tile_controlnet_second_pass": second}
        said = r"not taken the tile unit with control_v11f1e_sd15_tile \[33\]; it says:"
        if second:
            processed = lab.webui.run(p, given)
            assert any("the second pass failed: Latent Upscale: ControlNet" in text for text in p.comments)
            assert "is not compatible with sd model" in processed.infotexts[0]
        else:
            with pytest.raises(RuntimeError, match=f"{said} is not compatible with sd model. No picture was made"):
                lab.webui.run(p, given)
            assert p.sampler.ran is None

    @pytest.mark.parametrize("empty", ["", None])
    def test_without_a_reason_the_console_is_named(self, lab, picture, empty):
        lab.script.fails = RuntimeError(empty)
        with pytest.raises(RuntimeError, match=r"the WebUI's console says why\. No picture was made"):
            lab.run(picture, {"tile_controlnet": True})

    def test_a_long_reason_is_shortened(self, lab, picture):
        """torch names every tensor that does not fit, each in a line of its own."""
        lab.script.fails = RuntimeError("Error(s) in loading:\n\t" + "size mismatch for a tensor\n\t" * 300)
        with pytest.raises(RuntimeError, match=r"it says: Error.s. in loading: size mismatch for") as failed:
            lab.run(picture, {"tile_controlnet": True})
        assert len(str(failed.value)) < 500
        assert str(failed.value).endswith("No picture was made.")
        assert "\n" not in str(failed.value)


class TestModels:
    def test_only_those_that_fit_are_offered_the_best_first(self, lab):
        offered = lab.webui.adapter("passes.tile_models").offered_models
        assert offered() == ["control_v11f1e_sd15_tile", "other_tile"]
        lab.checkpoint("SDXL")
        assert offered() == ["big-Tile", "old_xl_tile"]

    @pytest.mark.parametrize(
        ("file", "tensor"),
        [
            ("flux.safetensors", "double_blocks.0.img_attn.qkv.weight"),
            ("qwen.safetensors", "transformer_blocks.0.attn.to_k.weight"),
            ("flux-Q4_0.gguf", None),
        ],
    )
    @pytest.mark.parametrize("name", ["automatic", "other_tile"])
    def test_a_checkpoint_that_is_no_unet(self, lab, picture, file, tensor, name):
        control_file(lab.folder / "other.safetensors", "thin")
        path = lab.folder / file
        path.touch() if tensor is None else save_file({tensor: torch.zeros(8, 8)}, path)
        lab.webui.modules["modules.sd_models"].checkpoint_aliases["x"] = SimpleNamespace(name=file, filename=str(path))
        lab.webui.options.sd_model_checkpoint = "x"
        assert lab.webui.adapter("passes.tile_models").offered_models() == []
        with pytest.raises(ValueError, match=f"{file}(, which)? is no U-Net of Stable Diffusion.* switch") as refused:
            lab.run(picture, {"tile_controlnet": True, "tile_controlnet_model": name})
        said = {
            "automatic": "other_tile (another kind, text width 64)",
            "other_tile": "is made for another kind, text width 64, but",
        }
        assert said[name] in str(refused.value)
        assert "of that family is needed" not in str(refused.value)

    def test_a_unit_that_has_no_place_for_our_last_wish(self, webui, picture, tmp_path, monkeypatch):
        """ersatzForge's `ControlNetUnit` has no `save_detected_map` (fca12a2)."""
        kept = [field for field in fields(double.BuiltInUnit) if field.name != "save_detected_map"]
        described = [(field.name, Any, dataclass_field(default=field.default)) for field in kept]
        monkeypatch.setattr(double, "BuiltInUnit", make_dataclass("Unit", described))
        with double.installed("built-in", {"tile": control_file(tmp_path / "tile.safetensors")}) as script:
            lab = Lab(webui, script, tmp_path)
            assert shift(lab, picture, {}) > 0

    def test_the_checkpoint_of_this_call_counts(self, lab, picture):
        lab.checkpoint("SDXL")
        given = {"tile_controlnet": True}
        written = lab.run(picture, given, override_settings={"sd_model_checkpoint": "SD 1.x"}).infotexts[0]
        assert written[TileSettings.MODEL_LABEL] == "control_v11f1e_sd15_tile"

    @pytest.mark.parametrize("name", ["new_tile", "automatic"])
    def test_a_model_that_was_put_there_a_minute_ago(self, lab, picture, name):
        lab.checkpoint("SD 2.x")
        lab.models["new_tile [77]"] = control_file(lab.folder / "new.safetensors", "SD 2.x")
        lab.run(picture, {"tile_controlnet": True, "tile_controlnet_model": name})
        assert lab.script.seen[-1].model == "new_tile [77]"

    @pytest.mark.parametrize("name", ["other_tile", "other_tile [22]"])
    def test_a_name_with_or_without_its_hash(self, lab, picture, name):
        lab.run(picture, {"tile_controlnet": True, "tile_controlnet_model": name})
        assert lab.script.seen[-1].model == "other_tile [22]"


class TestSecondPass:
    given = {  # noqa: RUF012
        "tile_controlnet": True,
        "tile_controlnet_second_pass": True,
        "tile_controlnet_second_steps": 6,
        "tile_controlnet_second_denoising_strength": 0.3,
        "tile_controlnet_second_scheduler": "karras",
    }

    def test_it_starts_from_the_finished_picture_at_the_same_size(self, lab, picture):
        first = lab.run(picture, {}).images[0]
        p = lab.webui.process(picture)
        lab.webui.run(p, self.given)
        assert torch.equal(p.encoded[0], torch.from_numpy(np.asarray(first, np.float32).transpose(2, 0, 1) / 255))
        shown = lab.script.seen[-1].image
        np.testing.assert_array_equal(shown if isinstance(shown, np.ndarray) else shown["image"], np.asarray(first))

    def test_its_own_steps_run_along_its_own_schedule_with_other_noise(self, lab, picture):
        p = lab.webui.process(picture)
        lab.webui.run(p, self.given)
        assert torch.equal(p.sampler.ran, get_sigmas("karras", 20, TABLE)[-7:])
        assert p.noise == "7, draw 1"

    def test_the_infotext_describes_both(self, lab, picture):
        plain = lab.run(picture, {"method": "area"}, scheduler="Karras").infotexts[0]
        both = lab.run(picture, {"method": "area", **self.given}, scheduler="Karras").infotexts[0]
        assert {label: both.get(label) for label in plain} == dict(plain)
        assert both["Steps"] == 4
        assert both["Denoising strength"] == 0.5
        settings = TileSettings.from_infotext(both)
        assert (settings.second_pass, settings.second_steps, settings.second_scheduler) == (True, 6, "karras")

    def test_a_schedule_of_the_host_in_the_first_run_is_named(self, lab, picture):
        written = lab.run(picture, {"scheduler": "automatic", **self.given}, scheduler="Karras").infotexts[0]
        assert written["Schedule type"] == "Karras"

    def test_every_picture_of_a_batch_is_the_one_made_alone(self, lab, picture):
        together = lab.run(picture, self.given, batch_size=2, n_iter=2)
        assert len(together.images) == 4
        for index, made in enumerate(together.images):
            alone = lab.run(picture, self.given, seed=7 + index)
            np.testing.assert_array_equal(np.asarray(made), np.asarray(alone.images[0]))
            assert together.infotexts[index] == alone.infotexts[0]

    def test_only_results_are_saved(self, lab, picture):
        saved = lab.webui.modules["modules.images"].saved
        result = lab.run(picture, self.given, n_iter=2)
        assert [info for _, info in saved] == result.infotexts
        lab.run(picture, self.given, do_not_save_samples=True)
        assert len(saved) == 2

    @pytest.mark.parametrize("at", [0, 1, 2])
    def test_an_interrupt_keeps_whole_pictures_and_says_so(self, lab, picture, at):
        """`at`: in which second run; 0 is after the first run of both pictures."""
        lab.webui.options.samples_save = True
        first = lab.run(picture, {}, n_iter=2).images
        whole = lab.run(picture, self.given, n_iter=2).images
        saved = lab.webui.modules["modules.images"].saved
        saved.clear()
        p = lab.webui.process(picture, n_iter=2)
        runs, own_sample = [], p.sample

        def sample(**values: Any) -> Any:
            runs.append(p.steps)
            if (at, len(runs)) == (0, 2) or len(runs) == 2 + at:
                lab.webui.modules["modules.shared"].state.stopping_generation = at == 0
                lab.webui.modules["modules.shared"].state.interrupted = at > 0
            return own_sample(**values)

        p.sample = sample
        result = lab.webui.run(p, self.given)
        done = max(at - 1, 0)
        expected = [*whole[:done], *first[done:]]
        for made, picture_before in zip(result.images, expected, strict=True):
            np.testing.assert_array_equal(np.asarray(made), np.asarray(picture_before))
        assert "this is the picture before it" in result.infotexts[-1]
        assert TileSettings.MODEL_LABEL not in result.infotexts[-1]
        assert any("the second pass was" in text for text in p.comments)
        assert [np.asarray(one).tobytes() for one, _ in saved][-1] == np.asarray(first[1]).tobytes()

    def test_what_was_noted_before_a_second_run_that_fails_is_still_noted(self, lab, picture):
        lab.script.fails = RuntimeError("no control")
        result = lab.run(picture, {"scheduler": "karras", **self.given}, sampler_name="DPM adaptive")
        (note,) = result.infotexts[0].split("Latent upscale note: ")[1:]
        assert note.startswith('"DPM adaptive takes only the ends')
        assert note.endswith('this is the picture before it."')

    def test_progress_knows_of_all_runs(self, lab, picture):
        lab.run(picture, self.given, batch_size=2, n_iter=2)
        state = lab.webui.modules["modules.shared"].state
        assert (state.job_count, state.job_no) == (2 + 4, 2 + 4)
        assert state.textinfo is None

    def test_several_pictures_each_guide_their_own(self, lab, picture):
        light = Image.new("RGB", (32, 32), (204, 204, 204))
        p = lab.webui.process(picture, light, batch_size=2)
        made = lab.webui.run(p, self.given).images
        np.testing.assert_array_equal(made[0], lab.run(picture, self.given).images[0])
        np.testing.assert_array_equal(made[1], lab.run(light, self.given, seed=8).images[0])

    @pytest.mark.parametrize("only_masked", [False, True])
    def test_masks_are_enlarged_and_their_content_is_the_first_result(self, lab, picture, only_masked):
        mask = Image.new("L", (64, 64))
        mask.paste(255, (16, 16, 48, 48))
        seen = {}
        p = lab.webui.process(picture, image_mask=mask, inpaint_full_res=only_masked, inpainting_fill=2)
        p.mask_blur_x = p.mask_blur_y = 4
        p.inpaint_full_res_padding = 3
        own_sample = p.sample

        def sample(**values: Any) -> Any:
            seen.update({name: getattr(p, name) for name in MASK})
            return own_sample(**values)

        p.sample = sample
        lab.webui.run(p, self.given)
        assert (seen["mask_blur_x"], seen["inpaint_full_res_padding"], seen["inpainting_fill"]) == (8, 6, 1)
        assert seen["inpaint_full_res"] is only_masked
        assert seen["image_mask"].size == (128, 128)
        assert seen["image_mask"].getbbox() == pytest.approx((32, 32, 96, 96), abs=6)
        assert (p.image_mask, p.mask_blur_x, p.inpainting_fill) == (mask, 4, 2)

    def test_sides_that_are_no_multiples_of_eight(self, lab, picture):
        result = lab.run(picture, self.given, width=100, height=93)
        assert result.images[0].size == (100, 93)
        assert result.infotexts[0]["Size"] == "100x93"


MASK = ("image_mask", "mask_blur_x", "inpaint_full_res_padding", "inpainting_fill", "inpaint_full_res")


class TestPanel:
    def pasted(self, webui: Any, infotext: dict[str, Any]) -> dict[str, Any]:
        """What comes back for each control, by its label; the host calls functions with the parsed infotext."""
        found = {control.label: key(infotext) for control, key in webui.script.infotext_fields if callable(key)}
        return {label: value for label, value in found.items() if label.startswith(("Tile", "Second pass"))}

    def test_every_setting_comes_back_from_the_infotext(self, lab, picture):
        controls = lab.webui.script.ui(True)
        given = {"weight": 0.5, "start": 0.2, "second_pass": True, "second_steps": 9, "control_mode": "Balanced"}
        asked = {"tile_controlnet": True, **{f"tile_controlnet_{name}": value for name, value in given.items()}}
        written = lab.run(picture, asked).infotexts[0]
        pasted = self.pasted(lab.webui, {label: str(value) for label, value in written.items()})
        assert pasted["Tile ControlNet"] is True
        values = {label: update.value for label, update in pasted.items() if label != "Tile ControlNet"}
        assert values["Tile model"] == "control_v11f1e_sd15_tile"
        assert (values["Tile weight"], values["Tile start"], values["Tile end"]) == (0.5, 0.2, 1.0)
        assert (values["Tile ControlNet as a second pass"], values["Second pass steps"]) == (True, 9)
        assert len(values) == 1 + len(TileSettings.labels())
        assert len({control.label for control in controls}) == len(controls)

    def test_an_infotext_of_ours_without_it_switches_it_off(self, lab, picture):
        written = lab.run(picture, {}).infotexts[0]
        lab.webui.script.ui(True)
        pasted = self.pasted(lab.webui, written)
        assert pasted.pop("Tile ControlNet") is False
        assert set(pasted.values()) == {None}

    def test_only_fitting_models_are_offered(self, lab):
        model = next(control for control in lab.webui.script.ui(True) if control.label == "Tile model")
        assert model.choices == ["automatic", "control_v11f1e_sd15_tile", "other_tile"]

    def test_it_says_where_models_are_put(self, lab):
        assert str(lab.folder / "ControlNet") in lab.webui.adapter("passes.tile")._introduction()

    @pytest.mark.parametrize("switched_on", [False, True])
    def test_controls_of_the_second_pass_show_when_it_is_on(self, lab, switched_on):
        switch = next(c for c in lab.webui.script.ui(True) if c.label == "Tile ControlNet as a second pass")
        (listener,) = switch.listeners
        (shown,) = listener["outputs"]
        assert (switch.value, shown.visible) == (False, False)
        assert listener["fn"](switched_on).visible is switched_on

    def test_defaults_are_the_cores(self, lab):
        names = lab.webui.adapter("request").POSITIONS
        controls = dict(zip(names, lab.webui.script.ui(True), strict=True))
        for name in TileSettings.labels():
            assert controls[f"tile_controlnet_{name}"].value == getattr(TileSettings(), name)
        assert (controls["tile_controlnet"].value, controls["tile_controlnet_model"].value) == (False, "automatic")
