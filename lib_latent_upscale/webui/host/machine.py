"""The host's folders, devices, memory and progress bar, and what the user has pressed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from modules import devices, paths, sd_models, shared

__all__ = [
    "add_jobs",
    "announce",
    "chosen_checkpoint",
    "device_and_dtype",
    "ended",
    "failures",
    "forget_skip",
    "jobs_left",
    "models_folder",
    "more_jobs",
    "offloaded_checkpoint",
    "progress",
    "searched_folders",
    "stopped",
]

_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
_MEMORY_MANAGERS = ("backend.memory_management", "ldm_patched.modules.model_management")
"""Memory managers of Forge and reForge; both load the checkpoint again when it is next needed."""


def models_folder() -> Path:
    """Where the user keeps models, each kind in a folder of its own."""
    return Path(paths.models_path)


def searched_folders(own: Path, further: str | None) -> list[Path]:
    """The folder `own` for a kind of models, then the one that the user has named on the settings page, if any."""
    named = (further or "").strip().strip('"')
    return [own, *([Path(named).expanduser()] if named else [])]


def chosen_checkpoint(overrides: Mapping[str, Any]) -> tuple[str, Path] | None:
    """(name, file) of the checkpoint that a generation with these `override_settings` will use; it may not be loaded.

    None where the host knows no such file.
    """
    known = sd_models.checkpoint_aliases
    chosen = getattr(shared.opts, "sd_model_checkpoint", None)
    info = known.get(overrides.get("sd_model_checkpoint")) or known.get(chosen)
    return None if info is None else (info.name, Path(info.filename))


def failures() -> tuple[type[Exception], ...]:
    """Exceptions of a generation that the machine could not run; other generations may still work."""
    return RuntimeError, devices.NansException


def device_and_dtype() -> tuple[torch.device, torch.dtype | None]:
    """The host's device and dtype for models; None for the default dtype of the device.

    The user may have chosen full precision (`--no-half`) for a GPU that makes black pictures otherwise. 8-bit dtypes,
    which are only for the host's checkpoint, are ignored.
    """
    device, dtype = torch.device(shared.device), getattr(devices, "dtype", None)
    return device, dtype if device.type != "cpu" and dtype in _DTYPES else None


@contextmanager
def offloaded_checkpoint() -> Iterator[None]:
    """Inside, the host's checkpoint is moved off the accelerator."""
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
    """How the user has stopped the current picture: "interrupted", "skipped", or an empty text."""
    return "interrupted" if shared.state.interrupted else "skipped" if shared.state.skipped else ""


def ended() -> bool:
    """Whether no further picture may be started; a skipped picture does not prevent that."""
    return bool(shared.state.interrupted or shared.state.stopping_generation)


def forget_skip() -> None:
    """Continue after a picture that was skipped."""
    shared.state.skipped = False


def announce(text: str | None) -> None:
    """Show a text before the host's own in the progress bar; None for no text."""
    shared.state.textinfo = text


def jobs_left(count: int) -> None:
    """Set the number of remaining jobs in the progress bar."""
    shared.state.job_count = shared.state.job_no + count


def add_jobs(p: Any, further: int) -> None:
    """Add jobs to the progress bar that the host does not count."""
    if shared.state.job_count == -1:
        shared.state.job_count = p.n_iter
    shared.state.job_count += further


def more_jobs(p: Any, each: int) -> None:
    """Add `each` jobs after every batch to the progress bar, if the host has not counted its jobs yet."""
    if shared.state.job_count == -1:
        shared.state.job_count = p.n_iter * (1 + each)


@contextmanager
def progress(text: str) -> Iterator[Callable[[int, int], None]]:
    """Another job in the progress bar, with a text; yields `progress(done, total)`."""
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
