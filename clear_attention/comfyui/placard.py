"""A sentence as a picture, where a picture was asked for and cannot be made."""

from __future__ import annotations

import torch
from PIL import Image, ImageDraw
from torch import Tensor


def placard(text: str) -> Tensor:
    """Return ``[height_px, width_px, 3]``: black on white, one line per sentence."""
    image = Image.new("RGB", (620, 60), "white")
    ImageDraw.Draw(image).multiline_text((12, 12), text.replace(". ", ".\n"), fill="black")
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return pixels.reshape(image.height, image.width, 3).float() / 255
