"""What tiles leave in a picture: seams along their borders, and repeats from tile to tile.

Both are taken of what a method changed, its picture less the enlarged one that it began with, so
that lines and repeats of the subject itself do not count.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

BLOCK_PX = 16
"""Changes are compared as means over squares of so many pixels, which fine texture leaves alone."""
FEATHER = 2
"""Squares beside a border that its soft edge may reach."""


def seams(change: Tensor, tile: int) -> float:
    """Return how much larger steps of tone are across borders of tiles than elsewhere; 1 is none.

    Args:
        change: ``[H, H, 3]``.
        tile: Edge of a tile in pixels, a multiple of `BLOCK_PX`.
    """
    tone = functional.avg_pool2d(change.mean(-1)[None, None], BLOCK_PX)[0, 0]
    every = tile // BLOCK_PX
    across: list[Tensor] = []
    elsewhere: list[Tensor] = []
    for one in (tone, tone.T):
        # Row n: the step from the square before the soft edge at n to the square behind it.
        steps = (one[2 * FEATHER :] - one[: -2 * FEATHER]).abs().mean(1)
        at = torch.arange(len(steps)) + FEATHER
        nearest = torch.minimum(at % every, every - at % every)
        across.append(steps[nearest == 0])
        elsewhere.append(steps[nearest >= 2 * FEATHER])
    return float(torch.cat(across).mean() / torch.cat(elsewhere).mean())


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
