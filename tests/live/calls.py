"""What several live tests call."""

import base64
import io
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save


def encoded(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


LIKE_HOST = {"method": "bilinear", "scheduler": "automatic", "exact_steps": False}
"""Settings with which the picture is the host's own."""


def refused(call: Callable[..., object], *args: object, **changes: object) -> Exception:
    try:
        call(*args, **changes)
    except Exception as error:
        if type(error).__name__ == "RefusedError":
            return error
        raise
    pytest.fail("the call was not refused")


def parameters(infotext: str) -> dict[str, str]:
    return dict(part.split(": ", 1) for part in infotext.splitlines()[-1].split(", ") if ": " in part)


@contextmanager
def options(webui: Any, **changes: Any) -> Iterator[None]:
    """Settings of the WebUI as a user sets them, restored afterwards."""
    before = webui.call("/sdapi/v1/options")
    webui.need_options(changes)
    webui.call("/sdapi/v1/options", changes)
    try:
        yield
    finally:
        webui.call("/sdapi/v1/options", {name: before[name] for name in changes})


def check_each_alone(make: Callable[..., Any], count: int = 2, **changes: Any) -> None:
    """Each picture of a batch is the one that its own seed gives alone; `make` calls the WebUI with seed 7."""
    together = make(**(changes or {"batch_size": count})).pictures[-count:]  # a grid may come first
    assert len(together) == count
    for index, one in enumerate(together):
        alone = make(seed=7 + index).pixels
        assert np.abs(np.asarray(one.convert("RGB")).astype(int) - alone).max() <= 1


def checkpoint(webui, part: str) -> str:
    names = [model["title"] for model in webui.checkpoints() if part in model["model_name"]]
    if not names:
        pytest.skip(f'the WebUI has no checkpoint whose name contains "{part}"')
    return names[0]


def square_mask(size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    mask = Image.new("L", size, 0)
    mask.paste(255, box)
    return mask


MASKED = (16, 24, 40, 48)


@contextmanager
def while_running(webui: Any, call: Callable[..., Any], *args: Any, job: int = 0, **changes: Any) -> Iterator[Future]:
    """A generation in the background that has taken the second step of its picture number `job`."""
    with ThreadPoolExecutor() as pool:
        running = pool.submit(call, *args, **changes)
        state = {"job": "", "job_no": 0, "sampling_step": 0}
        while not state["job"] or state["job_no"] < job or state["sampling_step"] < 2:
            assert not running.done(), running.result()
            time.sleep(0.02)
            state = webui.call("/sdapi/v1/progress?skip_current_image=true")["state"]
        yield running


LONG = {"steps": 60, "width": 256, "height": 256}


def need_whole_when_interrupted(webui: Any, picture: Image.Image, size: tuple[int, int]) -> None:
    """Skip where the WebUI alone makes less than the whole size of `LONG` of an interrupted picture, as it did here.

    ersatzForge decodes it as it does previews, an eighth of the size and without a mask's surroundings.
    """
    if min(size) >= LONG["width"]:
        return
    with while_running(webui, webui.host, picture, **LONG) as running:
        webui.call("/sdapi/v1/interrupt", {})
        alone = running.result().pictures[-1].size
    assert size == alone
    pytest.skip(f"this WebUI alone makes {alone[0]}x{alone[1]} of an interrupted picture")


MASK_CHANGES = {"mask_blur": 0, "denoising_strength": 0.9, "inpainting_fill": 1}


def check_masked(made, picture, size, box, fade=0, frame=0):
    """`box` is the mask in the small picture; around its border the reach of the resize and `fade` are left out.

    So are `frame` columns at both sides. Sides that are no multiples of 8 are resized once more, by a few pixels.
    """
    across, down = size[0] / picture.width, size[1] / picture.height
    original = np.asarray(picture.resize(size, Image.Resampling.LANCZOS)).astype(int)
    assert made.shape == original.shape
    x0, y0, x1, y1 = (round(edge * factor) for edge, factor in zip(box, (across, down) * 2, strict=True))
    margin = round(3 * max(across, down)) + 1 + fade
    outside = np.ones(made.shape[:2], bool)
    outside[max(y0 - margin, 0) : y1 + margin, max(x0 - margin, 0) : x1 + margin] = False
    outside[:, :frame] = outside[:, made.shape[1] - frame :] = False
    assert np.abs(made - original)[outside].max() <= (2 if size[0] % 8 == 0 else 5)
    inside = np.abs(made - original)[y0 + margin : y1 - margin, x0 + margin : x1 - margin]
    assert inside.mean() > 5


TILE_FAST = {"steps": 1, "cfg_scale": 1}


def tile(**given: Any) -> dict[str, Any]:
    return {"tile_controlnet": True, **{f"tile_controlnet_{name}": value for name, value in given.items()}}


ATTENTION = "input_blocks.5.1.transformer_blocks.0.attn2.to_k.weight"
"""sd-webui-controlnet takes the width of the text from there."""


def control_file(text_width: int) -> bytes:
    """Starts like a ControlNet, but everything else is missing and what there is is too small."""
    hint = torch.zeros(16, 3, 3, 3)
    return save({"input_hint_block.0.weight": hint, ATTENTION: torch.zeros(64, text_width)})


def described(webui: Any) -> dict[str, dict[str, Any]]:
    """The script's controls by label, as the API describes them."""
    info = next(one for one in webui.call("/sdapi/v1/script-info") if one["name"] == "latent upscale")
    return {argument["label"]: argument for argument in info["args"]}


def grid(webui: Any, picture: Image.Image, *axes: tuple[str, str], **changes: Any) -> Any:
    """An X/Y/Z plot of img2img over axes (label, values with commas), its cells among the pictures.

    Cells that reForge saves hold their infotext in an alpha channel, too.
    """
    scripts = webui.call("/sdapi/v1/script-info")
    info = next(script for script in scripts if script["name"] == "x/y/z plot" and script["is_img2img"])
    labels = info["args"][0]["choices"]
    axes = (*axes, *[("Nothing", "")] * (3 - len(axes)))
    args = [part for label, values in axes for part in (labels.index(label), values, values.split(","))]
    wanted = {"Draw legend": False, "Include Sub Images": True, "Use text inputs instead of dropdowns": True}
    args += [wanted.get(control["label"], control["value"]) for control in info["args"][9:]]
    return webui.host(picture, script_name="x/y/z plot", script_args=args, **changes)
