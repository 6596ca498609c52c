"""Train one network of one family; it goes on from its checkpoint.

python -m tools.learned.train restore sd1 --taesd DIR --work DIR --minutes 20
python -m tools.learned.train restore sd1 ... --decoded                    late: in the picture, too
python -m tools.learned.train restore sd1 ... --decoded --adversarial 0.1  and with a critic
python -m tools.learned.train restore sdxl --from FILE.safetensors ...     begins with what fits of other weights
"""

from __future__ import annotations

import argparse
import copy
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from lib_latent_upscale.learned.networks import Enlarge, Restore
from tools.learned import taesd
from tools.learned.critic import Critic
from tools.muon import Muon
from tools.precision import autocast

NETWORKS = {"restore": Restore, "enlarge": Enlarge}
RATE = 1e-3
CROP = 16
"""Cells of the large latents' crops."""
CELL = 8
"""Pixels of a cell."""
BATCH, BATCH_DECODED = 16, 8
CROP_DECODED = 12

_log = logging.getLogger(__name__)


@dataclass
class Pairs:
    """Latents of sharp pictures and of the same reduced, in groups of one factor; later chunks are read, too."""

    folder: Path
    family: str
    kind: str
    groups: dict[float, list[tuple[Tensor, Tensor]]] = field(default_factory=dict)
    read: set[Path] = field(default_factory=set)

    def refresh(self) -> None:
        """Read new chunks. The first one is for watching, not for training."""
        for path in sorted(self.folder.glob(f"{self.family}-*.pt"))[1:]:
            if path not in self.read:
                self.read.add(path)
                self._add(torch.load(path, weights_only=True))

    def _add(self, chunk: Any) -> None:
        for group in chunk["reduced"]:
            given = group["soft" if self.kind == "restore" else "small"]
            self.groups.setdefault(group["factor"], []).append((given, chunk["sharp"][group["index"]]))

    def batch(self, rng: np.random.Generator, count: int, crop: int) -> tuple[Tensor, Tensor, float]:
        """Crops of one factor: what is given, what is wanted, the factor."""
        sizes = {factor: sum(len(wanted) for _, wanted in parts) for factor, parts in self.groups.items()}
        total = sum(sizes.values())
        factor = float(rng.choice(list(sizes), p=[size / total for size in sizes.values()]))
        parts = self.groups[factor]
        given, wanted = [], []
        for _ in range(count):
            chunk = parts[rng.choice(len(parts), p=[len(one) / sizes[factor] for _, one in parts])]
            index = int(rng.integers(len(chunk[1])))
            one, other = _cropped(rng, chunk[0][index].float(), chunk[1][index].float(), crop)
            given.append(one)
            wanted.append(other)
        return torch.stack(given), torch.stack(wanted), factor


def _cropped(rng: np.random.Generator, given: Tensor, wanted: Tensor, crop: int) -> tuple[Tensor, Tensor]:
    """The same place of both, on whole cells of both; the small one is as much smaller as it is."""
    small, large = given.shape[-1], wanted.shape[-1]
    unit = large // math.gcd(small, large)
    side = max(crop // unit, 1) * unit
    top, left = (int(rng.integers((large - side) // unit + 1)) * unit for _ in range(2))

    def cut(latent: Tensor) -> Tensor:
        scale = latent.shape[-1] / large
        box = [round(edge * scale) for edge in (top, top + side, left, left + side)]
        return latent[:, box[0] : box[1], box[2] : box[3]]

    return cut(given), cut(wanted)


def perturbed(rng: np.random.Generator, latent: Tensor) -> Tensor:
    """Half of the batches a little off, since the real autoencoders' latents are not quite TAESD's."""
    if rng.random() < 0.5:
        return latent
    shape = (len(latent), latent.shape[1], 1, 1)
    gain = 1 + 0.03 * torch.randn(shape)
    return latent * gain + 0.03 * torch.randn(shape) + rng.uniform(0, 0.06) * torch.randn_like(latent)


def run(network: nn.Module, given: Tensor, wanted: Tensor, factor: float) -> Tensor:
    """The network's answer at the wanted size."""
    given = given.contiguous(memory_format=torch.channels_last)
    argument = factor if isinstance(network, Restore) else tuple(wanted.shape[-2:])
    with autocast():
        result: Tensor = network(given, argument)
    return result.float()


def gradients(picture: Tensor) -> tuple[Tensor, Tensor]:
    """Differences down and across."""
    return picture[..., 1:, :] - picture[..., :-1, :], picture[..., 1:] - picture[..., :-1]


def spectrum(picture: Tensor) -> Tensor:
    """Logarithms of the amplitudes."""
    return torch.log(torch.fft.rfft2(picture, norm="ortho").abs() + 0.02)


def picture_loss(result: Tensor, wanted: Tensor, crispness: float) -> Tensor:
    """Distance of two decoded pictures: values, colours of areas, gradients; and what asks for crisp ones: energy and
    amplitudes."""
    value = (result - wanted).abs().mean() + 2 * F.avg_pool2d(result - wanted, 16).abs().mean()
    slope = torch.stack(
        [(a - b).abs().mean() for a, b in zip(gradients(result), gradients(wanted), strict=True)]
    ).mean()
    energy = torch.stack(
        [
            (F.avg_pool2d(a.abs(), 4) - F.avg_pool2d(b.abs(), 4)).abs().mean()
            for a, b in zip(gradients(result), gradients(wanted), strict=True)
        ]
    ).mean()
    amplitude = (spectrum(result) - spectrum(wanted)).abs().mean()
    return value + slope + crispness * (1.5 * energy + 0.04 * amplitude)


@dataclass
class Losses:
    """What a batch costs: in latents; in the decoded picture, too; and by what a critic says of that."""

    pairs: Pairs
    decoder: nn.Module | None
    crispness: float
    adversarial: float
    critic: Critic = field(default_factory=Critic)

    def of(self, rng: np.random.Generator, network: nn.Module) -> Tensor:
        """One batch's loss."""
        count, crop = (BATCH, CROP) if self.decoder is None else (BATCH_DECODED, CROP_DECODED)
        given, wanted, factor = self.pairs.batch(rng, count, crop)
        result = run(network, perturbed(rng, given), wanted, factor)
        loss = (result - wanted).abs().mean()
        return loss if self.decoder is None else 0.3 * loss + self._in_pictures(self.decoder, result, wanted, given)

    def _in_pictures(self, decoder: nn.Module, result: Tensor, wanted: Tensor, given: Tensor) -> Tensor:
        with torch.no_grad():
            true = decode(decoder, wanted)
        made = decode(decoder, result)
        loss = 4 * picture_loss(made, true, self.crispness)
        if self.adversarial:
            with torch.no_grad():
                placed = F.interpolate(decode(decoder, given), true.shape[-2:], mode="bicubic")
            self.critic.learn(made, true, placed)
            loss = loss - self.adversarial * self.critic(made, placed).mean()
        return loss


def decode(decoder: nn.Module, latent: Tensor) -> Tensor:
    """The picture in 0..1."""
    with autocast():
        picture: Tensor = decoder(latent.contiguous(memory_format=torch.channels_last))
    return picture.float()


@torch.no_grad()
def watched(network: nn.Module, kind: str, first: Any, decoder: nn.Module) -> dict[str, float]:
    """On the chunk that is not trained on: mean absolute error at each factor; at 2 PSNR and gradient energy, too."""
    found = {}
    for group in first["reduced"]:
        given, wanted = group["soft" if kind == "restore" else "small"].float(), first["sharp"][group["index"]].float()
        result = run(network, given, wanted, group["factor"])
        found[f"{group['factor']:.2f}"] = (result - wanted).abs().mean().item()
        if group["factor"] == 2:
            made, true = decode(decoder, result[:16]), decode(decoder, wanted[:16])
            found["PSNR"] = -10 * (made - true).square().mean((1, 2, 3)).log10().mean().item()
            found["energy"] = (
                sum(s.square().sum() for s in gradients(made)) / sum(s.square().sum() for s in gradients(true))
            ).item()
    return {name: round(value, 4) for name, value in found.items()}


@dataclass
class State:
    """A training under way."""

    network: nn.Module
    average: nn.Module
    optimiser: Muon
    path: Path
    step: int = 0

    @classmethod
    def of(cls, options: argparse.Namespace) -> State:
        """From the checkpoint where there is one, else new, or with the body of another family's."""
        network = NETWORKS[options.kind](taesd.CHANNELS[options.family]).to(memory_format=torch.channels_last)
        path = options.work / f"{options.kind}-{options.family}.pt"
        if options.start and not path.exists():
            own = network.state_dict()
            fits = {name: value for name, value in load_file(options.start).items() if value.shape == own[name].shape}
            network.load_state_dict({**own, **fits})
        optimiser = Muon(network.parameters(), options.rate, options.rate)
        state = cls(network, copy.deepcopy(network), optimiser, path)
        if path.exists():
            kept = torch.load(path, weights_only=True)
            network.load_state_dict(kept["network"])
            state.average.load_state_dict(kept["average"])
            optimiser.load_state_dict(kept["optimiser"])
            state.step = kept["step"]
        return state

    def save(self) -> None:
        """Whole or not at all."""
        kept = {name: getattr(self, name).state_dict() for name in ("network", "average", "optimiser")}
        part = self.path.with_suffix(".part")
        torch.save({**kept, "step": self.step}, part)
        part.rename(self.path)

    def update(self, loss: Tensor, scale: float) -> None:
        """One step, and the average of the weights."""
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step(scale)
        self.step += 1
        share = 1 - min(0.998, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for kept, new in zip(self.average.parameters(), self.network.parameters(), strict=True):
                kept.lerp_(new, share)


def progress(minutes: float) -> Iterator[float]:
    """The share of the time that is over, until it is."""
    start = time.monotonic()
    while (share := (time.monotonic() - start) / 60 / minutes) < 1:
        yield share


def main() -> None:
    """Train for so many minutes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=list(NETWORKS))
    parser.add_argument("family", choices=list(taesd.FILES))
    parser.add_argument("--taesd", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--rate", type=float, default=RATE, help="the highest learning rate; it falls evenly")
    parser.add_argument("--decoded", action="store_true", help="weigh the decoded pictures, too")
    parser.add_argument("--crispness", type=float, default=1.0, help="weight of energy and amplitudes, with --decoded")
    parser.add_argument("--adversarial", type=float, default=0.0, help="weight of the critic, with --decoded")
    parser.add_argument("--from", dest="start", type=Path, help="weights to begin with")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    decoder = taesd.load(options.taesd, options.family)[1]
    state = State.of(options)
    pairs = Pairs(options.work / "latents", options.family, options.kind)
    pairs.refresh()
    losses = Losses(pairs, decoder if options.decoded else None, options.crispness, options.adversarial)
    first = torch.load(options.work / "latents" / f"{options.family}-000.pt", weights_only=True)
    rng = np.random.default_rng(state.step)
    seen: list[float] = []
    for share in progress(options.minutes):
        loss = losses.of(rng, state.network)
        state.update(loss, min(1, (len(seen) + 1) / 100) * (1 - share))
        seen.append(loss.item())
        if state.step % 200 == 0:
            pairs.refresh()
            _log.info(
                "%d %.2f loss %.4f %s",
                state.step,
                share,
                np.mean(seen[-200:]),
                watched(state.average, options.kind, first, decoder),
            )
            state.save()
    state.save()


if __name__ == "__main__":
    main()
