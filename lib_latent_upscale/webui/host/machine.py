"""The host's folders, devices, memory and progress bar: what passes with models of their own need of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from modules import devices, paths, sd_models, shared

__all__ = ["models_folder", "more_jobs", "progress", "resting_checkpoint", "stopped", "working_place"]

_NUMBER_FORMATS = (torch.float16, torch.bfloat16, torch.float32)
_MEMORY_MANAGERS = ("backend.memory_management", "ldm_patched.modules.model_management")
"""What moves models in Forge and in reForge; both fetch the checkpoint again when it is next needed."""


def models_folder() -> Path:
    """Where the person keeps models, each kind in a folder of its own."""
    return Path(paths.models_path)


def working_place() -> tuple[torch.device, torch.dtype | None]:
    """Where models work, and in which number format; None leaves the format to whoever loads one.

    The person may have chosen whole precision (`--no-half`) for a card that makes black pictures otherwise. Formats of
    one byte, which the host has for its checkpoint alone, are passed by.
    """
    device, dtype = torch.device(shared.device), getattr(devices, "dtype", None)
    return device, dtype if device.type != "cpu" and dtype in _NUMBER_FORMATS else None


@contextmanager
def resting_checkpoint() -> Iterator[None]:
    """Let the host's checkpoint leave the accelerator for a while."""
    manager = next((sys.modules[name] for name in _MEMORY_MANAGERS if name in sys.modules), None)
    if manager is not None:
        manager.unload_all_models()
        yield
        return
    model = sd_models.model_data.sd_model
    sd_models.send_model_to_cpu(model)
    try:
        yield
    finally:
        if model is not None:
            sd_models.send_model_to_device(model)  # with --lowvram and --medvram its parts move by themselves


def stopped() -> str:
    """How the person has stopped the picture that is being made: "interrupted", "skipped", or nothing."""
    return "interrupted" if shared.state.interrupted else "skipped" if shared.state.skipped else ""


def more_jobs(p: Any, each: int) -> None:
    """Make room in the progress bar for `each` further jobs after every batch, where the host has not counted yet."""
    if shared.state.job_count == -1:
        shared.state.job_count = p.n_iter * (1 + each)


@contextmanager
def progress(text: str) -> Iterator[Callable[[int, int], None]]:
    """A further job in the progress bar, with a text; what it gives is called with what is done and the total."""
    state, earlier = shared.state, shared.state.textinfo
    state.job_count = max(state.job_count, state.job_no + 1)
    state.textinfo = text
    state.current_latent = None  # a live preview would be decoded by the checkpoint, which may be resting

    def tell(done: int, total: int) -> None:
        state.sampling_step, state.sampling_steps = done, total

    try:
        yield tell
    finally:
        state.nextjob()
        state.textinfo = earlier
