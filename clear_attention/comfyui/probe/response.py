"""How a model responds to changes of its attentions' output: one more sampling step, with changes.

What lies behind an attention differs between architectures: its projection, norms, gates, MLPs, all
further blocks. A second step from the same noise measures all of it at once: each block's attention
is changed for some tokens of its own, and what becomes of the velocity at these tokens is the
block's response. What tokens without a change see of the others' is taken off.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ...families.names import Block

ENLARGED = 0.5
"""Length of a change as a share of the output's: far above the rounding of bfloat16."""


@dataclass(frozen=True, eq=False)
class Change:
    """A change of a block's attention, at some image tokens.

    Attributes:
        grid: Rows and columns of the picture that the attention sees.
        tokens: ``[M]``, which of the image tokens.
        first: Row of the first image token in the attention's output.
        values: ``[B, M, H D]``; what was applied, once it is.
    """

    grid: tuple[int, int]
    tokens: Tensor
    first: int
    values: Tensor

    def applied(self, out_BLC: Tensor) -> tuple[Tensor, Change]:
        """Return an attention's output with the change, and the change as it came out.

        It is enlarged to `ENLARGED` of the output of each token; tokens without a change stay.
        """
        rows = (self.tokens + self.first).to(out_BLC.device)
        before = out_BLC[:, rows].float()
        length = self.values.float().norm(dim=-1, keepdim=True)
        wanted = ENLARGED * before.norm(dim=-1, keepdim=True)
        factor = torch.where(length > 0, wanted / length, 0.0)
        changed = out_BLC.clone()
        changed[:, rows] = (before + factor * self.values).to(changed.dtype)
        values = changed[:, rows].float() - before
        return changed, Change(self.grid, self.tokens, self.first, values)


def tokens_of_block(tokens: Tensor, image: int, number: int, blocks: int) -> Tensor:
    """Return the places in `tokens` at which a block is changed: no block shares one with another.

    Half of the image's tokens at least stay as they are.

    Args:
        tokens: ``[M]``, the image tokens that were measured.
        image: Number of all image tokens.
        number: Of the block.
        blocks: Number of all blocks.
    """
    groups = blocks if 2 * len(tokens) <= image else 2 * blocks
    return torch.arange(len(tokens))[number::groups]


def gains_of(changes: Mapping[Block, Change], squares: Tensor) -> dict[Block, float]:
    """Return each block's squared change of the velocity per squared change of its attention.

    Blocks whose attention does not see the whole picture, or that had no token, have none.

    Args:
        changes: That were applied.
        squares: ``[rows, columns]``, squared change of the velocity at each token, a mean over its
            values and added up over the batch.
    """
    whole = {block: one for block, one in changes.items() if one.grid == tuple(squares.shape)}
    rest = torch.ones(squares.numel(), dtype=torch.bool)
    for change in whole.values():
        rest[change.tokens] = False
    seen = squares.flatten()
    others = float(seen[rest].mean()) if rest.any() else 0.0
    gains: dict[Block, float] = {}
    for block, change in whole.items():
        applied = float(change.values.square().sum())
        response = float((seen[change.tokens] - others).sum())
        if applied and math.isfinite(response):  # the change may be too much for a dtype
            gains[block] = response / applied
    # Below what others make of it is noise, not a block whose errors cost nothing.
    least = min((gain for gain in gains.values() if gain > 0), default=None)
    return {} if least is None else {block: max(gain, least) for block, gain in gains.items()}


def squares_by_token(before: Tensor, after: Tensor, patch: int) -> Tensor:
    """Return the squared difference of two latents at each token, ``[rows, columns]``.

    Args:
        before: ``[B, C, height, width]`` or ``[B, C, frames, height, width]``.
        after: Likewise.
        patch: Edge of a token in latent pixels; the last ones may stick out of the latent.
    """
    height, width = before.shape[-2:]
    squares = (before.float() - after.float()).square().cpu()
    squares = squares.reshape(before.shape[0], -1, height, width).mean(1).sum(0)
    rows, columns = torch.arange(height) // patch, torch.arange(width) // patch
    grid = (int(rows[-1]) + 1, int(columns[-1]) + 1)
    index = (rows[:, None] * grid[1] + columns).flatten()
    summed = torch.zeros(grid[0] * grid[1]).index_add_(0, index, squares.flatten())
    return (summed / index.bincount()).reshape(grid)
