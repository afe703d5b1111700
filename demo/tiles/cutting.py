"""Cut a picture into tiles with soft borders, as tile upscalers do."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from ..students import TRAINED_PX

TILE_PX, PADDING_PX, BLUR_PX = TRAINED_PX, 32, 8
"""The size that the model was trained for, and the usual border and blur."""


def tiles_of(edge: int) -> Iterator[tuple[tuple[slice, slice], Tensor]]:
    """Yield each tile of a square picture: the crop to paint, and where it is blended in.

    Args:
        edge: Of the picture in pixels.

    Yields:
        Rows and columns of the tile with its padding; the share of it in each pixel, ``[H, W, 1]``.
    """
    starts = range(0, edge, TILE_PX)
    for top in starts:
        for left in starts:
            bottom, right = (min(edge, at + TILE_PX) for at in (top, left))
            mask = Image.new("L", (edge, edge))
            mask.paste(255, (left, top, right, bottom))
            share = as_tensor(mask.filter(ImageFilter.GaussianBlur(BLUR_PX)))[..., None]
            crop = _padded(top, bottom, edge), _padded(left, right, edge)
            inside = torch.zeros(edge, edge, 1)
            inside[crop] = 1
            yield crop, share * inside


def as_tensor(image: Image.Image) -> Tensor:
    """Return the values of an image, 0 to 1: ``[H, W]``, or ``[H, W, 3]`` of colours."""
    return torch.from_numpy(np.asarray(image, dtype=np.float32) / 255)


def as_image(picture: Tensor) -> Image.Image:
    """Return values ``[H, W, 3]`` as an image; those beyond 0 to 1 are cut off."""
    return Image.fromarray((picture.clamp(0, 1) * 255).round().byte().numpy())


def _padded(start: int, stop: int, edge: int) -> slice:
    return slice(max(0, start - PADDING_PX), min(edge, stop + PADDING_PX))
