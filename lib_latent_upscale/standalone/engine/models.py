"""Finding and loading a latent diffusion model: the demo model, a checkpoint, a diffusers folder or a hub id."""

from __future__ import annotations

import json
import re
import socket
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lib_latent_upscale.checkpoints import (
    FAMILIES,
    PICKLES,
    SD1_WIDTH,
    SD2_WIDTH,
    SDXL_WIDTH,
    UNET_OUTPUT,
    Shapes,
    check_readable,
    is_hub_id,
    is_quantised,
    is_sdxl,
    is_whole_checkpoint,
    latent_channels,
    read_header,
    text_width,
)
from lib_latent_upscale.errors import InputError, ModelFileError, first_line
from lib_latent_upscale.learned import family_of
from lib_latent_upscale.memory import default_device
from lib_latent_upscale.noise_tables import LEAST_ALPHA, sigmas_of
from lib_latent_upscale.standalone.engine.prompts import TextEncoder
from lib_latent_upscale.standalone.engine.tokenizer import END_OF_TEXT, clip_tokenizer
from lib_latent_upscale.standalone.engine.vae import shift_factor

__all__ = [
    "DEMO",
    "DTYPES",
    "LatentModel",
    "check_weights",
    "checked_device",
    "checked_source",
    "dtype_named",
    "header_shapes",
    "hub_answers",
    "load_model",
    "model_name",
]

DEMO = "demo"
DEMO_FILE = Path(__file__).parents[2] / "weights" / "demo-model" / "demo.safetensors"
CONFIGURATIONS = "diffusers"
"""A folder of this name next to a checkpoint, with model_index.json in it, is used for its configurations."""

DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}

SHIPPED: dict[int | None, Path] = {
    width: Path(__file__).with_name("configurations") / family
    for width, family in ((SD1_WIDTH, "sd1"), (SD2_WIDTH, "sd2"), (SDXL_WIDTH, "sdxl"))
}
"""Configurations of the published models, by the width of the UNet's text embeddings."""
_REFINER_WIDTH = 1280
_REFINER = "the SDXL refiner, which only finishes what SDXL has begun; give an ordinary SDXL model."
_PADDING: dict[int | None, str] = {SD2_WIDTH: "!"}
"""Padding token of OpenCLIP's text encoders; OpenAI's were trained with the end of the text."""
_SD2_BASE_STEPS = 875000
"""Training steps of 2.1-base, which predicts noise; the other 2.x predict v. diffusers uses this number, too."""


@dataclass(frozen=True, eq=False)
class LatentModel:
    """A loaded model, ready to sample; its parts are those of diffusers and transformers."""

    name: str
    unet: Any
    vae: Any
    encoders: Sequence[TextEncoder]
    alphas_cumprod: Tensor
    """The model's noise table, float32 on the CPU."""
    predicts_v: bool = False
    zeroes_empty_negative: bool = False
    """Whether the embeddings of an empty negative prompt are all zeros, as for SDXL base."""

    @cached_property
    def sigmas(self) -> Tensor:
        """The noise table as sigmas: 1-D, ascending, float32 on the CPU."""
        return sigmas_of(self.alphas_cumprod)

    @property
    def vae_scale_factor(self) -> int:
        """Side of a latent cell in pixels."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def family(self) -> str | None:
        """Model family of the latents, a name in `learned.LATENTS`; None for all others."""
        config = self.vae.config
        if getattr(config, "latents_mean", None) is not None:  # a mean for each channel
            return None
        return family_of(config.scaling_factor, shift_factor(config), config.latent_channels)

    @property
    def device(self) -> torch.device:
        """The device of the UNet."""
        return torch.device(self.unet.device)


def checked_device(name: str | None) -> torch.device:
    """The device of this name; for None the best one that torch finds.

    Raises:
        InputError: torch cannot use it.
    """
    name = name or str(default_device())
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # "meta" holds no values
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"Device {name!r} cannot be used ({first_line(error)}); 'cpu' always works.") from error
    return device


def model_name(source: str) -> str:
    """The name of a model as written in infotexts: that of a file without its suffix, as in the WebUI."""
    return Path(source).stem if Path(source).suffix.lower() == ".safetensors" else Path(source).name or source


def load_model(source: str, *, device: str | None = None, dtype: str | None = None) -> LatentModel:
    """Load a model of SD 1.x, 2.x or SDXL. The autoencoder is always float32: float16 gives black pictures with some.

    Args:
        source: "demo", a .safetensors checkpoint, a diffusers folder or a hub id.
        device: as torch names it; None for the best one that torch finds.
        dtype: a name in `DTYPES`; None for float16, or float32 on the CPU.

    Raises:
        InputError: the model is missing, damaged, a pickle (which could run code) or of another kind; or the device or
            dtype cannot be used.
    """
    target = checked_device(device)
    number = dtype_named(dtype or ("float32" if target.type == "cpu" else "float16"))
    pipeline = _load_pipeline(source, number)
    model = _from_pipeline(model_name(source), pipeline)
    _place(model, target)
    return model


def dtype_named(name: str) -> torch.dtype:
    """The dtype of this name.

    Raises:
        InputError: an unknown name; lists the known ones.
    """
    if name not in DTYPES:
        raise InputError(f"Unknown dtype {name!r}; known are: {', '.join(DTYPES)}.")
    return DTYPES[name]


def _place(model: LatentModel, device: torch.device) -> None:
    model.vae.to(torch.float32)
    for part in (model.unet, model.vae, *(encoder.model for encoder in model.encoders)):
        check_weights(model.name, part)
        part.to(device).eval().requires_grad_(False)


def check_weights(name: str, part: torch.nn.Module) -> None:
    """Check that no weight is missing, infinite or NaN; the sum of each tensor shows the latter.

    Raises:
        InputError: one is.
    """
    for tensor, weight in part.named_parameters():
        if weight.is_meta:
            raise InputError(f"{name}: the model is incomplete: {tensor} is missing; download the file again.")
        if not torch.isfinite(weight.sum(dtype=torch.float32)):
            raise InputError(f"{name}: {tensor} holds values that are not numbers: download the file again.")


def checked_source(source: str) -> Path | None:
    """The file or folder of a model; None for a hub id.

    Raises:
        InputError: it does not exist, and its name cannot be a hub id.
    """
    path = DEMO_FILE if source == DEMO else Path(source)
    if path.exists():
        return path
    if source == DEMO:
        raise InputError(
            f"The demo model is missing: {DEMO_FILE} does not exist. It is part of the repository; install the clone "
            "with 'pip install -e', or give --model a checkpoint of your own."
        )
    if is_hub_id(source):
        return None
    raise InputError(
        f"Model {source!r} does not exist: give 'demo', a .safetensors file, a diffusers folder or a hub id."
    )


def _load_pipeline(source: str, dtype: torch.dtype) -> Any:
    path = checked_source(source)
    if path is None:
        return _load_hub(source, dtype)
    return _load_folder(path, dtype) if path.is_dir() else _load_file(path, dtype)


def _load_file(path: Path, dtype: torch.dtype) -> Any:
    sdxl, width = _check_checkpoint(path)
    from diffusers.loaders.single_file_utils import SingleFileComponentError

    options = _offline_options(path, width)
    try:
        with _lower_case(path) as file:
            return _pipeline_class(sdxl).from_single_file(file, **_dtype(dtype), **options, **_unused(sdxl))
    except (OSError, ValueError, KeyError, RuntimeError, SingleFileComponentError) as error:
        reason = next((said for words, said in _FAULTS.items() if words in str(error)), first_line(error))
        raise InputError(f"{path}: the checkpoint cannot be loaded ({reason}).") from error


_FAULTS = {
    "meta tensor": "weights are missing: download the file again",
    "expected shape": "its weights have other shapes than those of SD 1.x, 2.x and SDXL",
    "appear to be missing": "a part of it is missing, such as the text encoder: give a complete checkpoint",
}
"""What diffusers' messages mean, by words in them."""


@contextmanager
def _lower_case(path: Path) -> Iterator[str]:
    """A name of the file that ends in .safetensors: diffusers would treat .SAFETENSORS as a pickle."""
    if path.suffix == ".safetensors":
        yield str(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder, f"{path.stem}.safetensors")
        link.symlink_to(path.resolve())
        yield str(link)


def _offline_options(path: Path, width: int | None) -> dict[str, Any]:
    """Arguments with which diffusers needs no hub: configurations next to the checkpoint, or ours and a tokenizer."""
    beside = path.parent / CONFIGURATIONS
    if (beside / "model_index.json").is_file():
        return {"config": str(beside), "local_files_only": True}
    folder = SHIPPED.get(width)
    if folder is None:  # diffusers would ask the hub what it is
        known = ", ".join(f"{one} ({family})" for one, family in FAMILIES.items())
        raise InputError(
            f"{path}: {_REFINER}"
            if width == _REFINER_WIDTH
            else f"{path}: a text width of {width} is not supported, only {known}; for another model put its "
            f"configurations, a diffusers folder without weights, into a folder {CONFIGURATIONS} next to it."
        )
    options = {
        "config": str(folder),
        "local_files_only": True,
        "tokenizer": clip_tokenizer(path, _PADDING.get(width, END_OF_TEXT)),
    }
    if width == SDXL_WIDTH:
        options["tokenizer_2"] = clip_tokenizer(path, "!")
    if width == SD2_WIDTH and _trained_steps(path) == _SD2_BASE_STEPS:
        import diffusers

        scheduler = diffusers.DDIMScheduler.from_config(folder / "scheduler", prediction_type="epsilon")
        options["scheduler"] = scheduler
    return options


def _trained_steps(path: Path) -> int | None:
    """The number of training steps, if the checkpoint has it."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return int(file.get_tensor("global_step")) if "global_step" in file.keys() else None  # noqa: SIM118


def header_shapes(weights: Path, named: Path) -> Shapes:
    """Shapes of the tensors in a file of weights.

    Args:
        weights: the file.
        named: the model's file or folder, for errors.

    Raises:
        ModelFileError: it is a pickle, not a safetensors file, damaged, quantised, or may not be read.
    """
    from safetensors import SafetensorError, safe_open

    if weights.suffix.lower() in PICKLES:
        raise ModelFileError(
            f"{named}: a pickle, which can run code when it is opened; give a .safetensors file instead."
        )
    check_readable(weights)
    try:
        with safe_open(weights, framework="pt"):  # checks more than the header's own sizes
            header = read_header(weights)
    except (SafetensorError, ModelFileError, OSError) as error:
        raise ModelFileError(f"{named}: not a .safetensors file, or a damaged one ({first_line(error)}).") from error
    if is_quantised(header):
        raise ModelFileError(f"{named}: its weights are quantised, which is not supported; give the file in float16.")
    return header.shapes


def _check_checkpoint(path: Path) -> tuple[bool, int | None]:
    """Whether it is SDXL, and the width of its text embeddings; only the header is read.

    Raises:
        ModelFileError: it is not a complete checkpoint that can be used here.
    """
    shapes = header_shapes(path, path)
    if not is_whole_checkpoint(shapes):
        raise ModelFileError(
            f"{path}: not a complete Stable Diffusion 1.x, 2.x or SDXL checkpoint (a UNet and a VAE are needed; LoRAs, "
            "VAEs and other models hold only a part)."
        )
    _check_inputs(str(path), latent_channels(shapes), shapes[UNET_OUTPUT][0])
    return is_sdxl(shapes), text_width(shapes)


def _check_inputs(name: str, inputs: int, outputs: int) -> None:
    if inputs != outputs:
        raise InputError(
            f"{name}: the UNet takes {inputs} channels and returns {outputs}: an inpainting, depth or edit model, "
            "which needs more than a picture; give the ordinary model that it was made from."
        )


def _load_folder(path: Path, dtype: torch.dtype) -> Any:
    index = path / "model_index.json"
    if not index.is_file():
        raise InputError(f"{path}: not a diffusers model: model_index.json is missing in this folder.")
    try:
        parts: dict[str, Any] = json.loads(index.read_text(encoding="utf-8"))
        is_sdxl = _is_sdxl(str(path), parts)
    except (KeyError, TypeError, AttributeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{index}: cannot be read ({first_line(error)}).") from error
    missing = [name for name in _NEEDED if name in parts and parts[name][0] and not (path / name).is_dir()]
    missing += [name for name in _NEEDED if name not in parts]
    if missing:
        raise InputError(f"{path}: the model is incomplete: {', '.join(missing)} is missing in this folder.")
    return _from_pretrained(str(path), is_sdxl, dtype, local_files_only=True)


_NEEDED = ("unet", "vae", "tokenizer", "scheduler")
"""Required parts of a diffusers folder."""
_WITH_WEIGHTS = ("unet", "vae", "text_encoder", "text_encoder_2")
_WEIGHTS = re.compile(r"(diffusion_pytorch_model|model)(-\d+-of-\d+)?\.safetensors")
"""Names of weights files, whole or split, as diffusers and transformers have them."""


def _check_whole(folder: Path, part: torch.nn.Module | None) -> None:
    """Check that the files of a part hold all of its weights: libraries would initialise the others at random.

    Values are counted, since older files have other names for the same tensors.

    Raises:
        InputError: weights are missing.
    """
    files = [file for file in folder.glob("*.safetensors") if _WEIGHTS.fullmatch(file.name)]
    if part is None or not files:
        return
    shapes = [shape for file in files for name, shape in read_header(file).shapes.items() if "position_ids" not in name]
    there, wanted = sum(map(prod, shapes)), sum(weight.numel() for weight in part.parameters())
    if there < wanted:
        raise InputError(
            f"{folder}: the model is incomplete: {wanted - there} of {wanted} numbers are missing; download it again."
        )


_PIPELINE = re.compile(r"StableDiffusion(XL)?(Img2Img|Inpaint)?Pipeline|LatentConsistencyModel(Img2Img)?Pipeline")


def _is_sdxl(name: str, index: Mapping[str, Any]) -> bool:
    """Whether a pipeline is one of SDXL, from its model_index.json.

    Raises:
        InputError: it cannot be used here.
    """
    pipeline: str = index["_class_name"]
    if index.get("requires_aesthetics_score"):
        raise InputError(f"{name}: {_REFINER}")
    if not _PIPELINE.fullmatch(pipeline):
        raise InputError(f"{name}: a model of another family ({pipeline}); SD 1.x, 2.x and SDXL can be used here.")
    return "XL" in pipeline


def _load_hub(name: str, dtype: torch.dtype) -> Any:
    from diffusers import DiffusionPipeline

    options = {} if hub_answers() else {"local_files_only": True}
    try:
        index = DiffusionPipeline.load_config(name, **options)
    except (OSError, ValueError) as error:
        reason = "the hub cannot be reached" if options else first_line(error)
        raise InputError(
            f"Model {name!r} is not a file or folder here and cannot be downloaded from the hub ({reason})."
        ) from error
    return _from_pretrained(name, _is_sdxl(name, {"_class_name": "", **index}), dtype, **options)


_PATIENCE = 5.0
"""Seconds that the hub has to answer."""


def hub_answers() -> bool:
    """Whether the hub can be reached. Takes a few seconds at most; its own library tries for half a minute."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    address = urllib.parse.urlsplit(constants.ENDPOINT)
    if urllib.request.getproxies():  # the proxy would answer
        return True
    try:
        socket.create_connection((address.hostname or "", address.port or 443), _PATIENCE).close()
    except OSError:
        return False
    return True


def _from_pretrained(source: str, is_sdxl: bool, dtype: torch.dtype, **options: Any) -> Any:
    """The pipeline in a folder, or downloaded from the hub, with all of its weights."""
    kind, parts = _pipeline_class(is_sdxl), {"use_safetensors": True, **_unused(is_sdxl)}
    try:
        folder = Path(source if Path(source).is_dir() else kind.download(source, **options, **parts))
        pipeline = kind.from_pretrained(str(folder), **_dtype(dtype), local_files_only=True, **parts)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError) as error:
        raise InputError(
            f"{source}: the model cannot be loaded; weights must be .safetensors ({first_line(error)})."
        ) from error
    for name in _WITH_WEIGHTS:
        _check_whole(folder / name, getattr(pipeline, name, None))
    return pipeline


def _pipeline_class(is_sdxl: bool) -> Any:
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
        library.utils.logging.set_verbosity_error()
    return diffusers.StableDiffusionXLImg2ImgPipeline if is_sdxl else diffusers.StableDiffusionImg2ImgPipeline


def _dtype(dtype: torch.dtype) -> dict[str, torch.dtype]:
    """The argument for a pipeline's dtype, which diffusers 0.42 renamed."""
    import diffusers

    major, minor = (int(part) for part in diffusers.__version__.split(".")[:2])
    return {"dtype" if (major, minor) >= (0, 42) else "torch_dtype": dtype}


def _unused(is_sdxl: bool) -> dict[str, Any]:
    """Arguments that leave out parts of a pipeline that are not needed."""
    return {} if is_sdxl else {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}


def _from_pipeline(name: str, pipeline: Any) -> LatentModel:
    unet, scheduler = pipeline.unet, pipeline.scheduler
    _check_inputs(name, unet.config.in_channels, unet.config.out_channels)
    second = getattr(pipeline, "text_encoder_2", None)
    encoders = [TextEncoder(pipeline.tokenizer, pipeline.text_encoder, penultimate=second is not None)]
    if second is not None:
        encoders.append(TextEncoder(pipeline.tokenizer_2, second, penultimate=True))
    prediction = scheduler.config.get("prediction_type", "epsilon")
    if prediction not in ("epsilon", "v_prediction"):
        raise InputError(f"{name}: the model predicts {prediction!r}; supported are epsilon and v_prediction.")
    return LatentModel(
        name=name,
        unet=unet,
        vae=pipeline.vae,
        encoders=[encoder for encoder in encoders if encoder.model is not None],
        alphas_cumprod=scheduler.alphas_cumprod.float().cpu().clamp(min=LEAST_ALPHA),
        predicts_v=prediction == "v_prediction",
        zeroes_empty_negative=bool(pipeline.config.get("force_zeros_for_empty_prompt", False)),
    )
