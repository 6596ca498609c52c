"""Hires. fix of txt2img: its menu of latent upscalers, and the one place where it enlarges latents."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from modules import devices, sd_samplers_common, shared
from PIL import Image
from torch import Tensor

from lib_latent_upscale.webui.host import models
from lib_latent_upscale.webui.host import processing as host

__all__ = [
    "add_modes",
    "asked_mode",
    "decoded",
    "encoded",
    "keeps_checkpoint",
    "release",
    "remove_modes",
    "sizes",
    "take_over",
]

Size = tuple[int, int]
Enlarge = Callable[[str, Tensor, Size, Sequence[int]], Tensor]
"""Called with the name in the menu, latents (batch, channels, h, w), the target size in cells, and their seeds."""

Check = Callable[[str], None]
"""Raises an ArgumentError if the upscaler of this name cannot be used."""

_INIT, _PASS = "init", "sample_hr_pass"


def add_modes(names: Iterable[str]) -> None:
    """Add names to the host's menu, after its own; X/Y/Z plot, paste and the API read it, too."""
    shared.latent_upscale_modes.update({name: {"mode": name, "antialias": False} for name in names})


def remove_modes(start: str) -> None:
    """Remove the names that begin with `start` from the host's menu."""
    for name in [name for name in shared.latent_upscale_modes if name.startswith(start)]:
        del shared.latent_upscale_modes[name]


def asked_mode(p: Any) -> str | None:
    """The name of the latent upscaler that Hires. fix will use; None for upscalers of pictures."""
    mode = getattr(p, "latent_scale_mode", None)
    return None if mode is None else str(mode["mode"])


def keeps_checkpoint(p: Any) -> bool:
    """Whether the second pass uses the checkpoint of the first; known after the host's `init`."""
    return getattr(p, "hr_checkpoint_info", None) is None


def sizes(p: Any) -> tuple[Size, Size]:
    """(height, width) in latent cells before and after the upscale; known after the host's `init`."""
    cell = models.vae_scale_factor()
    before, after = (p.height, p.width), (p.hr_upscale_to_y, p.hr_upscale_to_x)
    return (before[0] // cell, before[1] // cell), (after[0] // cell, after[1] // cell)


def take_over(p: Any, start: str, before: Check, after: Check, enlarge: Enlarge) -> None:
    """Have `enlarge` called when the Hires. fix of `p` enlarges latents by a name that begins with `start`.

    `before` and `after` are called with that name before and after the host's `init`, before the first pass. Only
    `p` itself is changed. `release` restores it.
    """
    release(p)
    setattr(p, _INIT, _Init(p, start, before, after))
    setattr(p, _PASS, _Pass(p, start, enlarge))


def release(p: Any) -> None:
    """Remove what `take_over` has set on `p`, or on the object that `p` is a copy of."""
    for name, kind in ((_INIT, _Init), (_PASS, _Pass)):
        if isinstance(vars(p).get(name), kind):
            delattr(p, name)


class _Init:
    """The host's `init` with checks around it: its exceptions end a generation, those of a hook do not."""

    def __init__(self, p: Any, start: str, before: Check, after: Check) -> None:
        self._p = p
        self._own = getattr(p, _INIT)
        self._start = start
        self._before, self._after = before, after

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        asked = str(getattr(self._p, "hr_upscaler", None))
        if not asked.startswith(self._start):
            return self._own(*args, **kwargs)
        self._before(asked)
        result = self._own(*args, **kwargs)
        self._after(asked)
        return result


class _Pass:
    """The host's second pass, called with latents that enlarge themselves."""

    def __init__(self, p: Any, start: str, enlarge: Enlarge) -> None:
        self._p = p
        self._own = getattr(p, _PASS)
        self._start = start
        self._enlarge = enlarge

    def __call__(self, samples: Any, decoded_samples: Any, seeds: Sequence[int], *args: Any, **kwargs: Any) -> Any:
        name = asked_mode(self._p)
        if name is None or not name.startswith(self._start) or samples is None:
            return self._own(samples, decoded_samples, seeds, *args, **kwargs)
        asked: list[Size] = []

        def enlarge(latent: Tensor, size: Size) -> Tensor:
            asked.append(size)
            return self._enlarge(name, latent, size, seeds)

        result = self._own(_handed(samples, enlarge), decoded_samples, seeds, *args, **kwargs)
        if isinstance(result, _Handed):  # interrupted before anything was done
            return result.plain
        if not asked:
            raise RuntimeError(f"{name}: this version of the WebUI does not enlarge latents where expected.")
        return result


class _Handed(Tensor):
    """Latents with their own `torch.nn.functional.interpolate`, and plain ones for everything else.

    So no function of torch or of the host is replaced, and generations in other threads are not affected.
    """

    plain: Tensor
    enlarge: Callable[[Tensor, Size], Tensor]

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = _plain(dict(kwargs or {}))
        first = args[0] if args else None
        if func is F.interpolate and isinstance(first, cls):
            return first.enlarge(first.plain, tuple(given["size"]))
        result = func(*_plain(args), **given)
        if func is Tensor.squeeze and isinstance(first, cls):  # Forge Neo takes a frame axis off before
            return _handed(result, first.enlarge)
        return result


def _plain(given: Any) -> Any:
    """Arguments of a function, with plain latents instead of these."""
    if isinstance(given, _Handed):
        return given.plain
    if isinstance(given, dict):
        return {name: _plain(one) for name, one in given.items()}
    return type(given)(map(_plain, given)) if type(given) in (list, tuple) else given


def _handed(plain: Tensor, enlarge: Callable[[Tensor, Size], Tensor]) -> _Handed:
    handed = plain.detach().as_subclass(_Handed)
    handed.plain, handed.enlarge = plain, enlarge
    return handed


def decoded(p: Any, latent: Tensor) -> list[Image.Image]:
    """Pictures of latents, as the host makes them before it enlarges pictures."""
    pixels = sd_samplers_common.decode_first_stage(p.sd_model, latent)
    pixels = ((pixels.float() + 1) / 2).clamp(0, 1).cpu().numpy()
    return [Image.fromarray((255 * picture.transpose(1, 2, 0)).astype(np.uint8)) for picture in pixels]


def encoded(picture: Image.Image, seed: int, like: Tensor) -> Tensor:
    """Latents of one picture, (1, channels, h, w), by the host's encode for pictures, with a seed."""
    pixels = np.array(picture.convert("RGB")).astype(np.float32).transpose(2, 0, 1) / 255
    batch = torch.from_numpy(pixels)[None].to(shared.device, dtype=devices.dtype_vae)
    approximation = sd_samplers_common.approximation_indexes.get(host.option("sd_vae_encode_method"))
    with host.preserved_random_state():
        host.seed_draws(seed)
        return sd_samplers_common.images_tensor_to_samples(batch, approximation).to(like)  # type: ignore[no-any-return]
