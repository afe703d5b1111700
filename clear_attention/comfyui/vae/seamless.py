"""From the latent of a seamless picture to its pixels, without a seam.

A VAE's convolutions see zeros beyond the edges. Here they see the picture go on: the latent is
continued around its wrapped edges, decoded, and cut to size. Where the picture's end meets what was
decoded in front of its beginning, which is the same place, one fades into the other: tiles, which
are normalised each on its own, would leave a seam there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..core.settings import DIRECTIONS
from .pixels import decode

# In latent pixels. The convolutions of FLUX's and SD3's decoders reach 18; the last of the fade,
# where hardly anything of it counts, lies 16 from the edge.
MARGIN, FADE = 24, 8


def decode_seamless(vae: Any, samples: Tensor, direction: str = "both", tile: int = 0) -> Tensor:
    """Return the picture of a latent, ``[B, H, W, 3]``.

    Args:
        vae: The host's VAE.
        samples: ``[B, C, height, width]``, or with one frame in front of the height.
        direction: One of `DIRECTIONS`.
        tile: Edge of a tile in pixels; 0 for the whole picture at once.

    Raises:
        ValueError: The latent is not that of a picture.
    """
    given = list(samples.shape)
    if samples.ndim == 5 and samples.shape[2] == 1:
        samples = samples[:, :, 0]
    if samples.ndim != 4:
        raise ValueError(
            f"samples must be pictures, [batch, channels, height, width], got {given}"
            ". Decode videos with VAE Decode."
        )
    wraps = DIRECTIONS[direction]
    for axis, wrapped in zip((2, 3), wraps, strict=True):
        samples = _continued(samples, axis) if wrapped else samples
    pictures = decode(vae, samples, tile)
    scale = vae.spacial_compression_decode()
    for axis, wrapped in zip((1, 2), wraps, strict=True):
        pictures = _joined(pictures, axis, MARGIN * scale, FADE * scale) if wrapped else pictures
    return pictures


def _continued(samples: Tensor, axis: int) -> Tensor:
    """Continue an axis around both of its edges."""
    length = samples.shape[axis]
    places = torch.arange(-MARGIN, length + MARGIN, device=samples.device) % length
    return samples.index_select(axis, places)


def _joined(pictures: Tensor, axis: int, margin: int, fade: int) -> Tensor:
    """Cut off both margins, and fade the end into what lies in front of the beginning."""
    length = pictures.shape[axis] - 2 * margin
    fade = min(fade, length)
    inside = pictures.narrow(axis, margin, length).clone()
    before, end = (
        pictures.narrow(axis, margin - fade, fade),
        inside.narrow(axis, length - fade, fade),
    )
    share = torch.arange(1, fade + 1, device=pictures.device) / fade
    end.lerp_(before, share.to(pictures.dtype).view(-1, *[1] * (pictures.ndim - 1 - axis)))
    return inside
