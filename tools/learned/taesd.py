"""The small autoencoders that speak the latents of published models (madebyollin/taesd, MIT), read from a folder.

Pictures are (batch, 3, height, width) in 0..1, latents as the U-Net sees them, with a deviation of about 1.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

FILES = {"sd1": "taesd", "sdxl": "taesdxl", "sd3": "taesd3", "flux1": "taef1"}
CHANNELS = {"sd1": 4, "sdxl": 4, "sd3": 16, "flux1": 16}
WIDTH = 64


def _conv(inner: int, outer: int, **options: object) -> nn.Conv2d:
    return nn.Conv2d(inner, outer, 3, padding=1, **options)  # type: ignore[arg-type]


class _Block(nn.Module):
    """Three convolutions beside a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(_conv(WIDTH, WIDTH), nn.ReLU(), _conv(WIDTH, WIDTH), nn.ReLU(), _conv(WIDTH, WIDTH))
        self.skip = nn.Identity()
        self.fuse = nn.ReLU()

    def forward(self, features: Tensor) -> Tensor:
        result: Tensor = self.fuse(self.conv(features) + self.skip(features))
        return result


class _Clamp(nn.Module):
    def forward(self, latent: Tensor) -> Tensor:
        return torch.tanh(latent / 3) * 3


def _encoder(channels: int) -> nn.Sequential:
    down = [[_conv(WIDTH, WIDTH, stride=2, bias=False), *(_Block() for _ in range(3))] for _ in range(3)]
    return nn.Sequential(_conv(3, WIDTH), _Block(), *(part for stage in down for part in stage), _conv(WIDTH, channels))


def _decoder(channels: int) -> nn.Sequential:
    up = [
        [*(_Block() for _ in range(3)), nn.Upsample(scale_factor=2), _conv(WIDTH, WIDTH, bias=False)] for _ in range(3)
    ]
    parts = [part for stage in up for part in stage]
    return nn.Sequential(_Clamp(), _conv(channels, WIDTH), nn.ReLU(), *parts, _Block(), _conv(WIDTH, 3))


def load(folder: Path, family: str) -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder of a family, in float32, not to be trained.

    Raises:
        SystemExit: the files are not there; it says which and where they come from.
    """
    return _load(folder, family, "encoder", _encoder), _load(folder, family, "decoder", _decoder)


def _load(folder: Path, family: str, part: str, build: object) -> nn.Module:
    path = folder / f"{FILES[family]}_{part}.safetensors"
    if not path.is_file():
        raise SystemExit(f"{path} is not there; --taesd wants the folder with the weights of madebyollin/taesd")
    network: nn.Module = build(CHANNELS[family])  # type: ignore[operator]
    network.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    return network.eval().requires_grad_(requires_grad=False).to(memory_format=torch.channels_last)
