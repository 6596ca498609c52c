"""The settings page: what the script's controls show when the WebUI starts, and what API calls leave out."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from lib_latent_upscale.interpolation import INTERPOLATIONS
from lib_latent_upscale.schedules import SCHEDULES
from lib_latent_upscale.settings import AUTOMATIC, UpscaleSettings
from lib_latent_upscale.webui.host import processing as host

__all__ = ["SCHEDULERS", "X4_FOLDER", "X4_KEEP", "add_options", "default_settings", "option_name"]

SCHEDULERS = (*SCHEDULES, AUTOMATIC)
"""What the "Scheduler" control offers."""

X4_FOLDER, X4_KEEP = "x4_folder", "x4_keep"
"""Further options: where more x4 upscalers are, and whether the last one stays in the computer's memory."""

_SECTION = ("latent_upscale", "Latent Upscale")
_LABELS = {
    "method": "Default upscale method",
    "scheduler": "Default scheduler",
    "exact_steps": "Exact steps by default",
    "keep_statistics": "Keep statistics by default",
    "matched_noise": "Matched noise by default",
}


def option_name(field: str) -> str:
    """The name of the option that holds a setting's default."""
    return f"latent_upscale_{field}"


def default_settings() -> UpscaleSettings:
    """The person's defaults; of an option that is no longer valid, such as a renamed method, ours."""
    chosen = {field: host.option(option_name(field), own) for field, own in asdict(UpscaleSettings()).items()}
    return UpscaleSettings(**{field: value for field, value in chosen.items() if _is_valid(field, value)})


def _is_valid(field: str, value: Any) -> bool:
    try:
        UpscaleSettings(**{field: value})
    except ValueError:
        return False
    return True


def add_options() -> None:
    """Register the settings page. The host calls this again on every "Reload UI"; options are kept by name."""
    import gradio as gr
    from modules import shared

    choices: dict[str, Any] = {"method": list(INTERPOLATIONS), "scheduler": list(SCHEDULERS)}
    for field, own in asdict(UpscaleSettings()).items():
        dropdown = (gr.Dropdown, {"choices": choices[field]}) if field in choices else ()
        info = shared.OptionInfo(own, _LABELS[field], *dropdown, section=_SECTION).needs_reload_ui()
        shared.opts.add_option(option_name(field), info)
    folder = shared.OptionInfo("", "Further x4 upscaler, or folder with x4 upscalers", section=_SECTION)
    shared.opts.add_option(option_name(X4_FOLDER), folder.info("besides those in models/x4-upscaler"))
    keep = shared.OptionInfo(True, "Keep the x4 upscaler in the computer's memory", section=_SECTION)
    shared.opts.add_option(option_name(X4_KEEP), keep.info("about 1.8 GB; to load it again takes some seconds"))
