"""The settings page: what the script's controls show when the WebUI starts, and what API calls leave out."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from lib_latent_upscale.interpolation import INTERPOLATIONS
from lib_latent_upscale.schedules import SCHEDULES
from lib_latent_upscale.settings import AUTOMATIC, UpscaleSettings
from lib_latent_upscale.webui import host

__all__ = ["SCHEDULERS", "add_options", "default_settings", "option_name"]

SCHEDULERS = (*SCHEDULES, AUTOMATIC)
"""What the "Scheduler" control offers."""

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
