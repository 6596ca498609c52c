"""Doubles of the two kinds of ControlNet, as far as the extension talks to them: their contract, not their code.

A unit's effect on the latents is its weight times the mean of its picture, so that units add up and can be told apart.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np


class ControlMode(Enum):
    BALANCED = "Balanced"
    PROMPT = "Prefer Prompt"
    CONTROL = "Prefer ControlNet"


@dataclass
class BuiltInUnit:
    """A unit of reForge."""

    enabled: bool = True
    module: str = "None"
    model: str = "None"
    weight: float = 1.0
    image: Any = None
    resize_mode: Any = "stretched"
    control_mode: Any = ControlMode.BALANCED
    guidance_start: float = 0.0
    guidance_end: float = 1.0
    pixel_perfect: bool = False
    save_detected_map: bool = True


def effect(weight: float, pixels: np.ndarray) -> float:
    return weight * float(pixels.mean()) / 255


class _Script:
    """An always visible script of the host with slots for three units; it takes what is in them when a run begins."""

    args_from, args_to = 0, 3

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.fails: Exception | None = None

    def title(self) -> str:
        return "ControlNet"

    def postprocess_image(self, *_: Any) -> None:
        pass

    postprocess_image_after_composite = postprocess = postprocess_image

    def taken(self, p: Any) -> list[Any]:
        return [unit for unit in p.script_args[self.args_from : self.args_to] if self.is_on(unit)]

    def write(self, p: Any, models: list[str]) -> None:
        p.extra_generation_params.update({f"ControlNet {index}": model for index, model in enumerate(models)})

    def fail(self) -> None:
        if self.fails is not None:
            record = {"exception": str(self.fails), "traceback": []}
            sys.modules["modules.errors"].exception_records.append(record)
            raise self.fails


class Extension(_Script):
    """sd-webui-controlnet: it hooks once per run, and wraps the `sample` that it finds first on an object."""

    latest_network: Any = None
    enabled_units: tuple[Any, ...] | list[Any] = ()

    @staticmethod
    def is_on(unit: Any) -> bool:
        return isinstance(unit, dict) and unit["enabled"]

    def before_process(self, p: Any) -> None:
        if self.latest_network is not None:
            self.latest_network.control_params = None
        self.enabled_units = [SimpleNamespace(**unit) for unit in self.taken(p)]
        self.write(p, [unit.model for unit in self.enabled_units])
        self.seen = list(self.enabled_units)
        if not self.enabled_units:
            return
        self.fail()
        total = sum(effect(unit.weight, self.picture(p, unit)) for unit in self.enabled_units)
        self.latest_network = SimpleNamespace(control_params=list(self.enabled_units))
        if getattr(p, "sample_before_CN_hack", None) is None:
            p.sample_before_CN_hack = p.sample
        p.sample = lambda *args, **kwargs: p.sample_before_CN_hack(*args, **kwargs) + total

    @staticmethod
    def picture(p: Any, unit: Any) -> np.ndarray:
        return np.asarray(unit.image if unit.image is not None else p.init_images[0])


class BuiltIn(_Script):
    """ControlNet of Forge and reForge: it prepares at first, and chains its units before every sampling."""

    def __init__(self) -> None:
        super().__init__()
        self.current_params: dict[int, Any] = {}

    @staticmethod
    def is_on(unit: Any) -> bool:
        return isinstance(unit, BuiltInUnit) and unit.enabled

    def get_enabled_units(self, units: list[Any]) -> list[Any]:
        return [unit for unit in units if self.is_on(unit)]

    def before_process(self, p: Any) -> None:
        self.current_params = {}
        self.seen = units = self.taken(p)
        self.write(p, [unit.model for unit in units])
        p.sd_model = SimpleNamespace(forge_objects=SimpleNamespace(unet=SimpleNamespace(controlnet_linked_list=None)))
        if not units:
            return
        own_sample = p.sample
        p.sample = lambda *args, **kwargs: self._before_every_sampling(p, units, own_sample, args, kwargs)
        self.fail()
        for index, unit in enumerate(units):
            patcher = SimpleNamespace(control_model=unit.model)
            self.current_params[index] = SimpleNamespace(model=SimpleNamespace(model_patcher=patcher))

    def _before_every_sampling(self, p: Any, units: list[Any], own_sample: Any, args: Any, kwargs: Any) -> Any:
        chained = [unit for index, unit in enumerate(units) if index in self.current_params]
        if chained:
            p.sd_model.forge_objects.unet.controlnet_linked_list = SimpleNamespace(control_model=chained[-1].model)
        return own_sample(*args, **kwargs) + sum(effect(unit.weight, unit.image["image"]) for unit in chained)


def modules(kind: str, models: dict[str, str]) -> dict[str, ModuleType]:
    """Modules of one kind of ControlNet; these models lie in its folder, in which it looks again when told to."""
    state = ModuleType("state")
    known = {"None": None, **models}
    state.refreshed = 0

    def refresh() -> None:
        state.refreshed += 1
        known.update(models)

    code = ModuleType("code")
    code.resize_mode_from_value = lambda value: ("stretched", "cropped", "filled")[value]
    if kind == "extension":
        state.cn_models, state.update_cn_models = known, refresh
        code.global_state = state
        return {"internal_controlnet.external_code": code}
    state.get_all_controlnet_names = lambda: list(known)
    state.get_controlnet_filename, state.update_controlnet_filenames = known.get, refresh
    code.ControlNetUnit, code.ControlMode = BuiltInUnit, ControlMode
    acting = ModuleType("acting")
    acting.compute_controlnet_weighting = None  # reForge has none
    return {
        "lib_controlnet.external_code": code,
        "lib_controlnet.global_state": state,
        "backend.patcher.controlnet": acting,
    }


@contextmanager
def installed(kind: str, models: dict[str, str]) -> Iterator[Any]:
    """ControlNet in `sys.modules`; what is given is its script."""
    made = modules(kind, models)
    sys.modules.update(made)
    try:
        yield Extension() if kind == "extension" else BuiltIn()
    finally:
        for name in made:
            del sys.modules[name]
