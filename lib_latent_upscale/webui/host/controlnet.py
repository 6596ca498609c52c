"""The host's ControlNet: the extension sd-webui-controlnet, or the one that Forge and reForge have built in.

All that is known about one of them is in its row of `_KINDS`. A unit is added to the ones that the user has set up,
for the generation of one processing object, and whether it really acts is seen before the sampler starts: hosts swallow
what hooks of scripts raise, and would make the picture without it.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from modules import errors
from numpy.typing import NDArray
from PIL import Image

from lib_latent_upscale.tile_settings import CONTROL_MODES, TileSettings
from lib_latent_upscale.webui.errors import PREFIX
from lib_latent_upscale.webui.host.overrides import overridden

__all__ = ["ControlNet", "Unit", "control_modes", "find_controlnet", "find_models", "is_there"]

_TITLE = "controlnet"
_SMALLEST_RATE = 1.1
"""For smaller rates sd-webui-controlnet's tile_resample does not change the picture (`annotator`'s `tile_resample`)."""
_LONGEST_REASON = 300


@dataclass(frozen=True)
class Unit:
    """Settings of a ControlNet unit."""

    model: str
    """ControlNet's own name for the model, with its hash."""
    picture: Image.Image
    """The control picture; it is placed in the result like an init picture."""
    resize_mode: int
    """The host's resize mode for pictures: 0 stretches, 1 crops, 2 fills."""
    settings: TileSettings


@dataclass(frozen=True)
class _Kind:
    """The interface of one kind of ControlNet."""

    models: Callable[[], Mapping[str, str | None]]
    """Returns the models' files by ControlNet's names for them."""
    refresh: Callable[[], None]
    """Searches for models again."""
    unit: Callable[[Unit], Any]
    """Makes the unit for the arguments of ControlNet's script."""
    units: Callable[[Any, Any], int]
    """Returns the number of units of (script, processing object) that are enabled."""
    hooked: Callable[[Any, Any], bool]
    """Whether the last of these units will act on the sampling that is about to start."""
    modes: Callable[[], tuple[str, ...]]
    """Returns those of `CONTROL_MODES` that have an effect."""


# sd-webui-controlnet


def _extension_unit(unit: Unit) -> dict[str, Any]:
    settings = unit.settings
    resampled = settings.preprocessor == "tile_resample"
    return {
        "enabled": True,
        "module": settings.preprocessor,
        "model": unit.model,
        "weight": float(settings.weight),
        "image": np.asarray(unit.picture),
        "resize_mode": _code().resize_mode_from_value(unit.resize_mode),
        "control_mode": settings.control_mode,
        "guidance_start": float(settings.start),
        "guidance_end": float(settings.end),
        "pixel_perfect": True,
        "save_detected_map": False,
        **({"threshold_a": float(settings.down_sampling_rate)} if resampled else {}),
    }


def _extension_hooked(script: Any, _p: Any) -> bool:
    """The extension hooks all units at once; after a failed generation `restore` has emptied its network."""
    network = script.latest_network
    return network is not None and 0 < len(script.enabled_units) == len(network.control_params or ())


def _extension_refresh() -> None:
    _code().global_state.update_cn_models()


# Forge and reForge


def _built_in_unit(unit: Unit) -> Any:
    """The unit as an instance; its control mode must be the text that ControlNet compares it with."""
    code, settings = _code(), unit.settings
    known = {field.name for field in fields(code.ControlNetUnit)}
    values = {
        "enabled": True,
        "module": "None" if settings.preprocessor == "none" else settings.preprocessor,
        "model": unit.model,
        "weight": float(settings.weight),
        **_built_in_picture(known, _down_sampled(unit)),
        "resize_mode": code.resize_mode_from_value(unit.resize_mode),
        "control_mode": list(code.ControlMode)[CONTROL_MODES.index(settings.control_mode)].value,
        "guidance_start": float(settings.start),
        "guidance_end": float(settings.end),
        "pixel_perfect": True,
        "save_detected_map": False,  # ersatzForge's units have no such field
    }
    return code.ControlNetUnit(**{name: value for name, value in values.items() if name in known})


def _built_in_picture(known: set[str], pixels: NDArray[np.uint8]) -> dict[str, Any]:
    """The unit's own picture, without which it would act only where the host's mask is white, even if inverted."""
    if "image_fg" in known:  # Forge
        return {"image": pixels, "image_fg": np.zeros((*pixels.shape[:2], 4), np.uint8)}
    return {"image": {"image": pixels, "mask": np.zeros_like(pixels)}}


def _down_sampled(unit: Unit) -> NDArray[np.uint8]:
    """The picture, shrunk by the down-sampling rate, which tile_resample of Forge and reForge does not have."""
    picture, rate = unit.picture, unit.settings.down_sampling_rate
    if unit.settings.preprocessor == "tile_resample" and rate >= _SMALLEST_RATE:
        size = [max(int(side / rate), 1) for side in picture.size]
        picture = picture.resize((size[0], size[1]), resample=Image.Resampling.BOX)
    return np.array(picture)


def _built_in_units(script: Any, p: Any) -> int:
    return len(script.get_enabled_units(list(p.script_args[script.args_from : script.args_to])))


def _built_in_hooked(script: Any, p: Any) -> bool:
    """ControlNet prepares each unit, and links them before every sampling; the last one is the head of that list."""
    units, prepared = _built_in_units(script, p), script.current_params
    head = p.sd_model.forge_objects.unet.controlnet_linked_list
    if head is None or len(prepared) != units:
        return False
    return bool(head.control_model is prepared[units - 1].model.model_patcher.control_model)


def _built_in_modes() -> tuple[str, ...]:
    """All for Forge; reForge passes them on to a ControlNet that ignores them, without a message."""
    works = any(
        hasattr(sys.modules.get(name), "compute_controlnet_weighting")
        for name in ("backend.patcher.controlnet", "ldm_patched.modules.controlnet")
    )
    return CONTROL_MODES if works else CONTROL_MODES[:1]


def _built_in_models() -> dict[str, str | None]:
    state = sys.modules["lib_controlnet.global_state"]
    return {name: state.get_controlnet_filename(name) for name in state.get_all_controlnet_names() if name != "None"}


def _built_in_refresh() -> None:
    sys.modules["lib_controlnet.global_state"].update_controlnet_filenames()


_KINDS: Mapping[str, _Kind] = {
    "lib_controlnet.external_code": _Kind(
        models=_built_in_models,
        refresh=_built_in_refresh,
        unit=_built_in_unit,
        units=_built_in_units,
        hooked=_built_in_hooked,
        modes=_built_in_modes,
    ),
    "internal_controlnet.external_code": _Kind(
        models=lambda: _code().global_state.cn_models,
        refresh=_extension_refresh,
        unit=_extension_unit,
        units=lambda script, _p: len(script.enabled_units),
        hooked=_extension_hooked,
        modes=lambda: CONTROL_MODES,
    ),
}
"""Kinds by the module with ControlNet's units, which is loaded if the WebUI has it."""


def _module() -> str | None:
    return next((name for name in _KINDS if name in sys.modules), None)


def _code() -> Any:
    return sys.modules[_module() or ""]


def control_modes() -> tuple[str, ...]:
    """Those of `CONTROL_MODES` that have an effect in this WebUI; all if it has no ControlNet."""
    module = _module()
    return CONTROL_MODES if module is None else _KINDS[module].modes()


def is_there() -> bool:
    """Whether this WebUI has a ControlNet."""
    return _module() is not None


def find_models(*, refresh: bool = False) -> Mapping[str, Path]:
    """The files of all ControlNet models by ControlNet's names; none if there is no ControlNet."""
    module = _module()
    if module is None:
        return {}
    if refresh:
        _KINDS[module].refresh()
    return {name: Path(path.strip('"')) for name, path in _KINDS[module].models().items() if path}


def find_controlnet(runner: Any) -> ControlNet | None:
    """ControlNet among the scripts of a script runner; None if there is none."""
    scripts = runner.alwayson_scripts if runner is not None else []
    script = next((script for script in scripts if str(script.title()).lower() == _TITLE), None)
    module = _module()
    return None if script is None or module is None else ControlNet(script, _KINDS[module])


@dataclass(frozen=True)
class ControlNet:
    """ControlNet of one tab."""

    _script: Any
    _kind: _Kind

    @contextmanager
    def attached(self, p: Any, unit: Unit) -> Iterator[None]:
        """Inside, one more unit acts on the generation of `p`.

        If ControlNet does not use it, the generation stops before sampling with a RuntimeError that says why.
        """
        place = (self._script.args_from, self._script.args_to)
        arguments = _Arguments(p.script_args, place, self._kind.unit(unit))
        init = partial(self._init, p, p.init, unit.model, _swallowed())
        with overridden(p, {"script_args": arguments, "init": init}):
            yield

    def _init(self, p: Any, init: Callable[..., None], model: str, earlier: list[Any], *args: Any) -> None:
        init(*args)
        self._forget_infotext(p)  # the host writes its params.txt before sampling
        p.sampler.sample_img2img = partial(self._sample, p, p.sampler.sample_img2img, model, earlier)

    def _sample(
        self, p: Any, sample: Callable[..., Any], model: str, earlier: list[Any], *args: Any, **kwargs: Any
    ) -> Any:
        if not self._kind.hooked(self._script, p):
            new = [error["exception"] for error in _swallowed() if all(error is not old for old in earlier)]
            said = [text for text in new if text not in ("", "None")]  # Forge's ControlNet raises some errors empty
            why = f"it says: {_shortened(said[0])}" if said else "the WebUI's console says why"
            raise RuntimeError(
                f"{PREFIX}ControlNet has not taken the tile unit with {model}; {why}. No picture was made."
            )
        self._forget_infotext(p)  # with a refiner it is written only now
        return sample(*args, **kwargs)

    def _forget_infotext(self, p: Any) -> None:
        """Remove ControlNet's infotext about our unit, which would set up a second one in its panel when pasted."""
        p.extra_generation_params.pop(f"ControlNet {self._kind.units(self._script, p) - 1}", None)


def _shortened(text: str) -> str:
    """One line of an error; for a model that does not fit, torch writes one for each of hundreds of tensors."""
    return textwrap.shorten(text, _LONGEST_REASON, placeholder=" ...").rstrip(".")


def _swallowed() -> list[Any]:
    """The last errors that the host has caught and reported."""
    return list(getattr(errors, "exception_records", []))


class _Arguments(tuple[Any, ...]):  # noqa: SLOT001  # a tuple has no slots for what is kept here
    """Script arguments in which ControlNet finds one more unit.

    The arguments of all other scripts keep their positions, and no unit of the panel needs to be free. Copies by other
    code are the plain arguments.
    """

    _place: tuple[int, int]
    _unit: Any

    def __new__(cls, values: Any, place: tuple[int, int] | None = None, unit: Any = None) -> Any:
        if place is None:  # ADetailer copies arguments as `type(arguments)(values)`
            return tuple(values)
        made = super().__new__(cls, values)
        made._place, made._unit = place, unit
        return made

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        ours = isinstance(index, slice) and (index.start, index.stop) == self._place
        return (*found, self._unit) if ours else found

    def __reduce__(self) -> Any:
        return tuple, (tuple(self),)
