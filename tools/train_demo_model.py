"""Train the demo model: VAE, then UNet with its text encoder, on dead-leaves pictures.

    python tools/train_demo_model.py pictures   draw the training pictures
    python tools/train_demo_model.py vae        train the autoencoder (an hour on two cores with bfloat16 units)
    python tools/train_demo_model.py unet       train the denoiser on its latents
    python tools/train_demo_model.py tile       train the tile ControlNet for that denoiser
    python tools/train_demo_model.py export     write demo-model and demo-tile-controlnet in lib_latent_upscale/weights

Each stage goes on from its last checkpoint. Small machine: --minutes bounds a stage.
"""

from __future__ import annotations

import argparse
import copy
import logging
import math
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from dead_leaves import dead_leaves
from demo_model import (
    build_text_encoder,
    build_tile_controlnet,
    build_unet,
    build_vae,
    export,
    export_tile_controlnet,
    start_with_colour,
)
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

logger = logging.getLogger("train_demo_model")
PICTURE_SIZE = 256
CELL = 8
"""Pixels of a side that one latent cell covers."""
SETTLED = 0.75
"""Share of the training after which the decoder is taught to forgive."""
LATENT_DEVIATION = 4.0
"""Standard deviation of the latents that the UNet sees. Stable Diffusion's is 1. This model knows so much less about
pictures that the same noise would leave nothing of them; larger latents make a denoising strength mean about the
same."""
TILE_SIZES = ((32, 6), (16, 24), (24, 10))
"""(latent cells of a side, pictures) of a batch for the tile ControlNet."""
Network = TypeVar("Network", bound=nn.Module)


# Pictures


def picture(index: int, seed: int) -> np.ndarray[Any, Any]:
    return dead_leaves(np.random.default_rng([seed, index]), PICTURE_SIZE)


def draw_pictures(args: argparse.Namespace) -> None:
    """Write (count, 256, 256, 3) uint8 to the work folder, each picture from its own seed."""
    store = np.lib.format.open_memmap(
        args.work / "pictures.part.npy", "w+", np.uint8, (args.count, PICTURE_SIZE, PICTURE_SIZE, 3)
    )
    with ProcessPoolExecutor() as pool:
        for i, image in enumerate(pool.map(partial(picture, seed=args.seed), range(args.count), chunksize=8)):
            store[i] = image
            if i % 200 == 0:
                logger.info("%d pictures", i)
    store.flush()
    (args.work / "pictures.part.npy").replace(args.work / "pictures.npy")


def crops(pictures: np.ndarray[Any, Any], rng: np.random.Generator, batch: int, size: int) -> Tensor:
    """Random crops as (batch, 3, size, size) in -1..1, flipped, turned, and their contrast and tint changed."""
    result = np.empty((batch, size, size, 3), np.uint8)
    for i in range(batch):
        y, x = rng.integers(0, PICTURE_SIZE - size + 1, 2)
        crop = pictures[rng.integers(len(pictures)), y : y + size, x : x + size]
        result[i] = np.rot90(crop[:, :: rng.choice([-1, 1])], rng.integers(4))
    x = torch.from_numpy(result).permute(0, 3, 1, 2).float() / 127.5 - 1
    gain = torch.from_numpy(rng.uniform(0.7, 1.2, (batch, 1, 1, 1)) * rng.uniform(0.92, 1.08, (batch, 3, 1, 1))).float()
    shift = torch.from_numpy(rng.normal(0, 0.12, (batch, 1, 1, 1)) + rng.normal(0, 0.04, (batch, 3, 1, 1))).float()
    return (x * gain + shift).clamp(-1, 1)


# Losses

OPPONENT = torch.tensor([[0.299, 0.587, 0.114], [-0.169, -0.331, 0.5], [0.5, -0.419, -0.081]])
"""RGB to luma and two chroma axes (ITU-R BT.601)."""


def gradients(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.diff(dim=-1), x.diff(dim=-2)


def reconstruction_loss(x: Tensor, target: Tensor) -> Tensor:
    """Pixels, edges, and the colours of 8x8 blocks, which no latent may lose."""
    x, target = (torch.einsum("dc,bchw->bdhw", OPPONENT, t) for t in (x, target))
    weight = torch.tensor([1.0, 1.5, 1.5]).view(1, 3, 1, 1)
    error = (x - target) * weight
    edges = sum((a - b).abs().mean() for a, b in zip(gradients(x[:, :1]), gradients(target[:, :1]), strict=True))
    blocks = F.avg_pool2d(error, 8)
    return error.square().mean() * 4 + error.abs().mean() + 0.5 * edges + 4 * blocks.square().mean()


# Loop


class Averaged:
    """Exponential moving average of a module's parameters; short at first, then ``decay``."""

    def __init__(self, module: nn.Module, decay: float = 0.999) -> None:
        self.module, self.decay, self.count = copy.deepcopy(module).requires_grad_(False), decay, 0

    def update(self, module: nn.Module) -> None:
        self.count += 1
        rate = 1 - min(self.decay, (1 + self.count) / (10 + self.count))
        for mine, other in zip(self.module.parameters(), module.parameters(), strict=True):
            mine.lerp_(other.detach(), rate)


def learning_rate(progress: float, peak: float) -> float:
    """A short warm-up, level, then a cosine to nearly zero in the last half."""
    tail = min(1.0, max(0.0, progress - 0.5) * 2)
    return peak * min(1.0, progress * 100 + 0.02) * (0.01 + 0.99 * (0.5 + 0.5 * math.cos(math.pi * tail)))


def contiguous_group_norm(module: nn.GroupNorm, x: Tensor) -> Tensor:
    """Group norm by way of the plain layout: its gradient in channels-last takes more time than all convolutions."""
    y = F.group_norm(x.contiguous(), module.num_groups, module.weight.to(x.dtype), module.bias.to(x.dtype), module.eps)
    return y.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else y


def prepare(network: Network) -> Network:
    """The memory layout and the group norm that train fastest on a CPU."""
    for module in network.modules():
        if isinstance(module, nn.GroupNorm):
            module.forward = MethodType(contiguous_group_norm, module)  # type: ignore[method-assign]
    return network.to(memory_format=torch.channels_last)


def save(path: Path, modules: dict[str, nn.Module], **numbers: float) -> None:
    tensors = {f"{name}/{k}": v.contiguous() for name, m in modules.items() for k, v in m.state_dict().items()}
    save_file(tensors, path.with_suffix(".part"), {k: repr(v) for k, v in numbers.items()})
    path.with_suffix(".part").replace(path)


def restore(path: Path, modules: dict[str, nn.Module]) -> dict[str, float]:
    if not path.exists():
        return {}
    from safetensors import safe_open

    tensors = load_file(path)
    for name, module in modules.items():
        module.load_state_dict({k.removeprefix(f"{name}/"): v for k, v in tensors.items() if k.startswith(f"{name}/")})
    with safe_open(path, "pt") as file:
        return {k: float(v) for k, v in (file.metadata() or {}).items()}


def optimise(
    args: argparse.Namespace,
    name: str,
    modules: dict[str, nn.Module],
    averages: dict[str, Averaged],
    peak: float,
    loss: Any,
) -> None:
    """Minimise ``loss(rng, progress)`` until the steps or the minutes are used up; keep averages beside the weights."""
    path = args.work / f"{name}.safetensors"
    everything = modules | {f"average-{k}": a.module for k, a in averages.items()}
    state = restore(path, everything)
    step, progress = int(state.get("step", 0)), state.get("progress", 0.0)
    started, saved = time.monotonic() - progress * args.minutes * 60, time.monotonic()
    for average in averages.values():
        average.count = step
    parameters = [p for m in modules.values() for p in m.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=peak, betas=(0.9, 0.98), weight_decay=1e-3, fused=True)
    rng = np.random.default_rng([args.seed, 7, step])
    torch.manual_seed(args.seed + step)
    values: list[float] = []
    while progress < 1:
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(progress, peak)
        value = loss(rng, progress)
        value.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        for key, average in averages.items():
            average.update(modules[key])
        values.append(value.item())
        step += 1
        progress = max(step / args.steps, (time.monotonic() - started) / (args.minutes * 60))
        if step % 100 == 0:
            logger.info("%s: step %d, %.0f %%, loss %.4f", name, step, 100 * progress, np.mean(values[-100:]))
        if time.monotonic() - saved > 120:
            save(path, everything, step=step, progress=progress)
            saved = time.monotonic()
    save(path, everything, step=step, progress=1.0)


# Stages


def autoencoder_pass(
    vae: AutoencoderKL, x: Tensor, noise: float, enlarge: str | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Reconstruction, and the posterior's mean and log variance.

    ``noise`` is what the decoder must forgive, relative to the latents' deviation; ``enlarge`` names the interpolation
    that doubles the latents before they are decoded.
    """
    mean, logvar = vae.quant_conv(vae.encoder(x)).float().chunk(2, dim=1)
    logvar = logvar.clamp(-30, 20)
    spread = (0.5 * logvar).exp() + noise * mean.detach().std()
    latent = mean + spread * torch.randn_like(mean)
    if enlarge is not None:
        latent = F.interpolate(latent, scale_factor=2, mode=enlarge)
    return vae.decoder(vae.post_quant_conv(latent)), mean, logvar


def train_vae(args: argparse.Namespace) -> None:
    pictures = np.load(args.work / "pictures.npy", mmap_mode="r")
    vae = build_vae()
    start_with_colour(vae)
    prepare(vae)
    sizes = [(64, 16), (64, 16), (96, 7), (128, 4)]

    def loss(rng: np.random.Generator, progress: float) -> Tensor:
        size, batch = sizes[rng.integers(len(sizes))]
        # Late, the decoder learns what an upscale shows it: enlarged latents, and remains of noise.
        enlarge = rng.choice(["nearest-exact", "bilinear"]) if progress > SETTLED and rng.random() < 0.5 else None
        x = crops(pictures, rng, batch, size)
        small = x if enlarge is None else F.interpolate(x, scale_factor=0.5, mode="area")
        noise = rng.uniform(0, 0.2) if progress > SETTLED else 0
        with torch.autocast("cpu", torch.bfloat16):
            y, mean, logvar = autoencoder_pass(vae, small.contiguous(memory_format=torch.channels_last), noise, enlarge)
        divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        target = x if enlarge is None else F.interpolate(small, scale_factor=2, mode="bicubic").clamp(-1, 1)
        return reconstruction_loss(y.float(), target) + 3e-5 * divergence

    optimise(args, "vae", {"vae": vae}, {"vae": Averaged(vae)}, 1e-3, loss)


def encode_pool(args: argparse.Namespace, vae: AutoencoderKL) -> Tensor:
    """The pictures' latents (count, 4, 32, 32), as the encoder gives them."""
    pictures = np.load(args.work / "pictures.npy", mmap_mode="r")
    latents = []
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for i in range(0, len(pictures), 16):
            x = torch.from_numpy(np.array(pictures[i : i + 16])).permute(0, 3, 1, 2).float() / 127.5 - 1
            latents.append(vae.encode(x.contiguous(memory_format=torch.channels_last)).latent_dist.mean.float())
    return torch.cat(latents).contiguous()


@dataclass(frozen=True)
class Place:
    """A square of a training picture, in latent cells."""

    picture: int
    y: int
    x: int
    size: int

    @classmethod
    def draw(cls, rng: np.random.Generator, pictures: int, size: int) -> Place:
        y, x = rng.integers(0, PICTURE_SIZE // CELL - size + 1, 2)
        return cls(int(rng.integers(pictures)), int(y), int(x), size)


@torch.no_grad()
def prompt_states(text: nn.Module, rng: np.random.Generator, count: int = 256) -> Tensor:
    """The text encoder's output (count, 77, channels) for the empty prompt, first, and for random lower-case words."""
    tokens = np.full((count, 77), 513)
    tokens[:, 0] = 512
    for row in tokens[1:]:
        letters = rng.integers(97, 123, rng.integers(1, 75))
        row[1 : 1 + len(letters)] = letters + 256 * (rng.random(len(letters)) < 0.2)  # 256 further on: a word's end
    return text(torch.from_numpy(tokens)).last_hidden_state


def scaled_latents(args: argparse.Namespace) -> Tensor:
    """The pictures' latents as the UNet sees them; encoded once."""
    cache = args.work / "latents.safetensors"
    if not cache.exists():
        vae = build_vae()
        restore(args.work / "vae.safetensors", {"average-vae": vae})
        pool = encode_pool(args, prepare(vae))
        save_file({"latents": pool, "scale": LATENT_DEVIATION / pool.std()}, cache)
    pool = load_file(cache)
    return pool["latents"] * pool["scale"]


def alpha_products() -> Tensor:
    """Cumulated products of SD 1.x's alphas (1000)."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0).float()


def train_unet(args: argparse.Namespace) -> None:
    """Epsilon prediction over SD 1.x's betas. Prompts are empty or random words, so that text learns to do no harm."""
    unet, text = build_unet(), build_text_encoder()
    latents, products = scaled_latents(args), alpha_products()
    prompts = prompt_states(text, np.random.default_rng(args.seed))
    prepare(unet)
    sizes = [(32, 16), (16, 48), (24, 24)]

    def loss(rng: np.random.Generator, _progress: float) -> Tensor:
        size, batch = sizes[rng.integers(len(sizes))]
        y, x = rng.integers(0, 32 - size + 1, 2)
        clean = latents[torch.from_numpy(rng.integers(0, len(latents), batch)), :, y : y + size, x : x + size]
        # An upscale starts in the lower half of the noise levels, so they get more of the training.
        prompt = torch.from_numpy(rng.integers(0, len(prompts), batch) * (rng.random(batch) < 0.5))
        timestep = torch.from_numpy((rng.uniform(0, 1, batch) ** 1.4 * 1000).astype(np.int64))
        product = products[timestep].view(-1, 1, 1, 1)
        noise = torch.randn_like(clean)
        noisy = (product.sqrt() * clean + (1 - product).sqrt() * noise).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            epsilon = unet(noisy, timestep, prompts[prompt]).sample
        return F.mse_loss(epsilon.float(), noise)

    optimise(args, "unet", {"unet": unet}, {"unet": Averaged(unet)}, 1e-3, loss)


def coarse_pictures(pictures: np.ndarray[Any, Any], rng: np.random.Generator, places: list[Place]) -> Tensor:
    """What the tile ControlNet is shown: crops (batch, 3, size, size) in 0..1 that were up to four times smaller."""
    size = places[0].size * CELL
    crops = [pictures[p.picture, p.y * CELL : p.y * CELL + size, p.x * CELL : p.x * CELL + size] for p in places]
    x = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255
    small = F.interpolate(x, size=round(size / rng.uniform(1, 4)), mode="bilinear", antialias=True)
    return F.interpolate(small, size=size, mode="bicubic").clamp(0, 1)


def train_tile(args: argparse.Namespace) -> None:
    """A ControlNet for the finished UNet: it sees a coarse picture, the UNet shall find the latents of the fine one."""
    unet, text = build_unet(), build_text_encoder()
    restore(args.work / "unet.safetensors", {"average-unet": unet})
    controlnet = prepare(build_tile_controlnet(unet))
    prepare(unet).requires_grad_(False)
    pictures = np.load(args.work / "pictures.npy")
    latents, products = scaled_latents(args), alpha_products()
    prompts = prompt_states(text, np.random.default_rng(args.seed))

    def loss(rng: np.random.Generator, _progress: float) -> Tensor:
        size, batch = TILE_SIZES[rng.integers(len(TILE_SIZES))]
        places = [Place.draw(rng, len(latents), size) for _ in range(batch)]
        clean = torch.stack([latents[p.picture, :, p.y : p.y + size, p.x : p.x + size] for p in places])
        prompt = prompts[torch.from_numpy(rng.integers(0, len(prompts), batch) * (rng.random(batch) < 0.5))]
        timestep = torch.from_numpy(rng.integers(0, 1000, batch))
        product = products[timestep].view(-1, 1, 1, 1)
        noise = torch.randn_like(clean)
        noisy = (product.sqrt() * clean + (1 - product).sqrt() * noise).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            shown = coarse_pictures(pictures, rng, places).contiguous(memory_format=torch.channels_last)
            down, middle = controlnet(noisy, timestep, prompt, shown, return_dict=False)
            epsilon = unet(
                noisy, timestep, prompt, down_block_additional_residuals=down, mid_block_additional_residual=middle
            ).sample
        # Where noise is strong the picture is made up, yet an error of epsilon weighs least: as v-prediction weighs.
        weight = 1 + (1 - product) / product / LATENT_DEVIATION**2
        return (weight * (epsilon.float() - noise).square()).mean()

    optimise(args, "tile", {"tile": controlnet}, {"tile": Averaged(controlnet)}, 1e-3, loss)


def export_model(args: argparse.Namespace) -> None:
    vae, unet = build_vae(), build_unet()
    restore(args.work / "vae.safetensors", {"average-vae": vae})
    restore(args.work / "unet.safetensors", {"average-unet": unet})
    scale = float(load_file(args.work / "latents.safetensors")["scale"])
    export(args.output, vae, unet, build_text_encoder(), scale)
    export_tile(args)


def export_tile(args: argparse.Namespace) -> None:
    """Write the tile ControlNet beside the model it belongs to."""
    controlnet = build_tile_controlnet(build_unet())
    if restore(args.work / "tile.safetensors", {"average-tile": controlnet}):
        export_tile_controlnet(args.output, controlnet)


STAGES = {
    "pictures": draw_pictures,
    "vae": train_vae,
    "unet": train_unet,
    "tile": train_tile,
    "export": export_model,
    "export-tile": export_tile,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--work", type=Path, default=Path("build/demo-model"), help="pictures and checkpoints")
    parser.add_argument("--output", type=Path, default=Path("lib_latent_upscale/weights/demo-model"))
    parser.add_argument("--count", type=int, default=2400, help="pictures to draw")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--minutes", type=float, default=1e6, help="end earlier, the learning rate with it")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    args.work.mkdir(parents=True, exist_ok=True)
    STAGES[args.stage](args)


if __name__ == "__main__":
    main()
