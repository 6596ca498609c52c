"""How much memory a device has left, and what to do if it is not enough; for devices of every kind."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from lib_latent_upscale.errors import OutOfMemory

__all__ = ["default_device", "free_memory", "is_out_of_memory", "memory_errors", "on_device", "release_memory"]

_OUT_OF_MEMORY = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",  # a file that is to be mapped
    "failed to allocate",
    "bad_alloc",
)
_WHOLE_MESSAGES = ("could not create a primitive", "could not create a memory object")
"""The message of oneDNN on CPUs; longer messages that begin like it are about other faults."""
_CPU = torch.device("cpu")


def default_device() -> torch.device:
    """The accelerator if torch can name it (torch 2.6 and newer), otherwise the CPU."""
    accelerator = getattr(torch, "accelerator", None)
    if accelerator is None or not accelerator.is_available():
        return _CPU
    device: torch.device = accelerator.current_accelerator()
    return device


def _backend(device: torch.device) -> Any:
    """The module of torch for this kind of device, such as torch.xpu."""
    return getattr(torch, device.type, None)


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be allocated on `device`; None if that is not known."""
    if device.type == _CPU.type:
        return _free_ram()
    backend = _backend(device)
    if not hasattr(backend, "mem_get_info"):
        return None
    free: int = backend.mem_get_info(device)[0]
    # What torch's allocator holds without using it is as good as free.
    return free + int(backend.memory_reserved(device)) - int(backend.memory_allocated(device))


def _free_ram() -> int | None:
    try:
        import psutil  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        return None
    return int(psutil.virtual_memory().available)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out; each kind of device has its own type and message."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    said = str(error).lower().strip()
    found = said in _WHOLE_MESSAGES or any(words in said for words in _OUT_OF_MEMORY)
    return isinstance(error, RuntimeError) and found


def release_memory(device: torch.device) -> None:
    """Free memory that torch keeps but does not use."""
    gc.collect()
    backend = _backend(device)
    if device.type != _CPU.type and hasattr(backend, "empty_cache"):
        backend.empty_cache()


@contextmanager
def memory_errors(name: str, device: torch.device) -> Iterator[None]:
    """Memory that runs out where no tile is to blame, such as for the model `name` itself, is said in one sentence.

    Raises:
        OutOfMemory: after giving the memory back; any other error stays what it is.
    """
    try:
        yield
    except OutOfMemory:
        raise
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error) or type(error).__name__
    else:
        return
    release_memory(device)  # outside of `except`: the error holds on to what fills the memory
    raise OutOfMemory(f"The memory is not enough for {name}: close other programs ({reason}).")


@contextmanager
def on_device(module: torch.nn.Module, device: torch.device) -> Iterator[None]:
    """Inside, `module` is on `device`; afterwards it is moved back and the memory is released."""
    home = next(module.parameters()).device
    if home == device:  # moving nothing takes torch 10 ms
        yield
        return
    try:
        module.to(device)
        yield
    finally:
        module.to(home)
        release_memory(device)
