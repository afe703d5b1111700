"""Rows of pictures as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

GAP = 4


def contact_sheet(rows: Sequence[Tensor]) -> Tensor:
    """Lay rows of pictures out on white.

    Args:
        rows: ``[N, H, W, 3]`` in [0, 1] each, of one shape.

    Returns:
        ``[H', W', 3]`` in [0, 1].
    """
    pictures = torch.stack([row.float().cpu() for row in rows])
    padded = torch.nn.functional.pad(pictures, (0, 0, 0, GAP, 0, GAP), value=1.0)
    sheet = rearrange(padded, "row column h w c -> (row h) (column w) c")
    return sheet[:-GAP, :-GAP]


def save_picture(picture: Tensor, path: Path) -> None:
    """Write ``[H, W, 3]`` in [0, 1] as a PNG file, as a whole or not at all."""
    values = (picture.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    part = path.with_suffix(".part")
    Image.fromarray(values).save(part, format="PNG")
    part.replace(path)
