"""Runs the kernels on tensors: over which tiles, in how many splits, and what to do with parts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from triton.runtime.errors import OutOfResources

from ...partial import Part
from ...window import Window
from . import kernels
from .configs import Config, configs_for
from .lists import ALIGNED, Lists, make_lists

logger = logging.getLogger(__name__)

PROGRAMS_PER_PROCESSOR = 4
LEAST_BLOCKS = 8  # per split: shorter ones spend their time on writing parts

Result = TypeVar("Result")


ROWS_PER_PROGRAM = 64  # of `round_rows`


class Rounded(NamedTuple):
    """Rows of 8-bit integers.

    Attributes:
        rows: ``[B, H, M, D]``, int8, contiguous.
        steps: ``[B, H, M]``, float32: what a one in a row stands for.
    """

    rows: Tensor
    steps: Tensor


class Grid(NamedTuple):
    """A grid of tokens with a window.

    Attributes:
        height: Rows, in tokens.
        width: Columns, in tokens.
        window: Who sees whom.
    """

    height: int
    width: int
    window: Window


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
    """Attend from the tokens of a grid to its windows and to the shared keys.

    Args:
        q: ``[B, H, height*width, D]``.
        k: ``[B, H, height*width, D]``.
        v: ``[B, H, height*width, D]``.
        shared: Keys and values ``[B, H, S, D]`` that every query sees; S may be 0.
        grid: The grid.
        scale: Factor on the scores.
        out: ``[B, H, height*width, D]``, written.
        steps: Those of q, k and the shared keys, where they are rounded.

    Returns:
        Log-sum-exp ``[B, H, height*width]``, float32.
    """
    lse = torch.empty(q.shape[:3], dtype=torch.float32, device=q.device)
    tensors = dict(q=q, k=k, v=v, shared_k=shared[0], shared_v=shared[1], out=out)
    numbers = dict(lse=lse) | _steps(steps, lse)
    _on_grid("forward", tensors, numbers, q, shared[0].shape[2], grid, scale, steps is not None)
    return lse


def attend_all(
    q: Tensor, k: Tensor, v: Tensor, scale: float, steps: tuple[Tensor, Tensor] | None = None
) -> Part:
    """Attend from queries ``[B, H, M, D]`` to all keys ``[B, H, N, D]``, in splits of the keys.

    The output is float32. Rounded queries and keys come with their steps.
    """

    def run(config: Config) -> Part:
        splits = _splits(config, q, k.shape[2])
        outs, lses = _parts(splits, q), _parts(splits, q[..., 0])
        tensors = dict(q=q, k=k, v=v, shared_k=k, shared_v=v, out=outs.flatten(0, 1))
        numbers = dict(lse=lses) | _steps((steps[0], steps[1], steps[1]) if steps else None, lses)
        rounded = steps is not None
        _start(config, "forward", tensors, numbers, q, k.shape[2], None, scale, splits, rounded)
        if splits == 1:
            return Part(outs[0], lses[0])
        lse = lses.logsumexp(0)
        return Part((outs * (lses - lse).exp().unsqueeze(-1)).sum(0), lse)

    return _stepping_down("forward", q, False, run)


def round_rows(x: Tensor, mean: Tensor) -> Rounded:
    """Round rows ``[B, H, M, D]``, less a mean ``[B, H, D]`` in float32, to 8 bits."""
    batch, heads, tokens, head_dim = x.shape
    rows = torch.empty(x.shape, dtype=torch.int8, device=x.device)
    steps = torch.empty(x.shape[:3], dtype=torch.float32, device=x.device)
    if tokens:
        kernel: Any = kernels.round_rows
        with _on(x.device):
            kernel[(_cdiv(tokens, ROWS_PER_PROGRAM), batch * heads)](
                x=x,
                mean=mean,
                out=rows,
                steps=steps,
                **_strides({"x": x}),
                heads=heads,
                tokens=tokens,
                D=head_dim,
                BLOCK=ROWS_PER_PROGRAM,
            )
    return Rounded(rows, steps)


def query_gradients_grid(
    sides: Sides,
    k: Tensor,
    v: Tensor,
    shared: tuple[Tensor, Tensor],
    grid: Grid,
    scale: float,
) -> Tensor:
    """Return the gradient of a grid's queries, ``[B, H, height*width, D]``.

    Args:
        sides: Of the queries.
        k: ``[B, H, height*width, D]``.
        v: ``[B, H, height*width, D]``.
        shared: Keys and values as in `attend_grid`.
        grid: The grid.
        scale: Factor on the scores.
    """
    out = torch.empty(sides.q.shape, dtype=sides.q.dtype, device=sides.q.device)
    tensors = dict(
        q=sides.q, k=k, v=v, shared_k=shared[0], shared_v=shared[1], grad=sides.grad, out=out
    )
    numbers = dict(lse=sides.lse, delta=sides.delta)
    count = shared[0].shape[2]
    _on_grid("backward_queries", tensors, numbers, sides.q, count, grid, scale)
    return out


def query_gradients_all(sides: Sides, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Return the gradient of queries that see all keys, ``[B, H, M, D]`` in float32."""

    def run(config: Config) -> Tensor:
        splits = _splits(config, sides.q, k.shape[2])
        outs = _parts(splits, sides.q)
        tensors = dict(
            q=sides.q, k=k, v=v, shared_k=k, shared_v=v, grad=sides.grad, out=outs.flatten(0, 1)
        )
        numbers = dict(lse=sides.lse, delta=sides.delta)
        name, count = "backward_queries", k.shape[2]
        _start(config, name, tensors, numbers, sides.q, count, None, scale, splits)
        return outs.sum(0)

    return _stepping_down("backward_queries", sides.q, False, run)


def key_gradients_grid(
    k: Tensor, v: Tensor, sides: Sides, shared: Sides, grid: Grid, scale: float
) -> tuple[Tensor, Tensor]:
    """Return the gradients of a grid's keys and values, ``[B, H, height*width, D]`` each.

    Args:
        k: ``[B, H, height*width, D]``.
        v: ``[B, H, height*width, D]``.
        sides: The grid's queries.
        shared: Queries that see every key; there may be none.
        grid: The grid.
        scale: Factor on the scores.
    """
    k_out, v_out = (torch.empty(k.shape, dtype=k.dtype, device=k.device) for _ in range(2))
    tensors, numbers = _of_queries(sides, shared)
    tensors |= dict(k=k, v=v, k_out=k_out, v_out=v_out)
    _on_grid("backward_keys", tensors, numbers, k, shared.q.shape[2], grid, scale)
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
        splits = _splits(config, k, count)
        k_outs, v_outs = _parts(splits, k), _parts(splits, k)
        tensors, numbers = _of_queries(sides, sides)
        tensors |= dict(k=k, v=v, k_out=k_outs.flatten(0, 1), v_out=v_outs.flatten(0, 1))
        _start(config, "backward_keys", tensors, numbers, k, count, None, scale, splits)
        return k_outs.sum(0), v_outs.sum(0)

    return _stepping_down("backward_keys", k, False, run)


def _of_queries(sides: Sides, shared: Sides) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    tensors = dict(q=sides.q, grad=sides.grad, shared_q=shared.q, shared_grad=shared.grad)
    numbers = dict(lse=sides.lse, delta=sides.delta)
    return tensors, numbers | dict(shared_lse=shared.lse, shared_delta=shared.delta)


def _steps(steps: tuple[Tensor, Tensor, Tensor] | None, unread: Tensor) -> dict[str, Tensor]:
    names = ("q_steps", "k_steps", "shared_k_steps")
    return dict(zip(names, steps, strict=True)) if steps else dict.fromkeys(names, unread)


def _parts(splits: int, like: Tensor) -> Tensor:
    return torch.empty((splits, *like.shape), dtype=torch.float32, device=like.device)


def _splits(config: Config, own: Tensor, count: int) -> int:
    """Return into how many parts to split the other side, so that all processors have work."""
    blocks = max(1, _cdiv(count, config.shape.block))
    programs = own.shape[0] * own.shape[1] * _cdiv(own.shape[2], config.shape.tokens)
    wanted = _cdiv(PROGRAMS_PER_PROCESSOR * _processors(own.device), programs)
    return _cdiv(blocks, _per_split(blocks, min(wanted, blocks // LEAST_BLOCKS)))


def _cdiv(a: int, b: int) -> int:
    return -(-a // b)


def _per_split(blocks: int, splits: int) -> int:
    return _cdiv(blocks, max(1, splits))


def _processors(device: torch.device) -> int:
    if device.type == "cpu":  # Triton's interpreter
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count


def _on_grid(
    name: str,
    tensors: dict[str, Tensor],
    numbers: dict[str, Tensor],
    own: Tensor,
    shared_count: int,
    grid: Grid,
    scale: float,
    rounded: bool = False,
) -> None:
    def run(config: Config) -> None:
        _start(config, name, tensors, numbers, own, shared_count, grid, scale, 1, rounded)

    _stepping_down(name, own, True, run)


_skipped: dict[tuple[object, ...], int] = {}


def _stepping_down(
    name: str, own: Tensor, windowed: bool, run: Callable[[Config], Result]
) -> Result:
    """Run with the first configuration that this GPU has the resources for."""
    key = (name, own.device, own.dtype, own.shape[-1], windowed)
    configs = configs_for(name, own)
    while True:
        chosen = _skipped.get(key, 0)
        try:
            return run(configs[chosen])
        except OutOfResources as error:
            if chosen + 1 == len(configs):
                raise
            _skipped[key] = chosen + 1
            logger.warning(
                "CLEAR: %s steps down to smaller blocks on %s: %s", name, own.device, error
            )


def _start(
    config: Config,
    name: str,
    tensors: dict[str, Tensor],
    numbers: dict[str, Tensor],
    own: Tensor,
    shared_count: int,
    grid: Grid | None,
    scale: float,
    splits: int,
    rounded: bool = False,
) -> None:
    """Start a kernel.

    Args:
        config: How it is compiled.
        name: Its name.
        tensors: What it takes by name and strides, ``[B, H, L, D]``.
        numbers: What it takes by name, contiguous.
        own: The side that is cut into tiles.
        shared_count: Tokens of the other side that all see.
        grid: The grid; None where there is no window.
        scale: Factor on the scores.
        splits: Parts of the other side.
        rounded: Whether queries and keys are 8-bit integers.
    """
    shape = config.shape
    batch, heads, tokens, head_dim = own.shape
    if grid is None:
        # Tiles of a row of tokens, in lines as wide as a tile.
        height, width, radius = _cdiv(tokens, shape.columns), shape.columns, 1
        lists = dict.fromkeys(Lists._fields, own)  # not read
    else:
        height, width, radius = grid.height, grid.width, grid.window.radius
        dtype = tensors["v"].dtype
        lists = make_lists(grid.window, height, width, shape, dtype, own.device)._asdict()
    tiles = _cdiv(height, shape.rows) * _cdiv(width, shape.columns)
    blocks = _cdiv(shared_count, shape.block)
    kernel: Any = getattr(kernels, name)
    with _on(own.device):
        kernel[(tiles, batch * heads, splits)](
            **tensors,
            **numbers,
            **lists,
            **_strides(tensors),
            heads=heads,
            tokens=tokens,
            height=height,
            width=width,
            shared_count=shared_count,
            blocks_per_split=_per_split(blocks, splits),
            scale=scale,
            radius_squared=radius * radius,
            D=head_dim,
            ROWS=shape.rows,
            COLUMNS=shape.columns,
            BLOCK=shape.block,
            WINDOW=grid is not None,
            **(dict(ROUNDED=rounded) if name == "forward" else {}),
            num_warps=config.warps,
            num_stages=config.stages,
        )


def _strides(tensors: dict[str, Tensor]) -> dict[str, int]:
    return {
        f"{tensor}_{dim}": x.stride(index) // unit
        for tensor, x in tensors.items()
        for index, (dim, unit) in enumerate(zip("bhl", (1, 1, ALIGNED), strict=True))
    }


def _on(device: torch.device) -> Any:
    return torch.cuda.device(device) if device.type == "cuda" else torch.device(device)
