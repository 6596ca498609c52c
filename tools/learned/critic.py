"""A small network that tells decoded pictures of true latents from those of restored ones (patches, hinge loss).

Beside what was given, so that it judges what was made of it and not only whether it is crisp: Isola et al. 2017.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class Critic(nn.Module):
    """(batch, 6, height, width) to one number a patch of 8 pixels."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        sizes = (6, width, 2 * width, 4 * width)
        convolutions = [nn.Conv2d(inner, outer, 4, stride=2, padding=1) for inner, outer in itertools.pairwise(sizes)]
        self.layers = nn.ModuleList([spectral_norm(one) for one in convolutions])
        self.last = spectral_norm(nn.Conv2d(sizes[-1], 1, 3, padding=1))
        self.optimiser = torch.optim.Adam(self.parameters(), lr=3e-4, betas=(0.5, 0.9))

    def forward(self, picture: Tensor, given: Tensor) -> Tensor:
        features = torch.cat([picture, given], 1) * 2 - 1
        for layer in self.layers:
            features = F.leaky_relu(layer(features), 0.2)
        result: Tensor = self.last(features)
        return result.float()

    def learn(self, made: Tensor, true: Tensor, given: Tensor) -> None:
        """One step on a batch that is detached here."""
        made, true, given = made.detach(), true.detach(), given.detach()
        loss = F.relu(1 + self(made, given)).mean() + F.relu(1 - self(true, given)).mean()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
