"""Attention and its gradients, in launches: over the grid, and where everyone sees everyone."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...partial import Part
from .configs import Config
from .grid import Grid
from .launch import Work, splits_for, start, start_rounding, stepping_down


class Rounded(NamedTuple):
    """Rows of 8-bit integers.

    Attributes:
        rows: ``[B, H, M, D]``, int8, contiguous.
        steps: ``[B, H, M]``, float32: what a one in a row stands for.
    """

    rows: Tensor
    steps: Tensor


class Sides(NamedTuple):
    """What a backward pass knows of some queries.

    Attributes:
        q: ``[B, H, M, D]``.
        grad: ``[B, H, M, D]``, gradient of their output.
        lse: ``[B, H, M]``, float32, contiguous.
        delta: ``[B, H, M]``, float32, contiguous: sum of grad * output over D.
    """

    q: Tensor
    grad: Tensor
    lse: Tensor
    delta: Tensor


def attend_grid(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    shared: tuple[Tensor, Tensor],
    grid: Grid,
    scale: float,
    out: Tensor,
    steps: tuple[Tensor, Tensor, Tensor] | None = None,
) -> Tensor:
    """Attend from rows of a grid to their windows and to the shared keys.

    Args:
        q: ``[B, H, rows*width, D]``, the grid's own rows.
        k: ``[B, H, height*width, D]``.
        v: ``[B, H, height*width, D]``.
        shared: Keys and values ``[B, H, S, D]`` that every query sees; S may be 0.
        grid: The grid; its own rows are queries.
        scale: Factor on the scores.
        out: ``[B, H, rows*width, D]``, written.
        steps: Those of q, k and the shared keys, where they are rounded.

    Returns:
        Log-sum-exp ``[B, H, rows*width]``, float32.
    """
    lse = torch.empty(q.shape[:3], dtype=torch.float32, device=q.device)
    tensors = dict(q=q, k=k, v=v, shared_k=shared[0], shared_v=shared[1], out=out)
    numbers = dict(lse=lse) | _steps(steps, lse)
    count, rounded = shared[0].shape[2], steps is not None
    _on_grid(Work("forward", q, tensors, numbers, count, scale, grid, rounded))
    return lse


def attend_all(
    q: Tensor, k: Tensor, v: Tensor, scale: float, steps: tuple[Tensor, Tensor] | None = None
) -> Part:
    """Attend from queries ``[B, H, M, D]`` to all keys ``[B, H, N, D]``, in splits of the keys.

    The output is float32. Rounded queries and keys come with their steps.
    """

    def run(config: Config) -> Part:
        splits = splits_for(config, q, k.shape[2])
        outs, lses = _parts(splits, q), _parts(splits, q[..., 0])
        tensors = dict(q=q, k=k, v=v, shared_k=k, shared_v=v, out=outs.flatten(0, 1))
        numbers = dict(lse=lses) | _steps((steps[0], steps[1], steps[1]) if steps else None, lses)
        rounded = steps is not None
        work = Work("forward", q, tensors, numbers, k.shape[2], scale, rounded=rounded)
        start(config, work, splits)
        if splits == 1:
            return Part(outs[0], lses[0])
        lse = lses.logsumexp(0)
        return Part((outs * (lses - lse).exp().unsqueeze(-1)).sum(0), lse)

    return stepping_down("forward", q, False, run)


def round_rows(x: Tensor, mean: Tensor) -> Rounded:
    """Round rows ``[B, H, M, D]``, less a mean ``[B, H, D]`` in float32, to 8 bits."""
    rows = torch.empty(x.shape, dtype=torch.int8, device=x.device)
    steps = torch.empty(x.shape[:3], dtype=torch.float32, device=x.device)
    if x.shape[2]:
        start_rounding(x, mean, rows, steps)
    return Rounded(rows, steps)


def query_gradients_grid(
    sides: Sides,
    k: Tensor,
    v: Tensor,
    shared: tuple[Tensor, Tensor],
    grid: Grid,
    scale: float,
) -> Tensor:
    """Return the gradient of a grid's queries, ``[B, H, rows*width, D]``.

    Args:
        sides: Of the queries.
        k: ``[B, H, height*width, D]``.
        v: ``[B, H, height*width, D]``.
        shared: Keys and values as in `attend_grid`.
        grid: The grid; its own rows are queries.
        scale: Factor on the scores.
    """
    out = torch.empty(sides.q.shape, dtype=sides.q.dtype, device=sides.q.device)
    tensors = dict(
        q=sides.q, k=k, v=v, shared_k=shared[0], shared_v=shared[1], grad=sides.grad, out=out
    )
    numbers = dict(lse=sides.lse, delta=sides.delta)
    count = shared[0].shape[2]
    _on_grid(Work("backward_queries", sides.q, tensors, numbers, count, scale, grid))
    return out


def query_gradients_all(sides: Sides, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Return the gradient of queries that see all keys, ``[B, H, M, D]`` in float32."""

    def run(config: Config) -> Tensor:
        splits = splits_for(config, sides.q, k.shape[2])
        outs = _parts(splits, sides.q)
        tensors = dict(
            q=sides.q, k=k, v=v, shared_k=k, shared_v=v, grad=sides.grad, out=outs.flatten(0, 1)
        )
        numbers = dict(lse=sides.lse, delta=sides.delta)
        work = Work("backward_queries", sides.q, tensors, numbers, k.shape[2], scale)
        start(config, work, splits)
        return outs.sum(0)

    return stepping_down("backward_queries", sides.q, False, run)


def key_gradients_grid(
    k: Tensor, v: Tensor, sides: Sides, shared: Sides, grid: Grid, scale: float
) -> tuple[Tensor, Tensor]:
    """Return the gradients of a grid's keys and values, ``[B, H, height*width, D]`` each.

    Args:
        k: ``[B, H, height*width, D]``.
        v: ``[B, H, height*width, D]``.
        sides: The grid's queries.
        shared: Queries that see every key; there may be none.
        grid: The grid; its own rows are queries.
        scale: Factor on the scores.
    """
    k_out, v_out = (torch.empty(k.shape, dtype=k.dtype, device=k.device) for _ in range(2))
    sides = sides._replace(
        lse=_spread(sides.lse, k.shape[2]), delta=_spread(sides.delta, k.shape[2])
    )
    tensors, numbers = _of_queries(sides, shared)
    tensors |= dict(k=k, v=v, k_out=k_out, v_out=v_out)
    count = shared.q.shape[2]
    _on_grid(Work("backward_keys", k, tensors, numbers, count, scale, grid.exchanged))
    return k_out, v_out


def key_gradients_all(k: Tensor, v: Tensor, sides: Sides, scale: float) -> tuple[Tensor, Tensor]:
    """Return the gradients of keys and values that all queries see, in float32.

    Args:
        k: ``[B, H, N, D]``.
        v: ``[B, H, N, D]``.
        sides: The queries.
        scale: Factor on the scores.
    """

    def run(config: Config) -> tuple[Tensor, Tensor]:
        count = sides.q.shape[2]
        splits = splits_for(config, k, count)
        k_outs, v_outs = _parts(splits, k), _parts(splits, k)
        tensors, numbers = _of_queries(sides, sides)
        tensors |= dict(k=k, v=v, k_out=k_outs.flatten(0, 1), v_out=v_outs.flatten(0, 1))
        start(config, Work("backward_keys", k, tensors, numbers, count, scale), splits)
        return k_outs.sum(0), v_outs.sum(0)

    return stepping_down("backward_keys", k, False, run)


def _of_queries(sides: Sides, shared: Sides) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    tensors = dict(q=sides.q, grad=sides.grad, shared_q=shared.q, shared_grad=shared.grad)
    numbers = dict(lse=sides.lse, delta=sides.delta)
    return tensors, numbers | dict(shared_lse=shared.lse, shared_delta=shared.delta)


def _spread(numbers: Tensor, tokens: int) -> Tensor:
    """Return ``[B, H, M]`` as ``[B, H, tokens]``: a kernel steps by its own side from head to head.

    Queries that are fewer than the keys are a band of the grid's rows.
    """
    missing = tokens - numbers.shape[2]
    return F.pad(numbers, (0, missing)) if missing else numbers


def _steps(steps: tuple[Tensor, Tensor, Tensor] | None, unread: Tensor) -> dict[str, Tensor]:
    names = ("q_steps", "k_steps", "shared_k_steps")
    return dict(zip(names, steps, strict=True)) if steps else dict.fromkeys(names, unread)


def _parts(splits: int, like: Tensor) -> Tensor:
    return torch.empty((splits, *like.shape), dtype=torch.float32, device=like.device)


def _on_grid(work: Work) -> None:
    stepping_down(work.kernel, work.own, True, lambda config: start(config, work))
