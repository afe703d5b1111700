"""Rotary positions that repeat: after one turn around a wrapped axis they are the same again.

A rotary embedding turns each pair of numbers of a query or key by an angle per token. After the n
tokens of an axis, what is left over of whole turns is a seam. Spread evenly over the axis and taken
away, it makes each frequency the nearest one that fits: the nearest multiple of 2 pi / n. Slow
frequencies become 0. The middle of the axis keeps its position towards the text, so that no token
is turned further from where it was than by a quarter.

All of it is read off the embedder's own output, whatever its base, scale or steps.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ...layout import TokenLayout
from ..core.exact_positions import ExactEmbedder


class PeriodicEmbedder(ExactEmbedder):
    """A positional embedder around another one; without a geometry it gives the other's output.

    Attributes:
        wrap_height: Whether the last row lies beside the first one.
        wrap_width: Whether the last column lies beside the first one.
    """

    def __init__(
        self, inner: nn.Module, axes: tuple[int, int], *, wrap_height: bool, wrap_width: bool
    ) -> None:
        super().__init__(inner, axes)
        self.wrap_height = wrap_height
        self.wrap_width = wrap_width

    def around(self, inner: nn.Module) -> PeriodicEmbedder:
        """Return the same around another embedder."""
        return PeriodicEmbedder(
            inner, self.axes, wrap_height=self.wrap_height, wrap_width=self.wrap_width
        )

    def forward(self, ids: Tensor) -> Tensor:
        """Embed positions.

        Args:
            ids: ``[B, L, axes]``.

        Returns:
            Rotations ``[B, 1, L, D / 2, 2, 2]``.
        """
        ids = self.exact(ids)
        rotations: Tensor = self.inner(ids)
        layout = self.geometry.layout(ids.shape[1]) if self.geometry is not None else None
        if layout is None:
            return rotations
        rows, columns = self.wraps  # a part of the picture has edges within it
        wraps = (self.wrap_height and rows, self.wrap_width and columns)
        return repeated(rotations, ids, layout, self.axes, wraps) if any(wraps) else rotations


def repeated(
    rotations: Tensor,
    ids: Tensor,
    layout: TokenLayout,
    axes: tuple[int, int],
    wraps: tuple[bool, bool],
) -> Tensor:
    """Return rotations that repeat after one turn around a wrapped axis.

    Args:
        rotations: ``[B, 1, L, D / 2, 2, 2]``, of all tokens.
        ids: ``[B, L, axes]``, what they were made from.
        layout: Where the grid lies among the tokens.
        axes: Of the ids that count rows and columns.
        wraps: Whether the last row lies beside the first one, and the last column likewise.
    """
    turns = torch.zeros((), device=ids.device)
    lengths, steps = (layout.height, layout.width), (layout.width, 1)
    for axis, wrapped, length, step in zip(axes, wraps, lengths, steps, strict=True):
        if wrapped and length > 1:
            turns = turns + _turns(rotations, ids, layout, axis, length, step)
    return _turned(rotations, turns)


def _turns(
    rotations: Tensor, ids: Tensor, layout: TokenLayout, axis: int, length: int, step: int
) -> Tensor:
    """Return by which angle to turn each pair of each token, ``[B, 1, L, D / 2]``.

    Args:
        rotations: Of all tokens.
        ids: Of all tokens.
        layout: Where the grid lies.
        axis: Of the ids.
        length: Of the grid along this axis.
        step: Tokens from one to the next along this axis.
    """
    first, second, last = (layout.text + place * step for place in (0, 1, length - 1))
    angles = torch.atan2(rotations[..., 1, 0], rotations[..., 0, 0])
    around = angles[:, :, last] + angles[:, :, second] - 2 * angles[:, :, first]
    left_over = around - math.tau * (around / math.tau).round()
    # What lies beside the grid, as reference pictures may, goes on from its edge as it was.
    place = ids[..., axis].to(rotations.dtype) - ids[:, first, axis, None]
    spacing = ids[:, second, axis, None] - ids[:, first, axis, None]
    place = (place / torch.where(spacing == 0, 1, spacing)).clamp(0, length)
    share = (place - (length - 1) / 2) / length
    share[:, layout.text_slice] = 0
    return -share[:, None, :, None] * left_over[:, :, None]


def _turned(rotations: Tensor, angles: Tensor) -> Tensor:
    """Return ``[B, 1, L, D / 2, 2, 2]``, turned by ``[B, 1, L, D / 2]``."""
    cosine, sine = angles.cos()[..., None], angles.sin()[..., None]
    left, right = rotations[..., 0], rotations[..., 1]
    turned = torch.stack((left * cosine + right * sine, right * cosine - left * sine), -1)
    return turned.to(rotations.dtype)
