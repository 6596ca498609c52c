"""Train the demo model: autoencoder, U-Net, tile ControlNet, each from its last checkpoint.

    python -m tools.learned.pictures --drawings DIR --photographs DIR --work DIR   the pictures (seed by seed, more)
    python -m tools.demo.train latents --taesd DIR --work DIR    their latents, as TAESD encodes them
    python -m tools.demo.train encoder --taesd DIR --work DIR --minutes 25
    python -m tools.demo.train decoder --taesd DIR --work DIR --minutes 105
    python -m tools.demo.train unet --work DIR --minutes 40
    python -m tools.demo.train tile --work DIR --minutes 15
    python -m tools.demo.train polish --taesd DIR --work DIR --minutes 60    both halves, with a critic
    python -m tools.demo.train export --work DIR
    python -m tools.demo.train unpack --work DIR                 checkpoints of the package's weights, to go on from

The autoencoder learns to do what TAESD (madebyollin/taesd, MIT) does, from its features as well as from its results: so
its latents are those of SD 1.x. The decoder is never shown an enlarged or noisy latent.
"""

from __future__ import annotations

import argparse
import copy
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor, nn

from lib_latent_upscale.noise_tables import NoiseTable
from lib_latent_upscale.standalone.engine.models import load_model
from lib_latent_upscale.standalone.engine.tile_models import load_tile
from tools.demo import autoencoder
from tools.demo.networks import (
    SCHEDULER_CONFIG,
    build_text_encoder,
    build_tile_controlnet,
    build_unet,
    export,
    export_tile_controlnet,
)
from tools.learned import taesd
from tools.learned.critic import Critic
from tools.learned.pictures import SIDE
from tools.learned.train import gradients, spectrum
from tools.muon import Muon
from tools.precision import HALF, autocast

CELL = 8
"""Pixels of a side that one latent cell covers."""
TEACHER_FEATURES = {"encoder": (5, 9, 13), "decoder": (5, 10, 15)}
"""Layers of TAESD after which its features are compared: the ends of its levels."""
CHUNK = 128
STRETCH = 64
"""Steps over which what is logged is averaged."""

Loss = dict[str, Tensor]
_log = logging.getLogger(__name__)


def pictures(work: Path) -> np.ndarray[Any, Any]:
    """(count, 256, 256, 3) uint8."""
    return np.load(work / "pictures.npy", mmap_mode="r")


def as_tensor(values: np.ndarray[Any, Any]) -> Tensor:
    """(batch, 3, height, width) in -1..1."""
    tensor = torch.from_numpy(np.ascontiguousarray(values)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return tensor.contiguous(memory_format=torch.channels_last)


@dataclass
class Training:
    """Networks that learn, the average of their weights, and how far they are; a checkpoint holds all of it."""

    path: Path
    networks: nn.ModuleDict
    parameters: list[nn.Parameter]
    rate: float = 2.5e-3
    steps: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.average = copy.deepcopy(self.networks).requires_grad_(requires_grad=False)
        self.optimiser = Muon(self.parameters, self.rate)
        if self.path.exists():
            kept = torch.load(self.path, weights_only=True)
            for name in ("networks", "average", "optimiser"):
                if name in kept:
                    getattr(self, name).load_state_dict(kept[name])
            self.steps, self.seconds = kept["steps"], kept["seconds"]

    def save(self) -> None:
        """Whole or not at all."""
        kept = {name: getattr(self, name).state_dict() for name in ("networks", "average", "optimiser")}
        part = self.path.with_suffix(".part")
        torch.save({**kept, "steps": self.steps, "seconds": self.seconds}, part)
        part.replace(self.path)

    def run(self, minutes: float, loss: Callable[[np.random.Generator, float], Loss]) -> None:
        """Step until so many minutes of the processor are used up, those of the checkpoint among them."""
        rng = np.random.default_rng(self.steps)
        torch.manual_seed(self.steps)
        seen: list[dict[str, float]] = []
        for share in self._shares(minutes):
            parts = loss(rng, share)
            self._step(sum(parts.values()), min(1.0, (len(seen) + 10) / 60) * max(0.02, min(1.0, (1 - share) / 0.5)))
            seen.append({name: part.item() for name, part in parts.items()})
            if self.steps % STRETCH == 0:
                means = {
                    name: round(float(np.mean([one.get(name, 0) for one in seen[-STRETCH:]])), 4) for name in parts
                }
                _log.info("%d %.2f %s", self.steps, share, means)
                self.save()
        self.save()

    def _shares(self, minutes: float) -> Iterator[float]:
        before = time.process_time() - self.seconds
        while (share := self.seconds / 60 / minutes) < 1:
            yield share
            self.seconds = time.process_time() - before

    def _step(self, loss: Any, scale: float) -> None:
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimiser.step(scale)
        self.steps += 1
        rate = 1 - min(0.998, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            for kept, new in zip(self.average.parameters(), self.networks.parameters(), strict=True):
                kept.lerp_(new, rate)


# Autoencoder


def projections(*channels: int) -> nn.ModuleList:
    """From features of ours to those of TAESD, of 64 channels."""
    return nn.ModuleList([nn.Conv2d(count, taesd.WIDTH, 1) for count in channels]).to(memory_format=torch.channels_last)


def taught(options: argparse.Namespace, half: str, channels: tuple[int, ...]) -> tuple[Training, nn.Sequential]:
    """The half of a new or a known autoencoder that learns, and the half of TAESD that it learns from."""
    vae, hints = autoencoder.build(), projections(*channels)
    parameters = [*autoencoder.trained(vae, half), *hints.parameters()]
    training = Training(options.work / f"{half}.pt", nn.ModuleDict({"vae": vae, "hints": hints}), parameters)
    teacher = taesd.load(options.taesd, "sd1")[("encoder", "decoder").index(half)]
    return training, teacher.to(HALF)


@torch.no_grad()
def lesson(teacher: nn.Sequential, half: str, x: Tensor, features: int = 3) -> tuple[Tensor, list[Tensor]]:
    """TAESD's result and its features, as many as are asked for; with fewer than all the result is not computed."""
    found, x = [], x.to(HALF)
    for number, layer in enumerate(teacher):
        x = layer(x)
        if number in TEACHER_FEATURES[half]:
            found.append(x.float())
            if len(found) == features < 3:
                break
    return x.float(), found


def distances(hints: nn.ModuleList, ours: list[Tensor], theirs: list[Tensor], weight: float) -> Loss:
    """Mean square errors of features, relative to their variance."""
    return {
        f"features {number}": weight * (hint(mine).float() - true).square().mean() / (true.var() + 1e-6)
        for number, (hint, mine, true) in enumerate(zip(hints, ours, theirs, strict=False))
    }


def seen_by_encoder(rng: np.random.Generator, store: np.ndarray[Any, Any]) -> Tensor:
    """Crops in any position, a third of them soft as resized pictures are, half of the batches of another tint."""
    count, side = ((8, 96), (6, 128), (2, 224))[rng.integers(3)]
    crops = []
    for _ in range(count):
        top, left = rng.integers(0, SIDE - side + 1, 2)
        crop = np.array(store[rng.integers(len(store)), top : top + side, left : left + side])
        crop = np.rot90(crop[:, :: rng.choice([-1, 1])], rng.integers(4))
        if rng.random() < 0.35:
            small = max(8, int(side / rng.uniform(1.3, 4)))
            image = Image.fromarray(np.ascontiguousarray(crop)).resize((small, small), Image.Resampling.BOX)
            crop = np.asarray(image.resize((side, side), Image.Resampling.LANCZOS))
        crops.append(crop)
    x = as_tensor(np.stack(crops))
    if rng.random() < 0.5:
        return x
    gain = rng.uniform(0.6, 1.2, (count, 1, 1, 1)) * rng.uniform(0.9, 1.1, (count, 3, 1, 1))
    shift = rng.normal(0, 0.15, (count, 1, 1, 1)) + rng.normal(0, 0.06, (count, 3, 1, 1))
    return (x * torch.from_numpy(gain).float() + torch.from_numpy(shift).float()).clamp(-1, 1)


def train_encoder(options: argparse.Namespace) -> None:
    """It shall give the latents that TAESD's gives."""
    training, teacher = taught(options, "encoder", (64, 64, 128))
    vae, hints, store = training.networks["vae"], training.networks["hints"], pictures(options.work)

    def loss(rng: np.random.Generator, share: float) -> Loss:
        x = seen_by_encoder(rng, store)
        wanted, theirs = lesson(teacher, "encoder", (x + 1) / 2)
        with autocast():
            latent, ours = autoencoder.encode(vae, x)
            parts = distances(hints, ours, theirs, 0.3 * (1 - share) + 0.02)
        error = latent.float() - wanted
        means = F.avg_pool2d(error, 4).square().mean()
        return {**parts, "absolute": error.abs().mean(), "square": error.square().mean(), "means": 2 * means}

    training.run(options.minutes, loss)


@torch.no_grad()
def encode_pictures(options: argparse.Namespace) -> None:
    """The pictures' latents, as TAESD encodes them: (count, 4, 32, 32) in half precision."""
    encoder, store = taesd.load(options.taesd, "sd1")[0].to(HALF), pictures(options.work)
    latents = [
        encoder(((as_tensor(np.array(store[start : start + 8])) + 1) / 2).to(HALF)).half()
        for start in range(0, len(store), 8)
    ]
    torch.save(torch.cat(latents), options.work / "latents.pt")


@dataclass(frozen=True)
class Place:
    """A square of a training picture, in latent cells."""

    picture: int
    top: int
    left: int
    size: int

    @classmethod
    def draw(cls, rng: np.random.Generator, count: int, size: int) -> Place:
        top, left = rng.integers(0, SIDE // CELL - size + 1, 2)
        return cls(int(rng.integers(count)), int(top), int(left), size)

    def of_latents(self, latents: Tensor) -> Tensor:
        return latents[self.picture, :, self.top : self.top + self.size, self.left : self.left + self.size].float()

    def of_pictures(self, store: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        top, left, size = self.top * CELL, self.left * CELL, self.size * CELL
        return np.array(store[self.picture, top : top + size, left : left + size])


def energies(x: Tensor) -> Tensor:
    """How much the picture changes around each place, down and across."""
    return torch.cat([F.avg_pool2d(slope.abs(), 4).flatten(1) for slope in gradients(x)], 1)


def slopes(x: Tensor) -> Tensor:
    return torch.cat([slope.flatten(1) for slope in gradients(x)], 1)


def apart(ours: Tensor, theirs: Tensor) -> Tensor:
    return (ours - theirs).abs().mean()


def train_decoder(options: argparse.Namespace) -> None:
    """It shall make the pictures that TAESD's makes; first only its features, from the coarse ones on, which is cheap.

    Their edges need no adversary: TAESD gives one answer to each latent. Late, the true picture counts, too.
    """
    training, teacher = taught(options, "decoder", (128, 64, 64))
    vae, hints = training.networks["vae"], training.networks["hints"]
    store, latents = pictures(options.work), torch.load(options.work / "latents.pt", weights_only=True)
    sizes = {2: (12, 16), 3: (6, 16)}
    whole = ((4, 16), (4, 16), (2, 24))

    def loss(rng: np.random.Generator, share: float) -> Loss:
        levels = 2 if share < 0.067 else 3 if share < 0.14 else 4
        count, size = sizes.get(levels) or whole[rng.integers(3)]
        places = [Place.draw(rng, len(latents), size) for _ in range(count)]
        latent = torch.stack([place.of_latents(latents) for place in places])
        latent = latent.contiguous(memory_format=torch.channels_last)
        wanted, theirs = lesson(teacher, "decoder", latent, min(levels, 3))
        with autocast():
            result, ours = autoencoder.decode(vae, latent, levels)
            parts = distances(hints, ours, theirs, 1.0 if levels < 4 else 0.1 if share < 0.6 else 0.03)
        if result is None:
            return parts
        truth = as_tensor(np.stack([place.of_pictures(store) for place in places]))
        return {**parts, **_of_pictures(result.float(), wanted * 2 - 1, truth, late=share > 0.55)}

    training.run(options.minutes, loss)


def _of_pictures(result: Tensor, wanted: Tensor, truth: Tensor, *, late: bool) -> Loss:
    parts = {
        "values": 2 * apart(result, wanted),
        "squares": 2 * (result - wanted).square().mean(),
        "slopes": 2 * apart(slopes(result), slopes(wanted)),
        "means": 2 * F.avg_pool2d(result - wanted, CELL).square().mean(),
    }
    if late:
        parts["truth"] = 0.5 * apart(result, truth)
        parts["energy"] = apart(energies(result), energies(truth))
        parts["spectrum"] = 0.03 * apart(spectrum(result), spectrum(truth))
    return parts


def train_polish(options: argparse.Namespace) -> None:
    """Both finished halves, towards the true pictures and with a critic: crisper than TAESD, if need be.

    Half of the batches go through the encoder, which has to keep to TAESD's latents meanwhile.
    """
    vae = joined(options.work).to(memory_format=torch.channels_last)
    parameters = [*autoencoder.trained(vae, "encoder"), *autoencoder.trained(vae, "decoder")]
    training = Training(options.work / "polish.pt", nn.ModuleDict({"vae": vae}), parameters, 4e-4)
    encoder, decoder = (half.to(HALF) for half in taesd.load(options.taesd, "sd1"))
    store, critic = pictures(options.work), Critic()

    def loss(rng: np.random.Generator, share: float) -> Loss:
        count, size = ((4, 16), (4, 16), (2, 24))[rng.integers(3)]
        places = [Place.draw(rng, len(store), size) for _ in range(count)]
        truth = as_tensor(np.stack([place.of_pictures(store) for place in places]))
        with torch.no_grad():
            latent = encoder(((truth + 1) / 2).to(HALF)).float()
            wanted = decoder(latent.to(HALF)).float() * 2 - 1
        with autocast():
            read = autoencoder.encode(vae, truth)[0] if rng.random() < 0.5 else latent
            result = autoencoder.decode(vae, read)[0].float()
        given, made, true = ((one + 1) / 2 for one in (wanted, result, truth))
        critic.learn(made, true, given)
        parts = _of_pictures(result, wanted, truth, late=True)
        parts["truth"], parts["energy"], parts["spectrum"] = (
            weight * parts[name] for name, weight in (("truth", 4), ("energy", 6), ("spectrum", 4))
        )
        parts["latent"] = apart(read.float(), latent) + F.avg_pool2d(read.float() - latent, 4).square().mean()
        return {**parts, "critic": -0.2 * min(1.0, 10 * share) * critic(made, given).mean()}

    training.run(options.minutes, loss)


# U-Net and tile ControlNet


PRODUCTS = NoiseTable.from_config(SCHEDULER_CONFIG).alphas
"""Cumulated products of SD 1.x's alphas (1000)."""


@torch.no_grad()
def prompt_states(rng: np.random.Generator, count: int = 256) -> Tensor:
    """The text encoder's output (count, 77, channels) for the empty prompt, first, and for random lower-case words."""
    tokens = np.full((count, 77), 513)
    tokens[:, 0] = 512
    for row in tokens[1:]:
        letters = rng.integers(97, 123, rng.integers(1, 75))
        row[1 : 1 + len(letters)] = letters + 256 * (rng.random(len(letters)) < 0.2)  # 256 further on: a word's end
    states: Tensor = build_text_encoder()(torch.from_numpy(tokens)).last_hidden_state
    return states


@dataclass(frozen=True)
class Noisy:
    """Latents, the noise that was added, and what the U-Net is told of them."""

    latent: Tensor
    noise: Tensor
    timestep: Tensor
    prompt: Tensor
    product: Tensor

    @classmethod
    def draw(cls, rng: np.random.Generator, clean: Tensor, prompts: Tensor, bend: float) -> Noisy:
        """`bend` above 1 draws small noise more often; half of the prompts are empty."""
        count = len(clean)
        timestep = torch.from_numpy((rng.uniform(0, 1, count) ** bend * 1000).astype(np.int64))
        product, noise = PRODUCTS[timestep].view(-1, 1, 1, 1), torch.randn_like(clean)
        latent = (product.sqrt() * clean + (1 - product).sqrt() * noise).contiguous(memory_format=torch.channels_last)
        prompt = prompts[torch.from_numpy(rng.integers(0, len(prompts), count) * (rng.random(count) < 0.5))]
        return cls(latent, noise, timestep, prompt, product)


def train_unet(options: argparse.Namespace) -> None:
    """Epsilon prediction over SD 1.x's betas. Prompts are empty or random words, so that text learns to do no harm."""
    unet = build_unet().to(memory_format=torch.channels_last)
    training = Training(options.work / "unet.pt", nn.ModuleDict({"unet": unet}), list(unet.parameters()), 1e-3)
    latents, prompts = (
        torch.load(options.work / "latents.pt", weights_only=True),
        prompt_states(np.random.default_rng(1)),
    )
    sizes = ((32, 8), (16, 32), (24, 14))

    def loss(rng: np.random.Generator, _share: float) -> Loss:
        size, count = sizes[rng.integers(len(sizes))]
        clean = torch.stack([Place.draw(rng, len(latents), size).of_latents(latents) for _ in range(count)])
        noisy = Noisy.draw(rng, clean, prompts, bend=1.6)
        with autocast():
            epsilon = unet(noisy.latent, noisy.timestep, noisy.prompt).sample
        return {"epsilon": F.mse_loss(epsilon.float(), noisy.noise)}

    training.run(options.minutes, loss)


def coarse(rng: np.random.Generator, crops: Tensor) -> Tensor:
    """What the tile ControlNet is shown: pictures in 0..1 that were up to four times smaller."""
    size = crops.shape[-1]
    small = F.interpolate(crops, size=round(size / rng.uniform(1, 4)), mode="bilinear", antialias=True)
    shown = F.interpolate(small, size=size, mode="bicubic").clamp(0, 1)
    return shown.contiguous(memory_format=torch.channels_last)


def train_tile(options: argparse.Namespace) -> None:
    """A ControlNet for the finished U-Net: it sees a coarse picture, and the latents of the fine one shall be found."""
    unet = known(options.work / "unet.pt", "unet", build_unet())
    controlnet = build_tile_controlnet(unet).to(memory_format=torch.channels_last)
    unet.to(memory_format=torch.channels_last).requires_grad_(requires_grad=False)
    training = Training(
        options.work / "tile.pt", nn.ModuleDict({"tile": controlnet}), list(controlnet.parameters()), 1e-3
    )
    store, latents = pictures(options.work), torch.load(options.work / "latents.pt", weights_only=True)
    prompts = prompt_states(np.random.default_rng(1))
    sizes = ((32, 4), (16, 16), (24, 7))

    def loss(rng: np.random.Generator, _share: float) -> Loss:
        size, count = sizes[rng.integers(len(sizes))]
        places = [Place.draw(rng, len(latents), size) for _ in range(count)]
        noisy = Noisy.draw(rng, torch.stack([place.of_latents(latents) for place in places]), prompts, bend=1)
        shown = coarse(rng, (as_tensor(np.stack([place.of_pictures(store) for place in places])) + 1) / 2)
        with autocast():
            down, middle = controlnet(noisy.latent, noisy.timestep, noisy.prompt, shown, return_dict=False)
            epsilon = unet(
                noisy.latent,
                noisy.timestep,
                noisy.prompt,
                down_block_additional_residuals=down,
                mid_block_additional_residual=middle,
            ).sample
        # Where noise is strong the picture is made up, yet an error of epsilon weighs least: as v-prediction weighs.
        return {"epsilon": ((epsilon.float() - noisy.noise).square() / noisy.product).mean()}

    training.run(options.minutes, loss)


# Export


def known(path: Path, name: str, network: Any) -> Any:
    """The network with the averaged weights of a checkpoint."""
    if not path.exists():
        raise SystemExit(f"{path} is not there; train that stage first")
    average = torch.load(path, weights_only=True)["average"]
    network.load_state_dict(
        {key.removeprefix(f"{name}."): v for key, v in average.items() if key.startswith(f"{name}.")}
    )
    return network


def joined(work: Path) -> AutoencoderKL:
    """Both halves in one."""
    vae, other = (known(work / f"{half}.pt", "vae", autoencoder.build()) for half in ("decoder", "encoder"))
    vae.encoder, vae.quant_conv = other.encoder, other.quant_conv
    return vae


def whole_autoencoder(work: Path) -> AutoencoderKL:
    """The latest one, for hosts: with the layout's epsilon, in the plain memory layout."""
    polished = work / "polish.pt"
    vae = known(polished, "vae", autoencoder.build()) if polished.exists() else joined(work)
    return autoencoder.folded(vae).to(memory_format=torch.contiguous_format)


def export_model(options: argparse.Namespace) -> None:
    """Write the model and, where it has been trained, the tile ControlNet beside it."""
    unet = known(options.work / "unet.pt", "unet", build_unet())
    export(options.output, whole_autoencoder(options.work), unet, build_text_encoder())
    if (options.work / "tile.pt").exists():
        export_tile_controlnet(options.output, known(options.work / "tile.pt", "tile", build_tile_controlnet(unet)))


def unpack(options: argparse.Namespace) -> None:
    """Checkpoints with the weights of the package's demo model, which every stage can go on from."""
    model = load_model("demo", device="cpu")
    tile = load_tile("demo", model)
    vae = autoencoder.unfolded(model.vae)
    networks = {
        "encoder": ("vae", vae),
        "decoder": ("vae", vae),
        "unet": ("unet", model.unet),
        "tile": ("tile", tile.network),
    }
    for stage, (name, network) in networks.items():
        state = nn.ModuleDict({name: network}).float().state_dict()
        torch.save({"networks": state, "average": state, "steps": 0, "seconds": 0.0}, options.work / f"{stage}.pt")


STAGES = {
    "latents": encode_pictures,
    "encoder": train_encoder,
    "decoder": train_decoder,
    "unet": train_unet,
    "tile": train_tile,
    "polish": train_polish,
    "unpack": unpack,
    "export": export_model,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--work", type=Path, default=Path("build/demo-model"), help="pictures, latents, checkpoints")
    parser.add_argument("--taesd", type=Path, help="the folder with TAESD's weights")
    parser.add_argument("--output", type=Path, default=Path("lib_latent_upscale/weights/demo-model"))
    parser.add_argument("--minutes", type=float, default=30, help="of the processor, over all runs of a stage")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    STAGES[options.stage](options)


if __name__ == "__main__":
    main()
