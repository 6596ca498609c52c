"""A small double of the WebUI, as far as the extension talks to it: its contract, not its code.

Latents have one eighth of the picture's sides, like the real ones. The autoencoder averages blocks and adds noise from
torch's global generator; the sampler records what it was given.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps

from lib_latent_upscale.samplers import import_k_diffusion

CELL = 8


def encode(pictures: torch.Tensor, approximation: Any = None, model: Any = None) -> torch.Tensor:
    """(batch, 3, height, width) to (batch, 4, height // 8, width // 8), with a draw from the global generator."""
    means = torch.nn.functional.avg_pool2d(pictures, CELL)
    latent = torch.cat([means, means.mean(1, keepdim=True)], 1)
    return latent + 0.01 * torch.randn(latent.shape)


@dataclass(frozen=True)
class Ways:
    """What hosts do differently; the defaults are those of v1.10.1."""

    encodes_in: str = "processing"
    """The module in which `init` looks the encode up."""
    rounds_to: int = 1
    """Sides become multiples of this number of pixels after the hook `before_process`."""
    composite_first: bool = False
    """Whether the hook `postprocess_image` comes last."""
    loads: Any = None
    """What happens when the checkpoint is loaded, after the hook `before_process`."""


def ways() -> Ways:
    found: Ways = sys.modules["modules.processing"].ways
    return found


def resize_image(resize_mode: int, picture: Image.Image, width: int, height: int) -> Image.Image:
    """The three resize modes for pictures, for shapes where no rounding is involved."""
    if resize_mode == 0:
        return picture.resize((width, height), Image.Resampling.LANCZOS)
    method = ImageOps.fit if resize_mode == 1 else ImageOps.pad
    return method(picture, (width, height), Image.Resampling.LANCZOS).convert("RGB")


class Sampler:
    """Asks for sigmas and remembers everything it was called with."""

    def __init__(self, *, discards: bool = False) -> None:
        self.model_wrap = SimpleNamespace(sigmas=torch.linspace(0.03, 14.6, 1000))
        self.discards = discards
        self.ran: torch.Tensor | None = None
        self.latent: torch.Tensor | None = None

    def get_sigmas(self, p: Any, steps: int) -> torch.Tensor:
        steps += self.discards
        if p.sampler_noise_scheduler_override is not None:
            sigmas = p.sampler_noise_scheduler_override(steps)
        else:
            sigmas = torch.cat([torch.linspace(14.6, 0.03, steps), torch.zeros(1)])
        assert len(sigmas) == steps + 1
        return torch.cat([sigmas[:-2], sigmas[-1:]]) if self.discards else sigmas

    def sample_img2img(self, p: Any, latent: torch.Tensor, steps: int | None = None) -> torch.Tensor:
        total, runs = p.steps, int(min(p.denoising_strength, 0.999) * p.steps) + 1
        if steps is not None or sys.modules["modules.shared"].opts.img2img_fix_steps:
            steps = steps or p.steps
            total, runs = int(steps / min(p.denoising_strength, 0.999)), steps
        self.latent = latent
        self.ran = self.get_sigmas(p, total)[total - runs :]
        return latent


TIMESTEPS = ("DDIM", "DDIM CFG++", "PLMS", "UniPC")


def sampler_config(name: str) -> Any:
    options = {"scheduler": "karras"} if str(name).startswith("DPM++ 2M") else {}
    return SimpleNamespace(name=name, options={**options, "discard_next_to_last_sigma": name == "DPM2"})


def schedulers() -> dict[str, Any]:
    """Schedule types, on k-diffusion's own functions, as v1.10.1 has them."""

    def row(label: str, function: Any, **more: Any) -> Any:
        return SimpleNamespace(label=label, function=function, **{"default_rho": -1, "need_inner_model": False, **more})

    def ddim(n: int, sigma_min: float, sigma_max: float, inner_model: Any, device: Any) -> torch.Tensor:
        return torch.cat([inner_model.sigmas[1 :: max(len(inner_model.sigmas) // n, 1)].flip(0), torch.zeros(1)])

    def broken(**_: Any) -> torch.Tensor:
        raise KeyError("needs the model itself")

    sampling = import_k_diffusion("sampling")
    rows = [
        row("Automatic", None),
        row("Karras", sampling.get_sigmas_karras, default_rho=7.0),
        row("Exponential", sampling.get_sigmas_exponential),
        row("DDIM", ddim, need_inner_model=True),
        row("Turbo", broken),
    ]
    return {name: one for one in rows for name in (one.label, one.label.lower())}


class Flux:
    """Forge's and ersatzForge's predictor of Flux.1 schnell, and their view of it (`k_diffusion.external`, fca12a2).

    Its times are its sigmas, but the view asks for those at positions in the table.
    """

    def __init__(self) -> None:
        self.set_parameters(shift=1)

    def set_parameters(self, *, shift: float) -> None:
        """As Neo's, which does so in place for each request, to models with `use_shift`."""
        times = torch.arange(1, 10001) / 10000
        self.sigmas = math.exp(shift) / (math.exp(shift) + (1 / times - 1))

    def sigma(self, time: torch.Tensor) -> torch.Tensor:
        return time

    def loaded(self) -> Any:
        """The model as the host holds it."""
        unet = SimpleNamespace(model=SimpleNamespace(predictor=self))
        return SimpleNamespace(forge_objects=SimpleNamespace(unet=unet))


class ScheduleLinker(torch.nn.Module):
    def __init__(self, predictor: Any) -> None:
        super().__init__()
        self.predictor = predictor

    @property
    def sigmas(self) -> torch.Tensor:
        return self.predictor.sigmas

    def get_sigmas(self, n: int) -> torch.Tensor:
        positions = torch.linspace(len(self.sigmas) - 1, 0, n)
        return torch.cat([self.predictor.sigma(positions), torch.zeros(1)])


def forge_simple(n: int, sigma_min: float, sigma_max: float, inner_model: Any, device: Any) -> torch.Tensor:
    """ersatzForge's, which asks what kind of predictor it has before it goes on."""
    assert inner_model.predictor is not None
    sigmas = [float(inner_model.sigmas[-(1 + int(x * len(inner_model.sigmas) / n))]) for x in range(n)]
    return torch.FloatTensor([*sigmas, 0.0])


class TimestepSampler:
    """DDIM and its like: no sigmas at all, and of the steps that it is told to run it leaves `left_out` out."""

    def __init__(self, left_out: int = 0) -> None:
        self.model_wrap = SimpleNamespace()
        self.model_wrap_cfg = torch.nn.Identity()
        self.left_out = left_out
        self.steps: int | None = None

    def sample_img2img(self, p: Any, latent: torch.Tensor, steps: int | None = None) -> torch.Tensor:
        self.steps = steps
        for _ in range((steps or p.steps) - self.left_out):
            latent = self.model_wrap_cfg(latent)
        return latent


@dataclass
class Img2Img:
    """The processing object: `init` enlarges the picture, encodes it once and prepares masks."""

    init_images: list[Image.Image]
    width: int = 128
    height: int = 128
    resize_mode: int = 3
    steps: int = 4
    denoising_strength: float = 0.5
    sampler_name: str = "Euler"
    scheduler: str = "Automatic"
    batch_size: int = 1
    n_iter: int = 1
    seed: int = 7
    subseed: int = 3
    prompt: str = ""
    negative_prompt: str = ""
    styles: tuple[str, ...] = ()
    image_mask: Image.Image | None = None
    mask_round: bool = True
    mask_blur_x: int = 0
    mask_blur_y: int = 0
    inpaint_full_res: bool = False
    inpaint_full_res_padding: int = 0
    inpainting_fill: int = 1
    do_not_save_samples: bool = False
    do_not_save_grid: bool = False
    outpath_samples: str = ""
    next_sampler: Any = None
    sd_model: Any = None
    is_api: bool = False
    fails_in: str = ""
    sampler_noise_scheduler_override: Any = None
    paste_to: Any = None
    latent_mask: Any = None
    mask_for_overlay: Any = None
    overlay_images: Any = None
    iteration: int = 0
    rng: Any = None
    noise: Any = None
    all_prompts: Any = None
    all_negative_prompts: Any = None
    all_seeds: Any = None
    all_subseeds: Any = None
    scripts: Any = None
    script_args: Any = ()
    extra_generation_params: dict[str, Any] = field(default_factory=dict)
    override_settings: dict[str, Any] = field(default_factory=dict)
    comments: list[str] = field(default_factory=list)

    def comment(self, text: str) -> None:
        self.comments.append(text)

    def init(self, all_prompts: Any, all_seeds: Any, all_subseeds: Any) -> None:
        self.sampler = self.next_sampler or Sampler()
        pictures = [self._prepared(picture.convert("RGB")) for picture in self.init_images]
        if self.fails_in == "init":
            raise MemoryError("out of memory")
        batch = np.stack([np.asarray(picture, dtype=np.float32).transpose(2, 0, 1) / 255 for picture in pictures])
        if len(batch) == 1:
            batch = batch.repeat(self.batch_size, axis=0)
        self.encoded = torch.from_numpy(batch)
        self.init_latent = sys.modules[f"modules.{ways().encodes_in}"].images_tensor_to_samples(self.encoded, 0, None)
        if self.resize_mode == 3:
            size = (self.height // CELL, self.width // CELL)
            self.init_latent = torch.nn.functional.interpolate(self.init_latent, size=size, mode="bilinear")

    def _prepared(self, picture: Image.Image) -> Image.Image:
        if self.image_mask is None:
            return (
                picture if self.resize_mode == 3 else resize_image(self.resize_mode, picture, self.width, self.height)
            )
        if self.inpaint_full_res:
            self.mask_for_overlay = self.image_mask
            left, top, right, bottom = self.image_mask.getbbox()
            self.paste_to = (left, top, right - left, bottom - top)
            return picture.crop((left, top, right, bottom)).resize((self.width, self.height))
        self.mask_for_overlay = resize_image(0, self.image_mask, self.width, self.height)
        return resize_image(self.resize_mode, picture, self.width, self.height)

    def sample(self, **_: Any) -> torch.Tensor:
        if self.fails_in == "sample":
            raise MemoryError("out of memory")
        self.noise = self.rng.next()
        return self.sampler.sample_img2img(self, self.init_latent)


def process_images(p: Img2Img) -> Any:
    """One generation: hooks, `init`, and `sample` for each of "Batch count"."""
    run_hooks(p, "before_process")
    if ways().loads is not None:
        ways().loads()
    p.width, p.height = (
        max((side + ways().rounds_to // 2) // ways().rounds_to, 1) * ways().rounds_to for side in (p.width, p.height)
    )
    if hasattr(p.sd_model, "fix_dimensions"):
        p.width, p.height = p.sd_model.fix_dimensions(p.width, p.height)
    count = p.batch_size * p.n_iter
    seeds = p.all_seeds = [p.seed + index for index in range(count)]
    p.all_subseeds = [p.subseed + index for index in range(count)]
    p.all_prompts, p.all_negative_prompts = [p.prompt] * count, [p.negative_prompt] * count
    p.init(p.all_prompts, seeds, p.all_subseeds)
    latents, images, infotexts = [], [], []
    state = sys.modules["modules.shared"].state
    if state.job_count == -1:
        state.job_count = p.n_iter
    for iteration in range(p.n_iter):
        if state.interrupted:
            break
        state.skipped = False
        p.iteration = iteration
        p.seeds = seeds[p.iteration * p.batch_size : (p.iteration + 1) * p.batch_size]
        p.rng = SimpleNamespace(next=partial(next, iter([f"{seeds[0]}, draw {draw}" for draw in range(3)])))
        latents.append(p.sample())
        state.nextjob()
        torch.manual_seed(p.seeds[-1])  # the host leaves its global generator like this
        for index in range(p.batch_size):
            p.batch_index = index
            shown = SimpleNamespace(image=decode(latents[-1][index]).resize((p.width, p.height)))
            hooks = ["postprocess_image", "postprocess_image_after_composite"]
            for hook in reversed(hooks) if ways().composite_first else hooks:
                run_hooks(p, hook, shown)
            images.append(shown.image)
            infotexts.append(infotext(p))
            if not p.do_not_save_samples:
                save_image(shown.image, info=infotexts[-1])
    processed = SimpleNamespace(
        images=images,
        index_of_first_image=0,
        latents=latents,
        infotexts=infotexts,
        comments=list(p.comments),
        width=p.width,
        height=p.height,
    )
    run_hooks(p, "postprocess", processed)
    return processed


def decode(latent: torch.Tensor) -> Image.Image:
    """(4, height, width) to a picture of that size."""
    pixels = (255 * latent[:3].clamp(0, 1)).round().to(torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def save_image(picture: Image.Image, *_: Any, info: Any, **__: Any) -> None:
    sys.modules["modules.images"].saved.append((picture, info))


class Infotext(str):  # noqa: SLOT000 - what it is made of is kept
    """A text, as the host's infotexts are; its values are looked up by their labels."""

    def __new__(cls, values: dict[str, Any]) -> Any:
        made = super().__new__(cls, ", ".join(f"{label}: {quote(str(value))}" for label, value in values.items()))
        made.labels, made.get, made.items, made.keys = values, values.get, values.items, values.keys
        return made

    def __contains__(self, label: object) -> bool:
        return label in self.labels

    def __getitem__(self, label: Any) -> Any:
        return self.labels[label]

    def __iter__(self) -> Any:
        return iter(self.labels)


def quote(text: str) -> str:
    return f'"{text}"' if set(text) & set(",:") else text


def infotext(p: Img2Img) -> Infotext:
    written = {"Size": f"{p.width}x{p.height}", "Schedule type": p.scheduler, **p.extra_generation_params}
    return Infotext({label: value for label, value in written.items() if value is not None})


def run_hooks(p: Img2Img, name: str, *args: Any) -> None:
    for script in p.scripts.alwayson_scripts if p.scripts is not None else []:
        try:
            getattr(script, name)(p, *args)
        except Exception as error:  # noqa: BLE001, PERF203  # the host swallows what hooks raise
            p.comments.append(f"swallowed {error!r}")


class Options:
    """Keeps options by name; registering one twice is noticed. As in the host, only what is in `data` is saved."""

    def __init__(self) -> None:
        self.registered: list[str] = []
        self.data_labels: dict[str, OptionInfo] = {"img2img_fix_steps": OptionInfo(False, "Fix steps")}
        self.data: dict[str, Any] = {"img2img_fix_steps": False}

    def __getattr__(self, name: str) -> Any:
        attributes = vars(self)
        if name in attributes.get("data", {}):
            return attributes["data"][name]
        try:
            return attributes["data_labels"][name].default
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        known = "data" in vars(self) and (name in self.data or name in self.data_labels)
        (self.data if known else vars(self))[name] = value

    def add_option(self, name: str, info: Any) -> None:
        self.registered.append(name)
        self.data_labels[name] = info


class OptionInfo:
    def __init__(self, default: Any, label: str, component: Any = None, component_args: Any = None, **_: Any) -> None:
        self.default, self.label = default, label
        self.component, self.component_args = component, component_args

    def needs_reload_ui(self) -> OptionInfo:
        return self

    def info(self, text: str) -> OptionInfo:
        self.label = f"{self.label} ({text})"
        return self


class State:
    """The host's progress and what the user has pressed."""

    def __init__(self) -> None:
        self.interrupted = self.skipped = self.stopping_generation = False
        self.job_count, self.job_no = -1, 0
        self.sampling_step = self.sampling_steps = 0
        self.textinfo: str | None = None
        self.current_latent: Any = None

    def nextjob(self) -> None:
        self.job_no, self.sampling_step = self.job_no + 1, 0


class Moves:
    """Where the host's checkpoint is, and has been."""

    def __init__(self) -> None:
        self.model_data = SimpleNamespace(sd_model=None)
        self.moves: list[str] = []

    def send_model_to_cpu(self, _model: Any) -> None:
        self.moves.append("away")

    def send_model_to_device(self, _model: Any) -> None:
        self.moves.append("back")


class Script:
    """What the host's base class of scripts gives."""

    args_from = 0
    args_to = 0

    def elem_id(self, name: str) -> str:
        return f"script_{name}"


class Component:
    """Any control or container of Gradio: what it was made with, and what listens to it."""

    def __init__(self, value: Any = None, **values: Any) -> None:
        self.value = value
        self.label: str | None = None
        self.elem_id: str | None = None
        self.listeners: list[dict[str, Any]] = []
        vars(self).update(values)

    def __enter__(self) -> Component:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def change(self, **listener: Any) -> None:
        self.listeners.append(listener)

    click = input = select = release = change


class Gradio(ModuleType):
    """Gradio, whose every component is a `Component`."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return type(name, (Component,), {})


class AxisOption(SimpleNamespace):
    def __init__(self, label: str, type: Any, apply: Any, **others: Any) -> None:  # noqa: A002
        super().__init__(label=label, type=type, apply=apply, **others)


def modules() -> dict[str, ModuleType]:
    """Modules of the host, by their names in `sys.modules`."""
    grid = SimpleNamespace(axis_options=[], AxisOptionImg2Img=AxisOption)
    grid_script = SimpleNamespace(script_class=type("Script", (), {"__module__": "xyz_grid.py"}), module=grid)
    moves = Moves()
    callbacks: dict[str, list[Any]] = {"settings": [], "before_ui": [], "unloaded": []}
    contents: dict[str, dict[str, Any]] = {
        "processing": {
            "opt_f": CELL,
            "ways": Ways(),
            "images_tensor_to_samples": encode,
            "process_images": process_images,
            "create_binary_mask": lambda mask, **_: mask.convert("L"),
        },
        "images": {
            "flatten": lambda picture, _color: picture.convert("RGB"),
            "resize_image": resize_image,
            "save_image": save_image,
            "saved": [],
        },
        "errors": {"exception_records": []},
        "infotext_utils": {"quote": quote},
        "rng": {
            "randn": lambda seed, _shape, generator=None: torch.manual_seed(seed),
            "create_generator": lambda seed: torch.Generator().manual_seed(seed),
        },
        "masking": {"fill": lambda picture, mask: Image.composite(picture.filter(ImageFilter.BLUR), picture, mask)},
        "shared": {
            "opts": Options(),
            "device": "cpu",
            "OptionInfo": OptionInfo,
            "state": State(),
            "latent_upscale_modes": {"Latent": {"mode": "bilinear", "antialias": False}},
        },
        "scripts": {"Script": Script, "AlwaysVisible": object(), "scripts_data": [grid_script]},
        "devices": {
            "dtype": torch.float16,
            "dtype_vae": torch.float32,
            "NansException": type("NansException", (Exception,), {}),
        },
        "paths": {"models_path": ""},
        "ui_components": {
            "InputAccordion": Component,
            "DropdownMulti": type("DropdownMulti", (Component,), {}),
        },
        "ui_common": {"create_refresh_button": lambda *_: None},
        "sd_models": {
            "checkpoint_aliases": {},
            "apply_alpha_schedule_override": lambda _model, _p: None,
            "model_data": moves.model_data,
            "moves": moves.moves,
            "send_model_to_cpu": moves.send_model_to_cpu,
            "send_model_to_device": moves.send_model_to_device,
        },
        "sd_samplers_common": {
            "images_tensor_to_samples": encode,
            "decode_first_stage": lambda _model, latent: (
                2 * latent[:, :3].repeat_interleave(8, 2).repeat_interleave(8, 3) - 1
            ),
            "approximation_indexes": {"Full": 0},
        },
        "sd_samplers": {"find_sampler_config": sampler_config},
        "sd_samplers_timesteps": {"samplers_data_timesteps": [SimpleNamespace(name=name) for name in TIMESTEPS]},
        "sd_samplers_lcm": {"samplers_data_lcm": [SimpleNamespace(name="LCM")]},
        "sd_schedulers": {"schedulers_map": schedulers()},
        "script_callbacks": {
            "callbacks": callbacks,
            "on_ui_settings": callbacks["settings"].append,
            "on_before_ui": callbacks["before_ui"].append,
            "on_script_unloaded": callbacks["unloaded"].append,
        },
    }
    package = ModuleType("modules")
    package.__path__ = []
    made = {"modules": package, "gradio": Gradio("gradio")}
    for name, values in contents.items():
        module = ModuleType(f"modules.{name}")
        vars(module).update(values)
        setattr(package, name, module)
        made[f"modules.{name}"] = module
    return made


@contextmanager
def installed() -> Iterator[dict[str, ModuleType]]:
    """The host in `sys.modules`, and nothing of the adapter left there afterwards.

    The core's modules are those from before: a reload of the UI reads them anew, for later tests, too.
    """
    made = modules()
    core = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "lib_latent_upscale"}
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in ("gradio", "modules")}
    sys.modules.update(made)
    try:
        yield made
    finally:
        adapter = [name for name in sys.modules if name.startswith("lib_latent_upscale.webui")]
        for name in [*made, *adapter]:
            del sys.modules[name]
        sys.modules.update({**hidden, **{name: module for name, module in core.items() if name not in adapter}})
