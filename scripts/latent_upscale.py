"""The WebUI's entrance: the script "Latent Upscale" of the img2img tab, and its always visible companion."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from modules import script_callbacks, scripts

from lib_latent_upscale.catalogue import POSITIONS
from lib_latent_upscale.comparison.settings import CompareSettings
from lib_latent_upscale.settings import TITLE, UpscaleSettings
from lib_latent_upscale.webui.dispatch import dispatch
from lib_latent_upscale.webui.host import processing as host
from lib_latent_upscale.webui.host.options import add_options, default_settings
from lib_latent_upscale.webui.passes.base import ModelCache, passes_of
from lib_latent_upscale.webui.request import PASSES, Request, given_arguments
from lib_latent_upscale.webui.run import hires
from lib_latent_upscale.webui.run.latent_upscale import upscale_of
from lib_latent_upscale.webui.ui import xyz
from lib_latent_upscale.webui.ui.compare import make_compare_panel
from lib_latent_upscale.webui.ui.panel import HOST_INPUTS, SHIFT_INPUT, make_panel, watch


class LatentUpscaleScript(scripts.Script):
    def __init__(self) -> None:
        super().__init__()
        self.kept: ModelCache = {}
        self._panel: Any = None
        self._host_inputs: dict[str, Any] = {}
        self._opener: Any = None

    def title(self) -> str:
        return TITLE

    def show(self, is_img2img: bool) -> bool:
        return is_img2img

    def ui(self, _is_img2img: bool) -> list[Any]:
        panel = make_panel(default_settings(UpscaleSettings), self._element)
        others = [kind.panel(self._element) for kind in PASSES]
        switches = {kind.NAME: one.controls[kind.SETTINGS.SWITCH] for kind, one in zip(PASSES, others, strict=True)}
        compared = default_settings(CompareSettings)
        others.append(make_compare_panel(compared, self._element, panel.controls, switches))
        controls = {name: control for one in (panel, *others) for name, control in one.controls.items()}
        self.infotext_fields = [field for one in (panel, *others) for field in one.infotext_fields]
        self.paste_field_names = list(UpscaleSettings.labels().values())
        if self._panel is None:  # later calls only read the API's defaults
            self._panel = panel
            self._watch()
        return [controls[name] for name in POSITIONS]

    def _element(self, name: str) -> str:
        elem_id: str = self.elem_id(f"latent_upscale_{name}")
        return elem_id

    def after_component(self, component: Any, **_kwargs: Any) -> None:
        elem_id = getattr(component, "elem_id", None)
        if elem_id == "script_list":
            self._opener = component
        elif elem_id in (SHIFT_INPUT, *HOST_INPUTS) and elem_id not in self._host_inputs:
            self._host_inputs[elem_id] = component
            if elem_id != SHIFT_INPUT:
                self._watch()

    def _watch(self) -> None:
        if self._panel is not None:
            watch(self._panel, self._host_inputs, self._opener)

    def run(self, p: Any, *args: Any) -> Any:
        return host.report_errors(p, partial(self._run, p, *args))

    def _run(self, p: Any, *args: Any) -> Any:
        given = given_arguments(self, p.scripts, p.script_args) if p.scripts is not None else list(args)
        return dispatch(p, Request.parse(given), self.kept)


class LatentUpscaleCompanion(scripts.Script):
    """What a script of the dropdown cannot do: it gets no hooks, and X/Y/Z plot runs in its place."""

    def title(self) -> str:
        return "Latent Upscale companion"

    def show(self, is_img2img: bool) -> Any:
        return scripts.AlwaysVisible if is_img2img else False

    def ui(self, _is_img2img: bool) -> list[Any]:
        return []

    def before_process(self, p: Any, *_args: Any) -> None:
        xyz.install_axes(p)

    def postprocess_image(self, p: Any, pp: Any, *_args: Any) -> None:
        upscale = upscale_of(p)
        if upscale is not None:
            pp.image = upscale.fit_picture(pp.image)

    def postprocess_maskoverlay(self, p: Any, ppmo: Any, *_args: Any) -> None:
        upscale, passes = upscale_of(p), passes_of(p)
        if upscale is not None:
            upscale.fit_overlay(ppmo)
        if passes is not None:
            passes.arrange_mask(ppmo)

    def postprocess_image_after_composite(self, p: Any, pp: Any, *_args: Any) -> None:
        upscale, passes = upscale_of(p), passes_of(p)
        if upscale is not None:
            pp.image = upscale.fit_composite(pp.image)
        if passes is not None:
            pp.image = passes.finish(pp.image)

    def postprocess(self, p: Any, processed: Any, *_args: Any) -> None:
        upscale, passes = upscale_of(p), passes_of(p)
        if upscale is not None:
            processed.width, processed.height = (passes is not None and passes.size) or upscale.size
            upscale.put_back_random_state()
        if passes is not None:
            passes.uninstall()  # X/Y/Z plot gives no other chance


class LatentUpscaleHiresFix(scripts.Script):
    """Our methods in txt2img's Hires. fix."""

    def title(self) -> str:
        return "Latent Upscale in Hires. fix"

    def show(self, is_img2img: bool) -> Any:
        return False if is_img2img else scripts.AlwaysVisible

    def ui(self, _is_img2img: bool) -> list[Any]:
        return []

    def before_process(self, p: Any, *_args: Any) -> None:
        hires.install(p)

    def postprocess(self, p: Any, _processed: Any, *_args: Any) -> None:
        hires.uninstall(p)


def _forget_modules() -> None:
    """Let "Reload UI" load our modules again, too: after an update the new script would meet the old ones."""
    hires.remove_upscalers()
    for name in [name for name in sys.modules if name.partition(".")[0] == "lib_latent_upscale"]:
        del sys.modules[name]


def _before_ui() -> None:
    """All in one callback: the host takes 20 ms to register each one (`inspect.stack`)."""
    add_options()
    hires.add_upscalers()
    xyz.add_axes()


script_callbacks.on_script_unloaded(_forget_modules)
script_callbacks.on_before_ui(_before_ui)
