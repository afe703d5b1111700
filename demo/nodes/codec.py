"""A picture codec without training: what JPEG keeps, in the shape of FLUX's latents.

Every latent pixel stands for 8 x 8 pixels and holds 16 numbers: the three mean colours, which
decoding joins smoothly, and 13 cosine waves of what the smooth picture lacks. Linear, so that
encoding and decoding a picture gives it back with its finest detail missing.
"""

from __future__ import annotations

import math
from typing import Any

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
    blocks = F.unfold(colours - smooth(means), BLOCK, stride=BLOCK)
    waves = (wave_table().to(image.device) @ blocks).unflatten(2, means.shape[2:]) / BLOCK**2
    return torch.cat([means, waves], dim=1) / spread(image.device) / FLUX_SCALE + FLUX_SHIFT


def decode(latent: Tensor) -> Tensor:
    """Decode ``[B, 16, h, w]`` to ``[B, 8 h, 8 w, 3]`` in [0, 1]."""
    values = (latent.float() - FLUX_SHIFT) * FLUX_SCALE * spread(latent.device)
    means, waves = values.split([3, len(WAVES)], dim=1)
    size = (means.shape[2] * BLOCK, means.shape[3] * BLOCK)
    detail = F.fold(wave_table().to(latent.device).T @ waves.flatten(2), size, BLOCK, stride=BLOCK)
    return ((from_colours(smooth(means) + detail) + 1) / 2).clamp(0, 1)


def smooth(means: Tensor) -> Tensor:
    """Join the mean colours of the blocks without steps."""
    return F.interpolate(means, scale_factor=BLOCK, mode="bicubic", align_corners=False)


def to_colours(image: Tensor) -> Tensor:
    """Turn ``[B, H, W, 3]`` of RGB into ``[B, 3, H, W]`` of brightness and two contrasts."""
    return torch.einsum("cr,bhwr->bchw", COLOURS.to(image.device), image)


def from_colours(colours: Tensor) -> Tensor:
    """Undo ``to_colours``."""
    return torch.einsum("cr,bchw->bhwr", COLOURS.to(colours.device), colours)


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


class DemoVAE:
    """What the nodes that encode and decode use of ComfyUI's VAE object."""

    latent_channels = 16

    def encode(self, pixel_samples: Tensor) -> Tensor:
        """Encode pictures."""
        return encode(pixel_samples)

    def decode(self, samples: Tensor, **_: Any) -> Tensor:
        """Decode latents."""
        return decode(samples)

    def encode_tiled(self, pixel_samples: Tensor, **_: Any) -> Tensor:
        """Encode pictures; there is so little to compute that tiles are not needed."""
        return encode(pixel_samples)

    def decode_tiled(self, samples: Tensor, **_: Any) -> Tensor:
        """Decode latents; there is so little to compute that tiles are not needed."""
        return decode(samples)

    def spacial_compression_encode(self) -> int:
        """Return how many pixels a latent pixel spans (the host's spelling)."""
        return BLOCK

    def spacial_compression_decode(self) -> int:
        """Return how many pixels a latent pixel spans (the host's spelling)."""
        return BLOCK

    def temporal_compression_decode(self) -> None:
        """Say that this is no video codec."""
