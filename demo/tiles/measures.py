"""What tiles leave in a picture, and how far a picture is from the true one.

Seams along borders of tiles, and repeats from tile to tile, are taken of what a method changed, its
picture less the enlarged one that it began with, so that lines and repeats of the subject itself do
not count.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

BLOCK_PX = 8
"""Half the width of the strips that are compared; borders of tiles lie on its multiples."""
BESIDE = 3
"""Blocks from a strip to those that it is compared with: beyond the soft border of a tile."""
SHRUNK = 4
"""The low band is what a picture of 512 pixels shows of one of 2048."""
CELL_PX = 32
"""Edge of the squares in which the amount of detail is compared."""


def seams(change: Tensor, tile: int) -> float:
    """Return how much stronger lines are along borders of tiles than elsewhere; 1 is none.

    A line is what a strip differs by from those beside it, as a mean along an edge of a tile:
    texture is left out by the mean, and a step or a groove is not.

    Args:
        change: ``[H, H, 3]``.
        tile: Edge of a tile in pixels, a multiple of `BLOCK_PX`.
    """
    whole = len(change) // tile * tile
    tone, every = change.mean(-1)[:whole, :whole], tile // BLOCK_PX
    at_borders: list[Tensor] = []
    elsewhere: list[Tensor] = []
    for one in (tone, tone.T):
        strips = functional.avg_pool2d(one[None], (tile, BLOCK_PX))[0]
        strips = (strips[:, 1:] + strips[:, :-1]) / 2  # the n-th has block n + 1 on its right
        lines = [
            (strips[:, BESIDE:-BESIDE] - other).abs()
            for other in (strips[:, : -2 * BESIDE], strips[:, 2 * BESIDE :])
        ]
        at = torch.arange(lines[0].shape[1]) + BESIDE + 1
        distance = torch.minimum(at % every, every - at % every)
        strength = (lines[0] + lines[1]) / 2
        at_borders.append(strength[:, distance == 0].flatten())
        elsewhere.append(strength[:, distance > 2 * BESIDE].flatten())
    return float(torch.cat(at_borders).mean() / torch.cat(elsewhere).mean())


def repeats(change: Tensor, tile: int) -> float:
    """Return the correlation of a change with itself one tile further; 0 is none, 1 a copy.

    Args:
        change: ``[H, H, 3]``.
        tile: Edge of a tile in pixels, less than a third of H.
    """
    fine = change.mean(-1)
    fine = fine - functional.avg_pool2d(fine[None, None], 9, 1, 4, count_include_pad=False)[0, 0]
    end = (len(fine) - 1) // tile * tile  # tiles at the edges are of another size
    inside = fine[tile:end, tile:end]
    pairs = [(inside[tile:], inside[:-tile]), (inside[:, tile:], inside[:, :-tile])]
    return (
        sum(float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]) for a, b in pairs)
        / 2
    )


def low_distance(picture: Tensor, truth: Tensor) -> float:
    """Return the root mean square difference of what a quarter of the size shows.

    Args:
        picture: ``[H, W, 3]`` in [0, 1].
        truth: The same.
    """
    difference = low_band(picture) - low_band(truth)
    return float(difference.square().mean().sqrt())


def high_distance(picture: Tensor, truth: Tensor) -> float:
    """Return how far the amount of fine detail is from the truth's; 0 is as much everywhere.

    Detail that is painted cannot lie where it truly was, so its strength is compared: the root
    mean square of the high band in cells of `CELL_PX`, as a difference relative to the truth's.

    Args:
        picture: ``[H, W, 3]`` in [0, 1].
        truth: The same.
    """
    strengths = [_strength(one) for one in (picture, truth)]
    return float((strengths[0] - strengths[1]).norm() / strengths[1].norm())


def low_band(picture: Tensor) -> Tensor:
    """Shrink a picture to a quarter: ``[3, H // 4, W // 4]``."""
    return functional.avg_pool2d(picture.movedim(-1, 0), SHRUNK)


def _strength(picture: Tensor) -> Tensor:
    low = functional.interpolate(
        low_band(picture)[None], scale_factor=SHRUNK, mode="bicubic", align_corners=False
    )[0]
    high = picture.movedim(-1, 0)[:, : low.shape[1], : low.shape[2]] - low
    return functional.avg_pool2d(high.square(), CELL_PX).mean(0).sqrt()
