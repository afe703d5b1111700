"""The demo's latents: what JPEG keeps of a picture, in the shape of FLUX's.

Every latent pixel stands for 8 x 8 pixels and holds 16 numbers: the three mean colours and 13
cosine waves. The demo's VAE encodes to the same numbers, and its decoder is trained to undo them.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 8
# ComfyUI's FLUX models scale latents on the way in, so a latent is prepared for that.
FLUX_SCALE, FLUX_SHIFT = 0.3611, 0.1159

# Rows: brightness, blue against orange, green against purple. Orthonormal.
COLOURS = (
    torch.tensor([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / torch.tensor([[3.0], [2.0], [6.0]]).sqrt()
)
# (row of COLOURS, vertical frequency, horizontal frequency)
WAVES = (
    *(
        (0, 0, 1),
        (0, 1, 0),
        (0, 1, 1),
        (0, 0, 2),
        (0, 2, 0),
        (0, 1, 2),
        (0, 2, 1),
        (0, 0, 3),
        (0, 3, 0),
    ),
    *((1, 0, 1), (1, 1, 0), (2, 0, 1), (2, 1, 0)),
)
# About how much each number varies over a photograph; dividing by it makes noise of unit variance
# hide all of them alike, which diffusion counts on.
MEAN_SPREAD = (0.8, 0.35, 0.35)
WAVE_SPREAD = tuple((0.2 if colour == 0 else 0.08) / (dy + dx) for colour, dy, dx in WAVES)


def encode(image: Tensor) -> Tensor:
    """Encode ``[B, H, W, 3]`` in [0, 1] as ``[B, 16, H // 8, W // 8]``."""
    height, width = (size - size % BLOCK for size in image.shape[1:3])
    colours = to_colours(image[:, :height, :width, :3].float() * 2 - 1)
    means = F.avg_pool2d(colours, BLOCK)
    blocks = F.unfold(colours, BLOCK, stride=BLOCK)
    waves = (wave_table().to(image.device) @ blocks).unflatten(2, means.shape[2:]) / BLOCK**2
    return torch.cat([means, waves], dim=1) / spread(image.device) / FLUX_SCALE + FLUX_SHIFT


def to_colours(image: Tensor) -> Tensor:
    """Turn ``[B, H, W, 3]`` of RGB into ``[B, 3, H, W]`` of brightness and two contrasts."""
    return torch.einsum("cr,bhwr->bchw", COLOURS.to(image.device), image)


def wave_table() -> Tensor:
    """Tabulate the waves, orthogonal and of unit variance: ``[13, 3 * 8 * 8]``."""
    at = (torch.arange(BLOCK) + 0.5) * math.pi / BLOCK
    cosines = [torch.ones(BLOCK), *(math.sqrt(2) * torch.cos(k * at) for k in range(1, BLOCK))]
    table = torch.zeros(len(WAVES), 3, BLOCK, BLOCK)
    for row, (colour, dy, dx) in enumerate(WAVES):
        table[row, colour] = cosines[dy][:, None] * cosines[dx]
    return table.flatten(1)


def spread(device: torch.device) -> Tensor:
    """Return the spread of the 16 numbers, ``[16, 1, 1]``."""
    return torch.tensor(MEAN_SPREAD + WAVE_SPREAD, device=device)[:, None, None]
