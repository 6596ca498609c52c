"""The host's processing object, options, messages and random numbers, and how hosts differ in them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from modules import images, masking, processing, rng, scripts, sd_samplers_common, shared
from PIL import Image
from torch import Tensor

from lib_latent_upscale.webui.errors import PREFIX, ArgumentError
from lib_latent_upscale.webui.host.overrides import overridden

__all__ = [
    "Encode",
    "binary_mask",
    "blurred",
    "comment",
    "default_schedule",
    "enlarged",
    "exact_by_default",
    "exact_steps_wanted",
    "filled",
    "fitted",
    "fix_seed",
    "flattened",
    "generate",
    "option",
    "own_pictures",
    "preserved_random_state",
    "replaced_encode",
    "report_errors",
    "sampler_names",
    "saved_rng_state",
    "schedule_options",
    "seed_draws",
    "xyz_axis",
    "xyz_grid",
]

Encode = Callable[..., Tensor]

_log = logging.getLogger(__name__)


def option(name: str, default: Any = None) -> Any:
    """A value of the user's settings."""
    return getattr(shared.opts, name, default)


def generate(p: Any) -> Any:
    """Run the host on `p`; returns its `Processed`."""
    return processing.process_images(p)


def fix_seed(p: Any) -> None:
    """Replace a random seed by a fixed one now."""
    processing.fix_seed(p)


def sampler_names() -> list[str]:
    """Names of all samplers."""
    from modules import sd_samplers

    return list(sd_samplers.all_samplers_map)


def flattened(picture: Image.Image) -> Image.Image:
    """The picture without transparency, as the host's `init` makes it before it encodes."""
    result: Image.Image = images.flatten(picture, option("img2img_background_color", "#ffffff"))
    return result


def enlarged(picture: Image.Image, size: tuple[int, int], resize_mode: int) -> Image.Image:
    """The picture at `size` (width, height), with the upscaler that the user chose for img2img."""
    result: Image.Image = images.resize_image(resize_mode, picture, *size)
    return result


def filled(picture: Image.Image, mask: Image.Image) -> Image.Image:
    """The picture with the white area of `mask` filled with the colours around it ("Masked content: fill")."""
    result: Image.Image = masking.fill(picture, mask)
    return result


def binary_mask(p: Any) -> Image.Image:
    """The user's mask as the host uses it."""
    mask: Image.Image = processing.create_binary_mask(p.image_mask, round=p.mask_round)
    return mask


def fitted(overlay: Any, fit: Callable[[Image.Image], Image.Image]) -> Any:
    """The overlay that is pasted over a result, with `fit` applied to it.

    Forge Neo's precise masks come as (picture, mask), the mask an array (height, width) of shares from 0 to 1.
    """
    if not isinstance(overlay, tuple):
        return fit(overlay)
    picture, mask, *others = overlay
    return (fit(picture), np.array(fit(Image.fromarray(mask))).clip(0, 1), *others)


def blurred(p: Any, factor: float) -> dict[str, int]:
    """The mask's blur, times `factor`, in the attributes of `p` that can be set."""
    across = getattr(type(p), "mask_blur_x", None)
    names = ["mask_blur"] if isinstance(across, property) and across.fset is None else ["mask_blur_x", "mask_blur_y"]
    return {name: round(getattr(p, name) * factor) for name in names}


def exact_by_default() -> bool:
    """Whether the host itself runs all steps: because of the user's option, or always if it has no such option.

    Asks the user's own settings, whatever `exact_steps_wanted` says now. A settings file that comes from another WebUI
    may have a value that the host does not know.
    """
    known = shared.opts.data_labels.get(_EXACT_STEPS)
    return known is None or bool(shared.opts.data.get(_EXACT_STEPS, known.default))


@contextmanager
def exact_steps_wanted() -> Iterator[None]:
    """Inside, the host's option for exact steps is on, if there is one: other extensions use it to count steps.

    It is set as an attribute, which comes before the values that the host looks up and saves: these stay the user's,
    also if settings are changed meanwhile. Generations do not overlap (`modules.call_queue`).
    """
    attributes = vars(shared.opts)
    if _EXACT_STEPS in attributes or _EXACT_STEPS not in shared.opts.data_labels:
        yield
        return
    attributes[_EXACT_STEPS] = True
    try:
        yield
    finally:
        del attributes[_EXACT_STEPS]


_EXACT_STEPS = "img2img_fix_steps"


def comment(p: Any, text: str) -> None:
    """Say something below the result, where the user looks, after the name of this extension."""
    p.comment(f"{PREFIX}{text}")


def report_errors(p: Any, run: Callable[[], Any]) -> Any:
    """The result of `run`; if the page would not show its exception, no pictures and the message below them.

    Raises:
        ValueError, RuntimeError: those of `run`, if the host shows them.
    """
    try:
        return run()
    except (ValueError, RuntimeError) as error:
        if p.is_api or not (isinstance(error, ArgumentError) or _page_hides_errors()):
            raise
        shown = error.for_page() if isinstance(error, ArgumentError) else error
        if not _page_hides_errors():
            raise shown from error
        _log.warning("%s", error, exc_info=isinstance(error, RuntimeError))
        comment(p, str(shown))
        return processing.Processed(p, [])


def _page_hides_errors() -> bool:
    """Whether generations run in a thread that loses their exceptions.

    reForge's page then says that None cannot be iterated; Forge's thread keeps the exception.
    """
    thread = sys.modules.get("modules_forge.main_thread")
    return thread is not None and not hasattr(thread, "last_exception")


@contextmanager
def replaced_encode(replacement: Callable[[Encode, Tensor], Tensor]) -> Iterator[None]:
    """Inside, `replacement(encode, pictures)` replaces the host's next encode of init pictures, once.

    `encode` is the host's own function with everything but the pictures filled in. Later calls go to the host's own
    again, because depth models encode a second time within `init`.
    """
    place = next(module for module in (processing, sd_samplers_common) if hasattr(module, _ENCODE))
    own = getattr(place, _ENCODE)

    def once(pictures: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        setattr(place, _ENCODE, own)
        return replacement(lambda batch: own(batch, *args, **kwargs), pictures)

    with overridden(place, {_ENCODE: once}):
        yield


_ENCODE = "images_tensor_to_samples"
"""Modules whose encode is called: `processing` imports it, or calls it in the module that defines it (ersatzForge)."""


def saved_rng_state() -> Callable[[], None]:
    """Save the state of torch's global generators, which the host's encode uses; call the result to restore it."""
    own_backend: Any = getattr(torch, torch.device(shared.device).type, None)
    backends = [torch, *([own_backend] if hasattr(own_backend, "get_rng_state") else [])]
    states = [(backend, backend.get_rng_state()) for backend in backends]

    def put_back() -> None:
        for backend, state in states:
            backend.set_rng_state(state)

    return put_back


@contextmanager
def preserved_random_state() -> Iterator[None]:
    """Restore torch's global generators afterwards."""
    put_back = saved_rng_state()
    try:
        yield
    finally:
        put_back()


def seed_draws(seed: int) -> None:
    """Set torch's global generators, which the next encode uses, to their state after the host's noise for `seed`.

    v1.10.1 leaves them at the seed itself, Forge and reForge at another number that follows from it, so that no draw is
    the noise again (`modules.rng.randn`). With the generator source "NV" the host does not seed them at all.
    """
    torch.manual_seed(seed)
    rng.randn(seed, (1, 1, 1), generator=rng.create_generator(seed))  # ersatzForge's Perlin noise wants three sides


_SCHEDULE_OPTIONS = {
    "sigma_min": "Schedule min sigma",
    "sigma_max": "Schedule max sigma",
    "rho": "Schedule rho",
}
"""The user's own limits and curvature of schedules (0 for the default), and the host's infotext labels for them."""


def schedule_options() -> tuple[dict[str, float], dict[str, float]]:
    """The user's own settings of schedules: fields of `Limits`, and the host's infotext labels and values."""
    chosen = {name: float(option(name, 0) or 0) for name in _SCHEDULE_OPTIONS}
    chosen = {name: value for name, value in chosen.items() if value}
    infotext = {_SCHEDULE_OPTIONS[name]: value for name, value in chosen.items()}
    if option("use_old_karras_scheduler_sigmas", False):
        chosen = {"sigma_min": 0.1, "sigma_max": 10.0, **chosen}
    return chosen, infotext


def default_schedule(label: str | None, sampler: str | None) -> str:
    """The name, as in `SCHEDULES`, of the schedule that the host runs for its "Schedule type" and sampler."""
    from modules import sd_samplers

    if label in (None, "", "Automatic"):
        config = sd_samplers.find_sampler_config(sampler)
        label = config.options.get("scheduler") if config is not None else None
    return (label or "normal").lower().replace(" ", "_")


def own_pictures(p: Any, processed: Any) -> tuple[list[Image.Image], list[str]]:
    """The pictures and their infotexts, without masks between them and what other scripts put at the end."""
    with_mask = getattr(p, "mask_for_overlay", None) is not None
    stride = 1 + with_mask * (bool(option("return_mask")) + bool(option("return_mask_composite")))
    infotexts = processed.infotexts[processed.index_of_first_image :]
    pictures = processed.images[processed.index_of_first_image :: stride][: len(infotexts)]
    return pictures, infotexts[: len(pictures)]


def xyz_grid() -> Any:
    """The module of the X/Y/Z plot script; None if the host has none."""
    found = [data.module for data in scripts.scripts_data if data.script_class.__module__ == "xyz_grid.py"]
    return found[0] if found else None


def xyz_axis(grid: Any) -> Any:
    """The class of axes only for img2img, in the script's module or in the one that it imports such classes from."""
    beside = sys.modules.get(grid.AxisOption.__module__) if hasattr(grid, "AxisOption") else None
    return getattr(grid, "AxisOptionImg2Img", None) or getattr(beside, "AxisOptionImg2Img")  # noqa: B009
