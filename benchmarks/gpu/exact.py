"""The exact result of some queries, at any size, and how far a result is from it.

Letters: H heads, L tokens, D head_dim, N keys (the pooled ones last), M chosen queries.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from clear_attention import Pooling, TokenLayout, Window
from clear_attention.pairs import all_pairs, visible_pairs

# Up to so many tokens every query is checked; the float64 scores of one head are 0.3 GB then.
ALL_QUERIES = 6000
SOME_QUERIES = 256


class Sees(Enum):
    """Which question a contestant answers."""

    CLEAR = "the disc, all text, the pooled tokens"
    FULL = "everything"
    SQUARE = "a square of 2 r - 1 tokens, moved inwards at the border, and all text"


@dataclass(frozen=True)
class Case:
    """One attention layer on a square grid.

    Attributes:
        grid: Edge of the grid, in tokens.
        text: Number of text tokens.
        radius: Of the window, in tokens.
        factor: Edge of a pooled cell, 0 for no pooling.
    """

    grid: int
    text: int
    radius: int
    factor: int = 0

    @property
    def layout(self) -> TokenLayout:
        """Where the tokens lie."""
        return TokenLayout(self.text, self.grid, self.grid)

    @property
    def window(self) -> Window:
        """The disc."""
        return Window(self.radius)

    @property
    def pooling(self) -> Pooling | None:
        """The pooled branch, by the mean."""
        return Pooling(self.factor) if self.factor else None

    def pairs(self, sees: Sees) -> int:
        """Count the query-key pairs that the answer needs."""
        if sees is Sees.FULL:
            return all_pairs(self.layout)
        if sees is Sees.SQUARE:
            edge = min(self.grid, 2 * self.radius - 1)
            return self.layout.image * (self.text + edge**2)
        return visible_pairs(self.layout, self.window, self.pooling)


def chosen_queries(layout: TokenLayout, device: torch.device) -> Tensor:
    """Return the positions of the queries to check: all of them, or corners and a random sample."""
    if layout.tokens <= ALL_QUERIES:
        return torch.arange(layout.tokens, device=device)
    generator = torch.Generator().manual_seed(0)
    text = torch.randperm(layout.text, generator=generator)[: SOME_QUERIES // 8]
    image = torch.randperm(layout.image, generator=generator)[: SOME_QUERIES - len(text)]
    corners = [0, layout.width - 1, layout.image - layout.width, layout.image - 1]
    image[: len(corners)] = torch.tensor(corners)
    return torch.cat((text, layout.text + image)).to(device)


def exact_rows(q: Tensor, k: Tensor, v: Tensor, case: Case, sees: Sees, queries: Tensor) -> Tensor:
    """Compute some queries in float64, head by head, from the given (rounded) tensors.

    Args:
        q: ``[1, H, L, D]``.
        k: ``[1, H, L, D]``.
        v: ``[1, H, L, D]``.
        case: The layer.
        sees: The question.
        queries: ``[M]``, positions in L.

    Returns:
        ``[H, M, D]`` in float64.
    """
    pooling = case.pooling if sees is Sees.CLEAR else None
    hidden = ~visible_rows(case, sees, queries)
    heads: list[Tensor] = []
    for head in range(q.shape[1]):
        keys, values = (_with_pooled(x[:, head : head + 1], case, pooling) for x in (k, v))
        scores_MN = q[0, head, queries].double() @ keys.T / math.sqrt(q.shape[-1])
        heads.append(torch.softmax(scores_MN.masked_fill_(hidden, -torch.inf), -1) @ values)
    return torch.stack(heads)


def visible_rows(case: Case, sees: Sees, queries: Tensor) -> Tensor:
    """Return what some queries see, ``[M, N]``."""
    layout = case.layout
    cells = case.pooling.cells(case.grid, case.grid) if case.pooling and sees is Sees.CLEAR else 0
    visible = torch.ones(
        len(queries), layout.tokens + cells, dtype=torch.bool, device=queries.device
    )
    is_image = queries >= layout.text
    if sees is Sees.FULL:
        return visible
    visible[~is_image, layout.tokens :] = False
    key = torch.arange(layout.image, device=queries.device)
    query = (queries[is_image] - layout.text)[:, None]
    y, x = query // case.grid, query % case.grid
    if sees is Sees.SQUARE:
        y, x = (_moved_inwards(axis, case) for axis in (y, x))
    dy, dx = y - key // case.grid, x - key % case.grid
    if sees is Sees.SQUARE:
        near = (dy.abs() < case.radius) & (dx.abs() < case.radius)
    else:
        near = case.window.sees(dy, dx)
    visible[is_image, layout.text : layout.tokens] = near
    return visible


def worst_error(rows: Tensor, exact: Tensor) -> float:
    """Return the largest relative error of a query, over all heads together.

    Args:
        rows: ``[H, M, D]``, the result to judge.
        exact: ``[H, M, D]``.
    """
    off = (rows.double() - exact).square().sum((0, 2)) / exact.square().sum((0, 2))
    return math.sqrt(torch.nan_to_num(off, nan=torch.inf).max().item())


def largest_error(dtype: torch.dtype) -> float:
    """Return the relative error above which a result is wrong.

    Rounding the probabilities, the output and a merged part gives about half of a unit of the last
    place each, at random: together less than one. In float32 the sums weigh more than that.
    """
    return max(torch.finfo(dtype).eps, 1e-5)


def _with_pooled(tokens: Tensor, case: Case, pooling: Pooling | None) -> Tensor:
    """Return one head's keys or values ``[N, D]`` in float64 from ``[1, 1, L, D]``."""
    tokens = tokens.double()
    if pooling is None:
        return tokens[0, 0]
    cells = pooling.pool(tokens[:, :, case.layout.image_slice], case.grid, case.grid)
    return torch.cat((tokens, cells), 2)[0, 0]


def _moved_inwards(axis: Tensor, case: Case) -> Tensor:
    """Return the centre of the square, so far from the border that it fits."""
    reach = case.window.reach
    if 2 * reach >= case.grid:
        return torch.full_like(axis, case.grid // 2)
    return axis.clamp(reach, case.grid - 1 - reach)
