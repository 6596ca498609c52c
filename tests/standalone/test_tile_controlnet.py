"""Tile ControlNet, standalone: the same as diffusers' pipelines, and refused in words where it cannot be used."""

import json
import re
from dataclasses import replace

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from lib_latent_upscale.errors import InputError
from lib_latent_upscale.settings import UpscaleSettings
from lib_latent_upscale.standalone.commands.cli import build_parser, main
from lib_latent_upscale.standalone.commands.common import tile_overrides
from lib_latent_upscale.standalone.engine import engine as engine_module
from lib_latent_upscale.standalone.engine import tile_models
from lib_latent_upscale.standalone.engine.engine import Engine
from lib_latent_upscale.standalone.engine.generation import GenerationSettings, write_parameters
from lib_latent_upscale.standalone.engine.models import load_model
from lib_latent_upscale.standalone.engine.tile import ColourFix, control_picture, controlled_steps, second_pass
from lib_latent_upscale.standalone.engine.tile_models import checked_tile, load_tile
from lib_latent_upscale.tile_settings import CONTROL_MODES, PREPROCESSORS, TileSettings
from tests.core.x4_single_file import RESNET
from tests.standalone import tiny_model
from tests.standalone.parameters import parse_parameters

GUESSES = {"Balanced": False, "ControlNet is more important": True}
"""Control modes that diffusers has, and its guess mode in them."""


@pytest.fixture(scope="module")
def sd1_tile(sd1_folder, tmp_path_factory):
    return tiny_model.save_controlnet(tmp_path_factory.mktemp("tile") / "tiny-tile", sd1_folder)


@pytest.fixture(scope="module")
def sdxl_tile(sdxl_folder, tmp_path_factory):
    return tiny_model.save_controlnet(tmp_path_factory.mktemp("tile") / "tiny-xl-tile", sdxl_folder)


@pytest.fixture(scope="module")
def engine(sd1_folder, sd1_tile):
    model = load_model(str(sd1_folder), device="cpu")
    return Engine(model, load_tile(str(sd1_tile), model))


@pytest.fixture(scope="module")
def sdxl_engine(sdxl_folder, sdxl_tile):
    model = load_model(str(sdxl_folder), device="cpu")
    return Engine(model, load_tile(str(sdxl_tile), model))


def small(tile=None, **changes) -> GenerationSettings:
    """An upscale whose five steps run from sigma 1.9 over whole timesteps: 444, 333, 222, 111, 0."""
    defaults = {"steps": 5, "denoising_strength": 0.5, "prompt": "a cat", "sampler": "Euler", "cfg_scale": 3}
    upscale = UpscaleSettings("nearest-exact", scheduler="normal")
    return GenerationSettings(96, 64, **{**defaults, "upscale": upscale, "tile": tile, **changes})


@torch.no_grad()
def denoised(engine, photo, generation, monkeypatch) -> torch.Tensor:
    """The latents before they are decoded."""
    kept = []

    def keep(_vae, latent, _cell):
        kept.append(latent)
        return torch.zeros(len(latent), 3, 64, 96)

    with monkeypatch.context() as patch:
        patch.setattr(engine_module, "decode_latent", keep)
        engine.upscale([photo], generation)
    return kept[-1]


@torch.no_grad()
def by_diffusers(kind, folder, engine, photo, generation, **options) -> torch.Tensor:
    """The same latents from diffusers' pipeline with its Euler sampler over the same timesteps."""
    scheduler = diffusers.EulerDiscreteScheduler.from_pretrained(
        folder, subfolder="scheduler", timestep_spacing="linspace", interpolation_type="linear", steps_offset=0
    )
    pipeline = kind.from_pretrained(folder, controlnet=engine.tile.network, scheduler=scheduler)
    pipeline.set_progress_bar_config(disable=True)
    prepared = engine.prepare([photo], generation)
    tile = generation.tile
    return pipeline(
        generation.prompt,
        image=engine.enlarged_latent(prepared, generation),
        control_image=control_picture(prepared.pixels, (64, 96), tile),
        strength=generation.denoising_strength,
        num_inference_steps=2 * generation.steps,
        guidance_scale=generation.cfg_scale,
        generator=torch.Generator().manual_seed(generation.seed),
        controlnet_conditioning_scale=float(tile.weight),
        control_guidance_start=tile.start,
        control_guidance_end=tile.end,
        guess_mode=GUESSES[tile.control_mode],
        output_type="latent",
        **options,
    ).images


def close(ours, theirs) -> bool:
    """Within float noise: k-diffusion finds a sigma's timestep from a logarithm, to about a thousandth."""
    return bool((ours - theirs).abs().max() < 2e-3 * theirs.std())


TILES = [
    TileSettings(),
    TileSettings(weight=0.6),
    TileSettings(start=0.2, end=0.8),
    TileSettings(down_sampling_rate=3),
    TileSettings(control_mode="ControlNet is more important"),
]


@pytest.mark.parametrize("tile", TILES, ids=str)
def test_sd1_equals_diffusers_pipeline(sd1_folder, engine, photo, monkeypatch, tile):
    generation = small(tile)
    ours = denoised(engine, photo, generation, monkeypatch)
    kind = diffusers.StableDiffusionControlNetImg2ImgPipeline
    assert close(ours, by_diffusers(kind, sd1_folder, engine, photo, generation))
    assert not close(ours, denoised(engine, photo, replace(generation, tile=None), monkeypatch))


@pytest.mark.parametrize("tile", TILES[:1] + TILES[-1:], ids=str)
def test_sdxl_equals_diffusers_pipeline(sdxl_folder, sdxl_engine, photo, monkeypatch, tile):
    generation = small(tile)
    ours = denoised(sdxl_engine, photo, generation, monkeypatch)
    kind = diffusers.StableDiffusionXLControlNetImg2ImgPipeline
    sizes = {"original_size": (64, 96), "target_size": (64, 96)}
    theirs = by_diffusers(kind, sdxl_folder, sdxl_engine, photo, generation, **sizes)
    assert close(ours, theirs)
    assert not close(ours, denoised(sdxl_engine, photo, replace(generation, tile=None), monkeypatch))


@torch.no_grad()
def predicted(engine, photo, tile):
    """What the network is asked for at one sigma, halves apart: its outputs for the prompt and the negative prompt."""
    generation = small(tile)
    prepared = engine.prepare([photo], generation)
    guide = engine._guide(prepared, generation, engine.plan(generation))
    x = prepared.latent[:, :, :8, :12] * 0.5
    return [
        None if control is None else control.residuals(x, 100, encoder_hidden_states=cond.embeddings)
        for control, cond in zip(guide.at(torch.tensor([1.0])), (prepared.positive, prepared.negative), strict=True)
    ]


@torch.no_grad()
def test_a_mode_in_favour_of_the_prompt_softens_the_finer_blocks_of_both_halves(engine, photo):
    """Four blocks of the tiny model and the middle one: 10 ** -1 to 10 ** 0."""
    balanced = predicted(engine, photo, TileSettings(weight=0.5))
    soft = predicted(engine, photo, TileSettings(weight=0.5, control_mode="My prompt is more important"))
    for half, reference in zip(soft, balanced, strict=True):
        blocks = [*half["down_block_additional_residuals"], half["mid_block_additional_residual"]]
        whole = [*reference["down_block_additional_residuals"], reference["mid_block_additional_residual"]]
        assert len(blocks) == 5
        for index, (block, other) in enumerate(zip(blocks, whole, strict=True)):
            assert torch.allclose(block, other * 10 ** ((index - 4) / 4), rtol=1e-4, atol=1e-7)


def test_a_mode_in_favour_of_the_control_leaves_the_negative_prompt_alone(engine, photo):
    mode = "ControlNet is more important"
    assert [half is None for half in predicted(engine, photo, TileSettings(control_mode=mode))] == [False, True]


def upscaled(engine, photo, generation):
    return np.asarray(engine.upscale([photo], generation).pictures[0], int)


@pytest.mark.parametrize("preprocessor", PREPROCESSORS)
def test_weight_0_is_no_control(engine, photo, preprocessor):
    base = small(steps=2)
    tile = TileSettings(weight=0, preprocessor=preprocessor)
    assert (upscaled(engine, photo, replace(base, tile=tile)) == upscaled(engine, photo, base)).all()


def test_every_setting_changes_the_picture(engine, photo):
    base = small(TileSettings(weight=0.7))
    plain = upscaled(engine, photo, base)
    for change in (
        {"weight": 0.5},
        {"start": 0.5},
        {"end": 0.5},
        {"preprocessor": "tile_colorfix"},
        {"down_sampling_rate": 4},
        {"control_mode": "My prompt is more important"},
        {"control_mode": "ControlNet is more important"},
        {"second_pass": True},
    ):
        changed = replace(base, tile=replace(base.tile, **change))
        assert (upscaled(engine, photo, changed) != plain).any(), change


@pytest.mark.parametrize("sampler", ["Heun", "DPM++ 2M SDE"])
def test_pictures_in_a_batch_are_as_alone(engine, photo, noise_picture, sampler):
    generation = small(TileSettings(end=0.9), sampler=sampler, steps=3)
    other = noise_picture.resize(photo.size)
    together = engine.upscale([other, photo], generation).pictures[1]
    assert np.abs(np.asarray(together, int) - upscaled(engine, photo, generation)).max() <= 1


def test_guidance_in_turns_is_guidance_at_once(engine, photo, monkeypatch):
    """Large latents go through the networks one prompt after the other, to save memory."""
    generation = small(TileSettings(), steps=2)
    at_once = upscaled(engine, photo, generation)
    monkeypatch.setattr(engine_module, "_CELLS_AT_ONCE", 0)
    assert np.abs(at_once - upscaled(engine, photo, generation)).max() <= 1


def test_the_second_pass_starts_from_the_result_of_the_first(engine, photo):
    tile = TileSettings(
        weight=0.8, second_pass=True, second_denoising_strength=0.6, second_steps=3, second_scheduler="karras"
    )
    generation = small(tile, steps=2)
    first = engine.upscale([photo], replace(generation, tile=None)).pictures[0]
    alone = replace(
        generation,
        steps=3,
        denoising_strength=0.6,
        upscale=UpscaleSettings("nearest-exact", scheduler="karras"),
        tile=replace(tile, second_pass=False),
    )
    counted = []
    done = engine.upscale([photo], generation, lambda step, total: counted.append((step, total)))
    assert (np.asarray(done.pictures[0], int) == upscaled(engine, first, alone)).all()
    assert counted == [(step, 5) for step in range(1, 6)]


def test_a_second_pass_enlarges_nothing_and_keeps_the_rest():
    base = small(TileSettings(second_pass=True, second_scheduler="automatic"), seed=7, negative_prompt="bad")
    base = replace(base, upscale=UpscaleSettings("bislerp", "karras", exact_steps=False, keep_statistics=True))
    first, second = second_pass(base)
    assert first == replace(base, tile=None)
    assert (second.size, second.seed, second.negative_prompt, second.steps) == (base.size, 7, "bad", 20)
    assert second.upscale == UpscaleSettings("nearest-exact", scheduler="automatic", exact_steps=False)


@pytest.mark.parametrize(
    ("start", "end", "steps", "expected"),
    [(0, 1, 4, [0, 1, 2, 3]), (0.25, 0.75, 4, [1, 2]), (0.2, 0.8, 5, [1, 2, 3]), (0.3, 1, 4, [2, 3]), (0, 1, 0, [])],
)
def test_steps_that_lie_whole_between_start_and_end_are_controlled(start, end, steps, expected):
    assert list(controlled_steps(TileSettings(start=start, end=end), steps)) == expected


def test_a_control_of_no_step_at_all_is_refused(engine, photo):
    for tile in (TileSettings(end=0.1), TileSettings(end=0.04, second_pass=True)):
        with pytest.raises(InputError, match=rf"0 to {tile.end} holds none of the \d+ steps"):
            engine.upscale([photo], small(tile))


def test_a_picture_that_should_be_controlled_never_comes_out_without(sd1_folder, photo):
    with pytest.raises(InputError, match="--tile-controlnet"):
        Engine(load_model(str(sd1_folder), device="cpu")).upscale([photo], small(TileSettings()))


# --- The control picture ---


def as_pixels(*pictures):
    return torch.stack([torch.from_numpy(np.array(picture, np.float32)) / 127.5 - 1 for picture in pictures]).permute(
        0, 3, 1, 2
    )


def test_the_control_picture_is_the_enlarged_picture(photo):
    shown = control_picture(as_pixels(photo), (192, 256), TileSettings())[0]
    expected = np.asarray(photo.resize((256, 192), Image.Resampling.LANCZOS), np.float32) / 255
    assert torch.equal(shown.permute(1, 2, 0), torch.from_numpy(expected))


@pytest.mark.parametrize("rate", [2, 5.5, 8])
def test_a_down_sampling_rate_takes_detail_and_leaves_the_colours(photo, rate):
    whole, less = (
        control_picture(as_pixels(photo), (192, 256), TileSettings(down_sampling_rate=r))[0] for r in (1, rate)
    )
    assert less.diff(dim=-1).abs().mean() < 0.8 * whole.diff(dim=-1).abs().mean()
    assert (less.mean((1, 2)) - whole.mean((1, 2))).abs().max() < 0.01
    untouched = TileSettings(preprocessor="none", down_sampling_rate=rate)
    assert torch.equal(control_picture(as_pixels(photo), (192, 256), untouched)[0], whole)


def test_twice_the_down_sampling_rate_halves_the_finest_frequency():
    """Of white noise: the frequency below which nine tenths of what is left of it lie (Forge #1976)."""
    noise = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0)) * 2 - 1
    frequency = torch.fft.fftfreq(256).abs()
    finest = []
    for rate in (1, 2, 4):
        hint = control_picture(noise, (256, 256), TileSettings(down_sampling_rate=rate))[0]
        power = torch.fft.fft2(hint - hint.mean((1, 2), keepdim=True)).abs().square().sum(0)
        along = power.sum(0)[frequency.argsort()].cumsum(0)
        finest.append(frequency.sort().values[int((along < 0.9 * along[-1]).sum())].item())
    assert finest[1] == pytest.approx(finest[0] / 2, rel=0.15)
    assert finest[2] == pytest.approx(finest[1] / 2, rel=0.15)


def test_the_colour_fix_gives_the_means_of_the_picture():
    """Means over 17x17 cells by scipy; what is finer stays as it was denoised."""
    from scipy.ndimage import uniform_filter

    denoised, origin = torch.randn(2, 1, 4, 20, 24, generator=torch.Generator().manual_seed(0)).unbind()

    def smooth(latent):
        filtered = uniform_filter(latent.numpy(), (0, 0, 17, 17), mode="nearest", axes=None)
        return torch.from_numpy(filtered)

    fixed = denoised - smooth(denoised) + smooth(origin)
    assert torch.allclose(ColourFix(smooth(origin), 1.0)(denoised), fixed, atol=1e-5)
    assert torch.allclose(ColourFix(smooth(origin), 0.25)(denoised), 0.75 * denoised + 0.25 * fixed, atol=1e-5)
    sharp = ColourFix(smooth(origin), 1.0, 0.01)
    assert torch.allclose(sharp(denoised), fixed, atol=1e-5)
    assert torch.allclose(sharp(denoised, negative=True), 0.99 * fixed + 0.01 * smooth(fixed), atol=1e-5)


# --- What is written down ---


def test_the_parameters_bring_everything_back():
    tile = TileSettings(weight=0.6, end=0.9, preprocessor="tile_colorfix+sharp", second_pass=True, second_steps=33)
    generation = small(tile, tile_model="control_v11f1e_sd15_tile")
    text = write_parameters(generation)
    assert "Tile ControlNet model: control_v11f1e_sd15_tile, Tile ControlNet weight: 0.6" in text
    read = parse_parameters(text)
    assert (read.tile, read.tile_model) == (tile, "control_v11f1e_sd15_tile")
    assert "Tile ControlNet" not in write_parameters(small())
    with pytest.raises(InputError, match="Tile ControlNet weight: weight is 3"):
        parse_parameters(text.replace("weight: 0.6", "weight: 3"))


# --- The command ---


def arguments(*more):
    return build_parser().parse_args(["upscale", "in.png", *more])


def test_every_option_sets_its_field():
    given = arguments(
        *["--tile-controlnet", "a/tile.safetensors", "--controlnet-weight", "0.5", "--controlnet-start", "0.1"],
        *["--controlnet-end", "0.9", "--controlnet-preprocessor", "none", "--controlnet-down-sampling-rate", "2"],
        *["--controlnet-mode", "My prompt is more important", "--second-pass", "--second-denoise", "0.7"],
        *["--second-steps", "12", "--second-scheduler", "karras"],
    )
    expected = TileSettings(0.5, 0.1, 0.9, "none", 2, "My prompt is more important", True, 0.7, 12, "karras")
    assert tile_overrides(given) == {"tile": expected, "tile_model": "tile"}
    assert tile_overrides(arguments("--tile-controlnet", "demo")) == {"tile": TileSettings(), "tile_model": "demo"}
    assert tile_overrides(arguments()) == {}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--tile-controlnet", "demo", "--controlnet-weight", "2.5"], "weight is 2.5; a number from 0 to 2"),
        (["--tile-controlnet", "demo", "--controlnet-weight", "much"], "weight is 'much'"),
        (
            ["--tile-controlnet", "demo", "--controlnet-start", "1"],
            "--controlnet-start must be smaller than",
        ),
        (["--tile-controlnet", "demo", "--controlnet-preprocessor", "canny"], "choose one of: none, tile_resample"),
        (["--tile-controlnet", "demo", "--second-steps", "3"], "--second-steps: only with --second-pass"),
        (["--controlnet-weight", "1"], "--controlnet-weight: only with --tile-controlnet MODEL"),
        (["--second-pass"], "--second-pass: only with --tile-controlnet MODEL"),
        (["--tile-controlnet", "demo", "--controlnet-end", "0.01"], "0 to 0.01 holds none of the 20 steps"),
        (["--tile-controlnet", "demo", "--second-pass", "--controlnet-end", "0.01"], "holds none of the 20 steps"),
        (["--tile-controlnet", "nothing.safetensors"], "'nothing.safetensors' does not exist"),
    ],
)
@pytest.mark.parametrize("command", ["upscale", "compare"])
def test_bad_options_are_one_sentence(picture_file, capsys, monkeypatch, command, more, message):
    monkeypatch.setattr("lib_latent_upscale.standalone.engine.models.load_model", None)  # nothing is loaded before
    before = sorted(picture_file.parent.iterdir())
    assert main([command, str(picture_file), *more]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1
    assert sorted(picture_file.parent.iterdir()) == before


def test_help_names_everything_that_can_be_chosen(capsys):
    with pytest.raises(SystemExit):
        main(["upscale", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert all(name in shown for name in (*PREPROCESSORS, *CONTROL_MODES))


def test_the_command_writes_what_the_engine_makes(picture_file, photo, sd1_folder, sd1_tile, engine, tmp_path):
    options = ["--steps", "2", "--size", "96x64", "--quiet", "--controlnet-weight", "0.8", "--denoise", "0.8"]
    output = tmp_path / "out.png"
    given = ["--model", str(sd1_folder), "--tile-controlnet", str(sd1_tile), "-o", str(output)]
    assert main(["upscale", str(picture_file), *given, *options]) == 0
    with Image.open(output) as image:
        generation = parse_parameters(image.info["parameters"])
        assert generation.tile == TileSettings(weight=0.8)
        assert generation.tile_model == "tiny-tile"
        assert (np.asarray(image, int) == upscaled(engine, photo, generation)).all()


def test_compare_shows_the_picture_with_tile_control_beside(picture_file, sd1_folder, sd1_tile, tmp_path):
    given = ["--model", str(sd1_folder), "--tile-controlnet", str(sd1_tile), "-o", str(tmp_path / "sheet.png")]
    assert main(["compare", str(picture_file), *given, "--size", "96x64", "--steps", "2", "--quiet"]) == 0
    variants = json.loads((tmp_path / "sheet.json").read_text())["variants"]
    assert [variant["name"] for variant in variants][-2:] == ["Latent Upscale", "Latent Upscale, tile ControlNet"]
    assert variants[-1]["tile"]["weight"] == 1.0
    assert parse_parameters(variants[-1]["parameters"]).tile == TileSettings()
    assert variants[-1]["figures"] != variants[-2]["figures"]


# --- Models ---

ORIGINAL_NAMES = (
    (r"^conv_in\.", "input_blocks.0.0."),
    (r"^time_embedding\.linear_1\.", "time_embed.0."),
    (r"^time_embedding\.linear_2\.", "time_embed.2."),
    (r"^controlnet_cond_embedding\.conv_in\.", "input_hint_block.0."),
    (r"^controlnet_cond_embedding\.blocks\.(\d)\.", lambda m: f"input_hint_block.{2 * int(m[1]) + 2}."),
    (r"^controlnet_cond_embedding\.conv_out\.", "input_hint_block.14."),
    (r"^controlnet_down_blocks\.(\d)\.", r"zero_convs.\1.0."),
    (r"^controlnet_mid_block\.", "middle_block_out.0."),
    (r"^down_blocks\.(\d)\.resnets\.0\.", lambda m: f"input_blocks.{2 * int(m[1]) + 1}.0."),
    (r"^down_blocks\.(\d)\.attentions\.0\.", lambda m: f"input_blocks.{2 * int(m[1]) + 1}.1."),
    (r"^down_blocks\.0\.downsamplers\.0\.conv\.", "input_blocks.2.0.op."),
    (r"^mid_block\.resnets\.(\d)\.", lambda m: f"middle_block.{2 * int(m[1])}."),
    (r"^mid_block\.attentions\.0\.", "middle_block.1."),
)
"""diffusers' names to those of github.com/lllyasviel/ControlNet (cldm.py), for a model of one layer a block."""


def original_layout(tensors):
    def rename(name):
        rules = ORIGINAL_NAMES if ".attentions." in name else (*ORIGINAL_NAMES, *RESNET)
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        return f"control_model.{name}"

    return {rename(name): tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize("layout", [dict, original_layout], ids=["diffusers", "original"])
def test_a_single_file_gives_the_same_network(engine, sd1_tile, tmp_path, layout):
    path = tmp_path / "tile.safetensors"
    save_file(layout(load_file(sd1_tile / "diffusion_pytorch_model.safetensors")), path)
    loaded = load_tile(str(path), engine.model)
    expected = engine.tile.network.state_dict()
    assert loaded.name == "tile"
    assert loaded.network.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.network.state_dict().items())


def damaged(sd1_tile, folder, change):
    """A copy of the tiny ControlNet as a file, its tensors changed."""
    tensors = change(load_file(sd1_tile / "diffusion_pytorch_model.safetensors"))
    save_file(tensors, folder / "tile.safetensors")
    return folder / "tile.safetensors"


def test_weights_that_are_no_numbers_are_refused_by_name(engine, sd1_tile, tmp_path):
    def broken(tensors):
        tensors["conv_in.weight"].view(-1)[0] = float("nan")
        return tensors

    with pytest.raises(InputError, match=r"conv_in.weight holds values that are not numbers"):
        load_tile(str(damaged(sd1_tile, tmp_path, broken)), engine.model)


def test_a_name_in_capitals_is_the_same_kind_of_file(engine, sd1_tile, tmp_path, monkeypatch):
    """Not a hub id: where it is missing, no hub is asked."""
    damaged(sd1_tile, tmp_path, dict).rename(tmp_path / "Tile.SAFETENSORS")
    assert load_tile(str(tmp_path / "Tile.SAFETENSORS"), engine.model).name == "Tile"
    monkeypatch.setattr(tile_models, "hub_answers", None)
    with pytest.raises(InputError, match="does not exist"):
        load_tile("models/Tile.SAFETENSORS", engine.model)


def test_without_a_network_a_hub_id_is_one_sentence_at_once(engine, monkeypatch):
    monkeypatch.setattr(tile_models, "hub_answers", lambda: False)
    with pytest.raises(InputError, match="not a file or folder here, and the hub cannot be reached"):
        load_tile("someone/some-tile", engine.model)


def folder_of(path, config):
    path.mkdir()
    (path / "config.json").write_text(config)
    (path / "diffusion_pytorch_model.bin").write_bytes(b"pickle")
    return path


WRONG = {
    "missing": (lambda *_: "nowhere.safetensors", "does not exist"),
    "a pickle": (lambda folder, *_: _written(folder / "control_v11f1e_sd15_tile.pth"), "a pickle"),
    "no safetensors": (lambda folder, *_: _written(folder / "a.safetensors"), "not a .safetensors file, or a damaged"),
    "no ControlNet": (lambda folder, sd1, _: sd1 / "unet" / "diffusion_pytorch_model.safetensors", "not a ControlNet"),
    "a UNet's folder": (lambda folder, sd1, _: sd1 / "unet", "not a ControlNet but a UNet2DConditionModel"),
    "a whole model": (lambda folder, sd1, _: sd1, "a whole diffusers model, not a ControlNet"),
    "no model at all": (lambda folder, *_: folder, "no diffusers model, not a ControlNet"),
    "a broken configuration": (lambda folder, *_: folder_of(folder / "a", "{"), "config.json: cannot be read"),
    "a folder of pickles": (
        lambda folder, *_: folder_of(folder / "a", '{"_class_name": "ControlNetModel"}'),
        "is missing in this folder; weights in pickles",
    ),
}


def _written(path):
    path.write_bytes(b"not what its name says")
    return path


@pytest.mark.parametrize(("make", "message"), WRONG.values(), ids=WRONG)
def test_what_is_no_controlnet_is_refused_before_anything_is_loaded(tmp_path, sd1_folder, sd1_tile, make, message):
    with pytest.raises(InputError, match=message):
        checked_tile(str(make(tmp_path, sd1_folder, sd1_tile)))


def test_another_family_is_refused_with_both_numbers(engine, sdxl_engine, sd1_tile, sdxl_tile, tmp_path):
    single = tmp_path / "xl.safetensors"
    save_file(load_file(sdxl_tile / "diffusion_pytorch_model.safetensors"), single)
    for source in (sdxl_tile, single):
        with pytest.raises(InputError, match="text width of 64, the model has 32"):
            load_tile(str(source), engine.model)
    with pytest.raises(InputError, match="text width of 32, the model has 64"):
        load_tile(str(sd1_tile), sdxl_engine.model)


def test_other_latents_are_refused_with_both_numbers(sd1_tile, tmp_path):
    wide = load_model(str(tiny_model.save_sd1(tmp_path / "wide", channels=16)), device="cpu")
    with pytest.raises(InputError, match="latents of 4 channels, the model has 16"):
        load_tile(str(sd1_tile), wide)


def test_a_controlnet_for_other_pixels_is_refused(engine, sd1_folder, tmp_path):
    odd = tiny_model.save_controlnet(tmp_path / "odd", sd1_folder, conditioning_embedding_out_channels=(8, 16))
    with pytest.raises(InputError, match="2 pixels a latent cell; an RGB picture, 8 pixels a cell"):
        load_tile(str(odd), engine.model)


def test_weights_that_are_missing_are_told_and_not_made_up(engine, sd1_tile, tmp_path):
    def cut(tensors):
        return {name: tensor for name, tensor in tensors.items() if "mid_block.attentions.0.norm" not in name}

    path = damaged(sd1_tile, tmp_path, cut)
    with pytest.raises(InputError, match="2 weights of the ControlNet are missing, such as mid_block"):
        load_tile(str(path), engine.model)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "config.json").write_text((sd1_tile / "config.json").read_text())
    path.rename(folder / "diffusion_pytorch_model.safetensors")
    with pytest.raises(InputError, match="2 weights of the ControlNet are missing, such as mid_block"):
        load_tile(str(folder), engine.model)


def test_weights_of_other_shapes_are_refused(engine, sd1_tile, tmp_path):
    def widen(tensors):
        name = "mid_block.resnets.0.conv1.weight"
        return {**tensors, name: torch.cat([tensors[name]] * 2)}

    with pytest.raises(InputError, match="does not fit the model"):
        load_tile(str(damaged(sd1_tile, tmp_path, widen)), engine.model)
