"""Half precision in trainings, on processors that have it; others take many times longer in it than in float32."""

from __future__ import annotations

import torch

HALF = torch.bfloat16 if torch.backends.cpu.get_cpu_capability() not in {"DEFAULT", "AVX2"} else torch.float32


def autocast() -> torch.autocast:
    """Convolutions in `HALF`."""
    return torch.autocast("cpu", torch.bfloat16, enabled=HALF is torch.bfloat16)
