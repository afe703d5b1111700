"""TAESD's two networks, with the layers numbered as in the files that ComfyUI reads.

TAESD is a small autoencoder by Ollin Boer Bohan; ComfyUI loads files of its form as a VAE. All
its layers are 3 x 3 convolutions on 64 channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

LATENT_CHANNELS = 16
WIDTH = 64
CLAMP = 3.0  # the decoder's first layer lets latents of about this size through


class Block(nn.Module):
    """Three convolutions beside a shortcut; ``[B, 64, H, W]`` in and out, out non-negative."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            conv(WIDTH, WIDTH), nn.ReLU(), conv(WIDTH, WIDTH), nn.ReLU(), conv(WIDTH, WIDTH)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x) + x)


class Clamp(nn.Module):
    """Bends latents so that none is larger than ``CLAMP``."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / CLAMP) * CLAMP


def conv(inputs: int, outputs: int, *, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    """Make a 3 x 3 convolution that keeps the size, but for its stride."""
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=bias)


def convolution(network: nn.Sequential, at: int) -> nn.Conv2d:
    """Return the convolution at a place of a network."""
    layer = network[at]
    assert isinstance(layer, nn.Conv2d)
    return layer


def encoder() -> nn.Sequential:
    """Make the encoder: ``[B, 3, 8 h, 8 w]`` in [0, 1] to ``[B, 16, h, w]``."""

    def halve() -> list[nn.Module]:
        return [conv(WIDTH, WIDTH, stride=2, bias=False), Block(), Block(), Block()]

    first, last = conv(3, WIDTH), conv(WIDTH, LATENT_CHANNELS)
    return nn.Sequential(first, Block(), *halve(), *halve(), *halve(), last)


def decoder() -> nn.Sequential:
    """Make the decoder: ``[B, 16, h, w]`` to ``[B, 3, 8 h, 8 w]`` in about [0, 1]."""

    def double() -> list[nn.Module]:
        blocks = [Block(), Block(), Block()]
        return [*blocks, nn.Upsample(scale_factor=2), conv(WIDTH, WIDTH, bias=False)]

    first, last = conv(LATENT_CHANNELS, WIDTH), conv(WIDTH, 3)
    return nn.Sequential(Clamp(), first, nn.ReLU(), *double(), *double(), *double(), Block(), last)
