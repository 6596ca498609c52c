"""Muon (K. Jordan et al., 2024): momentum whose matrices are made orthogonal before each step; Adam for the rest.

In the few thousand steps that a small machine has, it reached the error of Adam's best in two thirds of the time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS = 3.4445, -4.7750, 2.0315
"""Of the Newton-Schulz iteration, as published."""
MOMENTUM = 0.95


def orthogonal(matrix: Tensor) -> Tensor:
    """The nearest matrix whose singular values are all about 1."""
    turned = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if turned else matrix
    x = x / (x.norm() + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(5):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if turned else x


class Muon:
    """One optimiser for kernels of convolutions (Muon) and everything else (Adam)."""

    def __init__(self, parameters: Iterable[nn.Parameter], rate: float, adam_rate: float = 1e-3) -> None:
        every = list(parameters)
        self.kernels = [p for p in every if p.ndim == 4 and min(p.shape[0], p[0].numel()) > 4]
        chosen = {id(p) for p in self.kernels}
        self.adam = torch.optim.AdamW(
            [p for p in every if id(p) not in chosen], lr=adam_rate, betas=(0.9, 0.98), weight_decay=0
        )
        self.rate, self.adam_rate = rate, adam_rate
        self.momenta = [torch.zeros(p.shape[0], p[0].numel()) for p in self.kernels]

    @torch.no_grad()
    def step(self, scale: float) -> None:
        """One step at a share of the rates; what has no gradient stays."""
        for group in self.adam.param_groups:
            group["lr"] = self.adam_rate * scale
        self.adam.step()
        for kernel, momentum in zip(self.kernels, self.momenta, strict=True):
            if kernel.grad is None:
                continue
            gradient = kernel.grad.reshape(momentum.shape)
            momentum.lerp_(gradient, 1 - MOMENTUM)
            step = orthogonal(gradient.lerp(momentum, MOMENTUM))
            rows, columns = step.shape
            size = 0.2 * max(rows, columns) ** 0.5 * max(1.0, rows / columns) ** 0.5
            kernel.add_(step.reshape(kernel.shape), alpha=-self.rate * scale * size)

    def zero_grad(self) -> None:
        for kernel in self.kernels:
            kernel.grad = None
        self.adam.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        return {"adam": self.adam.state_dict(), "momenta": self.momenta}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.adam.load_state_dict(state["adam"])
        self.momenta = state["momenta"]
