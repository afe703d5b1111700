"""The window preview as a node gives it: what is asked for, checked, and the drawing."""

from __future__ import annotations

import comfy.model_management
import torch
from torch import Tensor

from ...backends import Call, choose
from ...backends.strips import tile_size
from ...families import DEFAULT
from ...layout import TokenLayout
from ...locality.window_preview import Preview, blank, draw, token_at
from ...pooling import Pooling
from ...window import Window
from ..core.settings import DIRECTIONS

TOKEN_PX = DEFAULT.token_px
NOWHERE = "none"


def preview_window(
    image: Tensor | None,
    size_px: tuple[int, int],
    *,
    radius: int,
    pool_factor: int,
    x: float,
    y: float,
    wraps: str = NOWHERE,
    token_px: int = TOKEN_PX,
) -> tuple[Tensor, str]:
    """Draw the window of a token over a picture.

    Args:
        image: The host's IMAGE, ``[B, height_px, width_px, 3 or 4]``, or None for an empty one.
        size_px: Height and width where there is no image.
        radius: Of the window, in tokens.
        pool_factor: Edge of a pooled cell in tokens, 0 or 1 without pooling.
        x: Share of the picture's width at which the token lies, 0 to 1.
        y: Share of its height.
        wraps: Where the picture goes on at its other edge: "none", or one of `DIRECTIONS`.
        token_px: Edge of a token in pixels.

    Returns:
        ``[B, height_px, width_px, 3]``, and the numbers as text.

    Raises:
        ValueError: Something that cannot be drawn was given; the message says what.
    """
    _check(image, size_px, pool_factor, x, y)
    if token_px < 1:
        raise ValueError(f"token_px must be at least 1, got {token_px}. Most models have 16.")
    picture = blank(*size_px, token_px) if image is None else _three_channels(image)
    height_px, width_px = picture.shape[1:3]
    window = Window(radius, *((False, False) if wraps == NOWHERE else DIRECTIONS[wraps]))
    preview = Preview(
        height_px,
        width_px,
        window,
        at=(token_at(y, height_px, token_px), token_at(x, width_px, token_px)),
        tile=tile_of(window, (-(-height_px // token_px), -(-width_px // token_px)), pool_factor),
        pool_factor=pool_factor,
        token_px=token_px,
    )
    return draw(preview, picture), preview.describe()


def tile_of(window: Window, grid: tuple[int, int], pool_factor: int = 0) -> tuple[int, int]:
    """Return the tile of the backend that "auto" takes for FLUX on this machine.

    Args:
        window: The disc.
        grid: Rows and columns of tokens.
        pool_factor: Edge of a pooled cell in tokens, 0 or 1 without pooling.
    """
    device = comfy.model_management.get_torch_device()
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    layout = TokenLayout(0, *grid)
    pooling = Pooling(pool_factor) if pool_factor > 1 else None
    call = Call(layout, window, pooling, scale=1.0)
    q = torch.empty(1, device=device, dtype=dtype).expand(1, 1, layout.tokens, DEFAULT.head_dim)
    tile = choose(q, call).footprint(q, call).tile
    return tile or tile_size(window, device)  # small pictures are computed without tiles


def _check(
    image: Tensor | None, size_px: tuple[int, int], pool_factor: int, x: float, y: float
) -> None:
    if image is not None and (image.ndim != 4 or image.shape[-1] not in (1, 3, 4)):
        raise ValueError(
            "image must be [batch, height, width, channels] with 1, 3 or 4 channels, got "
            f"{list(image.shape)}."
        )
    if image is not None and not image.numel():
        raise ValueError(f"image must have pixels, got {list(image.shape)}.")
    if image is None and min(size_px) < 1:
        raise ValueError(
            f"width and height must be at least 1 pixel, got {size_px[1]} x {size_px[0]}."
        )
    if pool_factor < 0:
        raise ValueError(f"pool_factor must be 0 or more, got {pool_factor}.")
    for name, share in (("x", x), ("y", y)):
        if not 0 <= share <= 1:
            raise ValueError(f"{name} must be a share of the picture from 0 to 1, got {share}.")


def _three_channels(image: Tensor) -> Tensor:
    return image.cpu().expand(-1, -1, -1, 3) if image.shape[-1] == 1 else image[..., :3].cpu()
