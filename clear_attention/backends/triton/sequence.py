"""Attention and its gradients over a whole sequence: text, the grid, extra tokens."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...window import Window
from . import passes
from .grid import Grid
from .lists import ALIGNED
from .operators import empty_outputs
from .passes import Sides


class SequenceShape(NamedTuple):
    """Where the tokens lie and who sees whom, in numbers that an operator can take.

    Attributes:
        text: Text tokens, before the grid.
        height: Rows of the grid, in tokens.
        width: Columns of the grid, in tokens.
        radius: Of the window, in tokens.
        wrap_height: As the window has it; 0 or 1.
        wrap_width: As the window has it; 0 or 1.
        asked_text: Text tokens among the queries, before the grid: all or none.
        first_row: The first of the grid's rows that are queries.
        rows: How many rows are.
    """

    text: int
    height: int
    width: int
    radius: int
    wrap_height: int
    wrap_width: int
    asked_text: int
    first_row: int
    rows: int

    @property
    def grid(self) -> Grid:
        """The grid with its window: rows of queries visit all rows of keys."""
        window = Window(self.radius, bool(self.wrap_height), bool(self.wrap_width))
        band = range(self.first_row, self.first_row + self.rows)
        return Grid(self.height, self.width, window, own=band, others=range(self.height))

    @property
    def keys(self) -> slice:
        """Positions of the grid among keys and values."""
        return slice(self.text, self.text + self.height * self.width)

    def queries(self, tokens: int) -> tuple[slice, list[slice]]:
        """Return the grid's queries, and those before and behind it, where there are any."""
        stop = self.asked_text + self.rows * self.width
        others = [slice(0, self.asked_text), slice(stop, tokens)]
        return slice(self.asked_text, stop), [rows for rows in others if rows.stop > rows.start]

    def other_keys(self, tokens: int) -> list[slice]:
        """Return the positions of keys before and behind the grid, where there are any."""
        others = [slice(0, self.text), slice(self.keys.stop, tokens)]
        return [rows for rows in others if rows.stop > rows.start]


def attend(
    q: Tensor, k: Tensor, v: Tensor, shared_k: Tensor, shared_v: Tensor, geometry: SequenceShape,
    scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Compute CLEAR attention.

    Args:
        q: ``[B, H, M, D]``: text, rows of the grid, extra tokens; only the rows must be there.
        k: ``[B, H, L, D]``: all of these.
        v: ``[B, H, L, D]``.
        shared_k: ``[B, H, S, D]``, keys that every image query sees.
        shared_v: ``[B, H, S, D]``.
        geometry: Of the tokens.
        scale: Factor on the scores.

    Returns:
        Output ``[B, H, M, D]``, in memory ``[B, M, H, D]``, and log-sum-exp ``[B, H, M]``.
    """
    out, lse = empty_outputs(q)
    image, others = geometry.queries(q.shape[2])
    q, k, v, shared_k, shared_v = map(_aligned, (q, k, v, shared_k, shared_v))
    image_q, image_out = q[:, :, image], out[:, :, image]
    image_k, image_v = k[:, :, geometry.keys], v[:, :, geometry.keys]
    lse[:, :, image] = passes.attend_grid(
        image_q, image_k, image_v, (shared_k, shared_v), geometry.grid, scale, image_out
    )
    for rows in others:
        out[:, :, rows], lse[:, :, rows] = passes.attend_all(q[:, :, rows], k, v, scale)
    return out, lse


def attend_rounded(
    q: Tensor, k: Tensor, v: Tensor, shared_k: Tensor, shared_v: Tensor, geometry: SequenceShape,
    scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Compute what `attend` does with queries and keys rounded to 8 bits.

    Keys are rounded after their mean over the grid is taken off, which changes all scores of a
    query by the same amount, and none of its probabilities. Arguments are those of `attend`.
    """
    out, lse = empty_outputs(q)
    image, others = geometry.queries(q.shape[2])
    q, k, v, shared_k, shared_v = map(_aligned, (q, k, v, shared_k, shared_v))
    mean = k[:, :, geometry.keys].mean(2, dtype=torch.float32)
    image_q = passes.round_rows(q[:, :, image], torch.zeros_like(mean))
    image_k = passes.round_rows(k[:, :, geometry.keys], mean)
    shared = passes.round_rows(shared_k, mean)
    lse[:, :, image] = passes.attend_grid(
        image_q.rows,
        image_k.rows,
        v[:, :, geometry.keys],
        (shared.rows, shared_v),
        geometry.grid,
        scale,
        out[:, :, image],
        (image_q.steps, image_k.steps, shared.steps),
    )
    if others:
        every_k = passes.round_rows(k, mean)
        for rows in others:
            own = passes.round_rows(q[:, :, rows], torch.zeros_like(mean))
            steps = (own.steps, every_k.steps)
            part = passes.attend_all(own.rows, every_k.rows, v, scale, steps)
            out[:, :, rows], lse[:, :, rows] = part
    # Not a matrix product, which autocast would round.
    lse += scale * (q.float() * mean.unsqueeze(2)).sum(-1)
    return out, lse


def gradients(
    grad: Tensor, out: Tensor, lse: Tensor,
    q: Tensor, k: Tensor, v: Tensor, shared_k: Tensor, shared_v: Tensor, geometry: SequenceShape,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Compute the gradients of q, k, v and of the shared keys and values.

    Args:
        grad: ``[B, H, M, D]``, of the output.
        out: As `attend` returned it; lse likewise.
        lse: ``[B, H, M]``.
        q: ``[B, H, M, D]``, as in `attend`; so are all the others.
        k: ``[B, H, L, D]``.
        v: ``[B, H, L, D]``.
        shared_k: ``[B, H, S, D]``.
        shared_v: ``[B, H, S, D]``.
        geometry: Of the tokens.
        scale: Factor on the scores.
    """
    image, others = geometry.queries(q.shape[2])
    delta = (grad.float() * out.float()).sum(-1)
    grad, q, k, v, shared_k, shared_v = map(_aligned, (grad, q, k, v, shared_k, shared_v))
    all_sides = Sides(q, grad, lse, delta)

    def rows_of(rows: slice) -> Sides:
        q, grad, lse, delta = (x[:, :, rows] for x in all_sides)
        return Sides(q, grad, lse.contiguous(), delta.contiguous())

    grid_sides = rows_of(image)
    # Text and extra queries as one contiguous side: every key of the grid sees them first.
    seers = Sides(
        *(torch.cat([x[:, :, :0], *(x[:, :, rows] for rows in others)], 2) for x in all_sides)
    )
    q_grad, k_grad, v_grad = (torch.empty_like(x) for x in (q, k, v))
    keys = geometry.keys
    image_k, image_v = k[:, :, keys], v[:, :, keys]
    q_grad[:, :, image] = passes.query_gradients_grid(
        grid_sides, image_k, image_v, (shared_k, shared_v), geometry.grid, scale
    )
    k_grad[:, :, keys], v_grad[:, :, keys] = passes.key_gradients_grid(
        image_k, image_v, grid_sides, seers, geometry.grid, scale
    )
    for rows in others:
        q_grad[:, :, rows] = passes.query_gradients_all(rows_of(rows), k, v, scale)
    for rows in geometry.other_keys(k.shape[2]):
        if not others:  # as shared keys, what image queries give them is counted below
            k_grad[:, :, rows], v_grad[:, :, rows] = 0, 0
            continue
        k_grad[:, :, rows], v_grad[:, :, rows] = passes.key_gradients_all(
            k[:, :, rows], v[:, :, rows], seers, scale
        )
    shared = torch.zeros_like(shared_k), torch.zeros_like(shared_v)
    if shared_k.shape[2]:
        for target, found in zip(
            shared, passes.key_gradients_all(shared_k, shared_v, grid_sides, scale), strict=True
        ):
            target.copy_(found)
    return q_grad, k_grad, v_grad, *shared


def _aligned(x: Tensor) -> Tensor:
    """Return the tensor with strides and an address that the kernels can read from."""
    strided = x.stride(-1) == 1 and not any(stride % ALIGNED for stride in x.stride()[:-1])
    near = x.stride(2) // ALIGNED * x.shape[2] < 2**31
    return x if strided and near and x.data_ptr() % 16 == 0 else x.contiguous()
