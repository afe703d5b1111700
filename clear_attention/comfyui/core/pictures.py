"""Pictures that nodes give and runs save: contact sheets, figures, messages as images."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from einops import rearrange
from PIL import Image, ImageDraw
from torch import Tensor

from ...atomic_files import written_whole

logger = logging.getLogger(__name__)

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
    with written_whole(path) as part:
        Image.fromarray(values).save(part, format="PNG")


def figure_or_message(draw: Callable[[], Tensor]) -> Tensor:
    """Return ``[height_px, width_px, 3]``: the figure, or an image of what to install for it.

    Args:
        draw: Makes the figure; raises ModuleNotFoundError where matplotlib is missing.
    """
    try:
        return draw()
    except ModuleNotFoundError as error:
        logger.warning("CLEAR: %s", error)
        return message_picture(str(error))


def message_picture(text: str) -> Tensor:
    """Render a message as an image, for outputs that must be an image.

    Returns:
        ``[height_px, width_px, 3]`` in [0, 1]: black on white, one line per sentence.
    """
    image = Image.new("RGB", (620, 60), "white")
    ImageDraw.Draw(image).multiline_text((12, 12), text.replace(". ", ".\n"), fill="black")
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return pixels.reshape(image.height, image.width, 3).float() / 255
