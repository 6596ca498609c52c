"""Our methods in txt2img's Hires. fix: a double of the host's second pass, made from reading it."""

import copy
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from lib_latent_upscale.interpolation import INTERPOLATIONS, interpolate_latent
from lib_latent_upscale.learned import upscale_latent, upscale_with
from lib_latent_upscale.learned.files import file_hash
from tests.core import latent_files

LANCZOS = "Latent Upscale: lanczos"
SIZE = (12, 10)


@dataclass
class Txt2Img:
    """`StableDiffusionProcessingTxt2Img` as v1.10.1 (82a973c) has it, as far as the second pass goes."""

    modes: dict[str, Any]
    hr_upscaler: str
    latents: torch.Tensor
    enable_hr: bool = True
    frames: bool = False
    interrupted: bool = False
    fails: bool = False
    sd_model: Any = field(default_factory=lambda: SimpleNamespace(is_sd1=True))
    extra_generation_params: dict[str, Any] = field(default_factory=dict)
    width: int = 8 * 5
    height: int = 8 * 6
    hr_upscale_to_x: int = 8 * SIZE[1]
    hr_upscale_to_y: int = 8 * SIZE[0]
    hr_checkpoint_info: Any = None
    saved: list[torch.Tensor] = field(default_factory=list)
    latent_scale_mode: Any = None

    def init(self) -> None:
        self.latent_scale_mode = self.modes.get(self.hr_upscaler)
        if self.latent_scale_mode is None:
            raise LookupError(f"could not find upscaler named {self.hr_upscaler}")
        self.extra_generation_params["Hires upscaler"] = self.hr_upscaler

    def sample(self) -> Any:
        return self.sample_hr_pass(self.latents, None, [7, 8], [0, 0], 0, ["a", "b"])

    def sample_hr_pass(
        self,
        samples: torch.Tensor,
        decoded_samples: Any,
        seeds: Any,
        subseeds: Any,
        subseed_strength: float,
        prompts: Any,
    ) -> torch.Tensor:
        if self.interrupted:
            return samples
        self.saved = [samples[index] for index in range(samples.shape[0])]
        if frames := samples.ndim == 5:  # Forge Neo
            samples = samples.squeeze(2)
        mode = self.latent_scale_mode
        samples = F.interpolate(samples, size=SIZE, mode=mode["mode"], antialias=mode["antialias"])
        if self.fails:
            raise MemoryError("out of memory")
        return samples.unsqueeze(2) if frames else samples


@pytest.fixture
def latents() -> torch.Tensor:
    return torch.randn(2, 4, 6, 5, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def generate(webui: Any, latents: torch.Tensor) -> Any:
    hook = webui.script_module.LatentUpscaleHiresFix()
    modes = webui.modules["modules.shared"].latent_upscale_modes

    def run(upscaler: str, given: torch.Tensor = latents, **values: Any) -> tuple[Any, torch.Tensor]:
        p = Txt2Img(modes, upscaler, given, **values)
        hook.before_process(p)
        p.init()
        result = p.sample()
        hook.postprocess(p, None)
        return p, result

    return run


@pytest.mark.parametrize("method", INTERPOLATIONS)
def test_the_second_pass_starts_from_our_interpolation(generate: Any, latents: torch.Tensor, method: str) -> None:
    _, plain = generate(f"Latent Upscale: {method}")
    _, kept = generate(f"Latent Upscale: {method} (keep statistics)")
    assert torch.equal(plain, interpolate_latent(latents, SIZE, method))
    assert torch.equal(kept, interpolate_latent(latents, SIZE, method, keep_statistics=True))
    assert type(plain) is torch.Tensor


def test_learned_latent_is_the_network_and_names_its_weights(generate: Any, latents: torch.Tensor) -> None:
    p, result = generate("Latent Upscale: learned-latent")
    assert torch.allclose(result, upscale_latent(latents, SIZE, "sd1"), atol=1e-5)
    assert len(p.extra_generation_params["Latent upscale weights"]) == 10


def test_learned_goes_through_pictures_and_draws_by_each_seed(webui: Any, generate: Any, latents: torch.Tensor) -> None:
    state = torch.get_rng_state()
    _, together = generate("Latent Upscale: learned")
    assert together.shape == (2, 4, *SIZE)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert torch.equal(generate("Latent Upscale: learned")[1], together)


def test_a_network_that_does_not_know_the_model_is_refused_in_a_sentence(generate: Any) -> None:
    with pytest.raises(ValueError, match="choose another method"):
        generate("Latent Upscale: learned-latent", sd_model=SimpleNamespace())


def test_it_is_refused_before_the_first_pass(webui: Any, latents: torch.Tensor) -> None:
    hook = webui.script_module.LatentUpscaleHiresFix()
    modes = webui.modules["modules.shared"].latent_upscale_modes
    p = Txt2Img(modes, "Latent Upscale: learned", latents, sd_model=SimpleNamespace())
    hook.before_process(p)
    with pytest.raises(ValueError, match=r"Latent Upscale: method is 'learned'; it knows the latents of") as refused:
        p.init()
    assert refused.value.status_code == 422
    p.hr_checkpoint_info = "another checkpoint, which nobody has loaded yet"
    p.init()


@pytest.fixture
def own_file(webui: Any, tmp_path: Path) -> Path:
    webui.modules["modules.paths"].models_path = str(tmp_path)
    path = tmp_path / "latent-upscaler" / "latent-upscaler-v2.1_SDv1-x2.0.safetensors"
    return latent_files.saved(latent_files.city96(), path)


def test_a_file_of_the_persons_own_is_an_upscaler_even_if_it_came_after_the_menu(
    webui: Any, generate: Any, latents: torch.Tensor, own_file: Path
) -> None:
    name = f"Latent Upscale: learned-latent: {own_file.stem}"
    modes = webui.modules["modules.shared"].latent_upscale_modes
    assert name not in modes
    p, result = generate(name)
    assert torch.allclose(result, upscale_with(own_file, latents, SIZE, "sd1"), atol=1e-5)
    assert p.extra_generation_params["Latent upscale weights"] == file_hash(own_file)
    webui.reload()
    assert name in modes


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("gone", {}, "there is no file of that name"),
        ("latent-upscaler-v2.1_SDv1-x2.0", {"hr_upscale_to_x": 160}, "makes pictures 2 times larger"),
        ("latent-upscaler-v2.1_SDv1-x2.0", {"sd_model": SimpleNamespace(is_sdxl=True)}, "not for those of SDXL"),
    ],
)
def test_a_file_that_cannot_work_is_refused_before_the_first_pass(
    webui: Any, latents: torch.Tensor, own_file: Path, name: str, changes: dict[str, Any], said: str
) -> None:
    hook, modes = webui.script_module.LatentUpscaleHiresFix(), webui.modules["modules.shared"].latent_upscale_modes
    p = Txt2Img(modes, f"Latent Upscale: learned-latent: {name}", latents, **changes)
    hook.before_process(p)
    with pytest.raises(ValueError, match=said):
        p.init()


def test_the_hosts_own_upscalers_are_the_hosts(generate: Any, latents: torch.Tensor) -> None:
    _, result = generate("Latent")
    assert torch.equal(result, F.interpolate(latents, size=SIZE, mode="bilinear"))


def test_a_frame_axis_of_one_is_kept(generate: Any, latents: torch.Tensor) -> None:
    _, result = generate(LANCZOS, latents[:, :, None])
    assert torch.equal(result, interpolate_latent(latents, SIZE, "lanczos")[:, :, None])


def test_what_is_saved_before_the_second_pass_is_the_small_picture(generate: Any, latents: torch.Tensor) -> None:
    p, _ = generate(LANCZOS)
    assert [type(saved) for saved in p.saved] == [torch.Tensor, torch.Tensor]
    assert torch.equal(torch.stack(p.saved), latents)


def test_interrupted_gives_the_latents_themselves(generate: Any, latents: torch.Tensor) -> None:
    assert generate(LANCZOS, interrupted=True)[1] is latents


def test_nothing_is_left_on_the_generation_nor_in_torch(webui: Any, latents: torch.Tensor) -> None:
    hook, own = webui.script_module.LatentUpscaleHiresFix(), F.interpolate
    p = Txt2Img(webui.modules["modules.shared"].latent_upscale_modes, LANCZOS, latents, fails=True)
    before = set(vars(p))
    hook.before_process(p)
    p.init()
    with pytest.raises(MemoryError):
        p.sample()
    assert F.interpolate is own
    p.fails = False
    hook.before_process(p)  # the same object once more, as scripts that loop do
    assert torch.equal(p.sample(), interpolate_latent(latents, SIZE, "lanczos"))
    hook.postprocess(p, None)
    assert set(vars(p)) == before


def test_a_copy_of_a_generation_enlarges_its_own_latents(webui: Any, latents: torch.Tensor) -> None:
    hook = webui.script_module.LatentUpscaleHiresFix()
    first = Txt2Img(webui.modules["modules.shared"].latent_upscale_modes, LANCZOS, latents)
    hook.before_process(first)
    second = copy.copy(first)
    second.hr_upscaler, second.latents = "Latent Upscale: bislerp", latents + 1
    hook.before_process(second)
    second.init()
    assert torch.equal(second.sample(), interpolate_latent(latents + 1, SIZE, "bislerp"))


def test_the_menu_has_ours_behind_the_hosts_and_loses_them_with_the_extension(webui: Any) -> None:
    modes = webui.modules["modules.shared"].latent_upscale_modes
    assert next(iter(modes)) == "Latent"
    assert {LANCZOS, "Latent Upscale: bislerp", "Latent Upscale: learned", "Latent Upscale: learned-latent"} <= {*modes}
    webui.reload()
    assert len(modes) == len(set(modes)) == 1 + 2 * len(INTERPOLATIONS) + 2
    for unloaded in webui.modules["modules.script_callbacks"].callbacks["unloaded"]:
        unloaded()
    assert list(modes) == ["Latent"]
    with pytest.raises(LookupError, match="could not find upscaler named Latent Upscale: lanczos"):
        Txt2Img(modes, LANCZOS, torch.zeros(1, 4, 2, 2)).init()


def test_it_is_shown_in_txt2img_alone_and_leaves_generations_without_hires_fix(webui: Any) -> None:
    hook = webui.script_module.LatentUpscaleHiresFix()
    assert hook.show(True) is False
    assert hook.show(False) is webui.modules["modules.scripts"].AlwaysVisible
    p = SimpleNamespace(enable_hr=False)
    hook.before_process(p)
    assert vars(p) == {"enable_hr": False}
