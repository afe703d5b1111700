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
from typing import Any

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
        return type(self)(
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
        return self.repeating(self.inner(ids), ids)

    def repeating(self, rotations: Tensor, ids: Tensor) -> Tensor:
        """Return rotations that repeat where the picture wraps around, given their ids."""
        layout = self.geometry.layout(ids.shape[1]) if self.geometry is not None else None
        if self.geometry is None or layout is None:
            return rotations
        rows, columns = self.wraps  # a part of the picture has edges within it
        wraps = (self.wrap_height and rows, self.wrap_width and columns)
        if not any(wraps):
            return rotations
        return repeated(rotations, ids, layout, self.axes, wraps, self.geometry.text(layout))


class PeriodicGrid(PeriodicEmbedder):
    """A positional embedder that takes the tokens of a picture, whose places it knows itself."""

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Embed the positions of a picture, as rotations ``[L, D / 2, 2, 2]``."""
        rotations: Tensor = self.inner(*args, **kwargs)
        grid = self.geometry
        if grid is None or rotations.shape[0] != grid.height * grid.width:
            return rotations
        ids = torch.zeros(1, grid.height, grid.width, max(self.axes) + 1, device=rotations.device)
        ids[..., self.axes[0]] = torch.arange(grid.height, device=ids.device).float()[:, None]
        ids[..., self.axes[1]] = torch.arange(grid.width, device=ids.device).float()
        return self.repeating(rotations, ids.flatten(1, 2))


def repeated(
    rotations: Tensor,
    ids: Tensor,
    layout: TokenLayout,
    axes: tuple[int, int],
    wraps: tuple[bool, bool],
    text: slice,
) -> Tensor:
    """Return rotations that repeat after one turn around a wrapped axis.

    Args:
        rotations: ``[B, 1, L, D / 2, 2, 2]``, of all tokens, or with its axes of 1 elsewhere.
        ids: ``[B, L, axes]``, what they were made from. Where they do not hold the grid, as those
            of a text that is as long, rotations stay as they are.
        layout: Where the grid lies among the tokens.
        axes: Of the ids that count rows and columns.
        wraps: Whether the last row lies beside the first one, and the last column likewise.
        text: Where text lies, which is not turned.
    """
    flat = rotations.reshape(*ids.shape[:2], *rotations.shape[-3:])
    turns = torch.zeros((), device=ids.device)
    lengths, steps = (layout.height, layout.width), (layout.width, 1)
    for axis, wrapped, length, step in zip(axes, wraps, lengths, steps, strict=True):
        if wrapped and length > 1:
            turns = turns + _turns(flat, ids, layout, axis, length, step, text)
    turns = turns * _holds_grid(ids, layout, axes)[:, None, None]
    return _turned(flat, turns).reshape(rotations.shape)


def _holds_grid(ids: Tensor, layout: TokenLayout, axes: tuple[int, int]) -> Tensor:
    """Return whether ids count rows and columns where the grid should lie, ``[B]``."""
    grid = ids[:, layout.image_slice].unflatten(1, (layout.height, layout.width))
    rows, columns = grid[..., axes[0]], grid[..., axes[1]]
    holds = (rows == rows[:, :, :1]).all(2).all(1) & (columns == columns[:, :1]).all(2).all(1)
    if layout.height > 1:
        holds = holds & (rows[:, 0, 0] != rows[:, 1, 0])
    if layout.width > 1:
        holds = holds & (columns[:, 0, 0] != columns[:, 0, 1])
    return holds


def _turns(
    rotations: Tensor,
    ids: Tensor,
    layout: TokenLayout,
    axis: int,
    length: int,
    step: int,
    text: slice,
) -> Tensor:
    """Return by which angle to turn each pair of each token, ``[B, L, D / 2]``.

    Args:
        rotations: Of all tokens, ``[B, L, D / 2, 2, 2]``.
        ids: Of all tokens.
        layout: Where the grid lies.
        axis: Of the ids.
        length: Of the grid along this axis.
        step: Tokens from one to the next along this axis.
        text: Where text lies.
    """
    first, second, last = (layout.text + place * step for place in (0, 1, length - 1))
    angles = torch.atan2(rotations[..., 1, 0], rotations[..., 0, 0])
    around = angles[:, last] + angles[:, second] - 2 * angles[:, first]
    left_over = around - math.tau * (around / math.tau).round()
    # What lies beside the grid, as reference pictures may, goes on from its edge as it was.
    place = ids[..., axis].to(rotations.dtype) - ids[:, first, axis, None]
    spacing = ids[:, second, axis, None] - ids[:, first, axis, None]
    place = (place / torch.where(spacing == 0, 1, spacing)).clamp(0, length)
    share = (place - (length - 1) / 2) / length
    share[:, text] = 0
    return -share[:, :, None] * left_over[:, None]


def _turned(rotations: Tensor, angles: Tensor) -> Tensor:
    """Return ``[B, L, D / 2, 2, 2]``, turned by ``[B, L, D / 2]``."""
    cosine, sine = angles.cos()[..., None], angles.sin()[..., None]
    left, right = rotations[..., 0], rotations[..., 1]
    turned = torch.stack((left * cosine + right * sine, right * cosine - left * sine), -1)
    return turned.to(rotations.dtype)
