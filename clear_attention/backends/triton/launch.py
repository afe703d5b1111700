"""Starts the kernels: over which tiles, in how many splits, compiled how."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from triton.runtime.errors import OutOfResources

from ..lasting import first_use
from ..triton import kernels
from .configs import Config, configs_for, width_of
from .grid import Grid
from .lists import ALIGNED, Lists, make_lists

logger = logging.getLogger(__name__)

PROGRAMS_PER_PROCESSOR = 4
LEAST_BLOCKS = 8  # per split: shorter ones spend their time on writing parts
ROWS_PER_PROGRAM = 64  # of `round_rows`

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Work:
    """One launch of a kernel.

    Attributes:
        kernel: Its name.
        own: ``[B, H, M, D]``, the side that is cut into tiles.
        tensors: What it takes by name and strides, ``[B, H, L, D]``.
        numbers: What it takes by name, contiguous.
        shared_count: Tokens of the other side that all see.
        scale: Factor on the scores.
        grid: The grid of both sides, its own rows those of `own`; None where there is no window.
        rounded: Whether queries and keys are 8-bit integers.
    """

    kernel: str
    own: Tensor
    tensors: dict[str, Tensor]
    numbers: dict[str, Tensor]
    shared_count: int
    scale: float
    grid: Grid | None = None
    rounded: bool = False


def start(config: Config, work: Work, splits: int = 1) -> None:
    """Start a kernel.

    Args:
        config: How it is compiled.
        work: What it does.
        splits: Parts of the other side, each of which writes results of its own.
    """
    shape, grid = config.shape, work.grid
    batch, heads, tokens, head_dim = work.own.shape
    if grid is None:
        # A row of tokens, in lines as wide as a tile.
        height, width, radius = _cdiv(tokens, shape.columns), shape.columns, 1
        lists = dict.fromkeys(Lists._fields, work.own)  # not read
    else:
        height, width, radius = len(grid.own), grid.width, grid.window.radius
        lists = make_lists(grid, shape, work.tensors["v"].dtype, work.own.device)._asdict()
    tiles = _cdiv(height, shape.rows) * _cdiv(width, shape.columns)
    kernel: Any = getattr(kernels, work.kernel)
    device, dtypes = work.own.device, tuple(x.dtype for x in work.tensors.values())
    compiled = (work.kernel, config, device, dtypes, head_dim, grid is None, work.rounded)
    with _on(device), first_use(*compiled):
        kernel[(tiles, batch * heads, splits)](
            **work.tensors,
            **work.numbers,
            **lists,
            **_strides(work.tensors),
            heads=heads,
            tokens=tokens,
            height=height,
            width=width,
            shared_count=work.shared_count,
            blocks_per_split=_per_split(_cdiv(work.shared_count, shape.block), splits),
            scale=work.scale,
            radius_squared=radius * radius,
            D=head_dim,
            WIDTH=width_of(head_dim),
            ROWS=shape.rows,
            COLUMNS=shape.columns,
            BLOCK=shape.block,
            WINDOW=grid is not None,
            **(dict(ROUNDED=work.rounded) if work.kernel == "forward" else {}),
            num_warps=config.warps,
            num_stages=config.stages,
            **_registers(config, work),
        )


def _registers(config: Config, work: Work) -> dict[str, int]:
    # Steps of 8-bit rows need registers of their own: there the compiler knows better.
    if config.registers is None or work.rounded:
        return {}
    return {"maxnreg": config.registers}


def start_rounding(x: Tensor, mean: Tensor, rows: Tensor, steps: Tensor) -> None:
    """Start `round_rows` on ``[B, H, M, D]``; rows and steps are written."""
    batch, heads, tokens, head_dim = x.shape
    kernel: Any = kernels.round_rows
    with _on(x.device), first_use("round_rows", x.device, x.dtype, head_dim):
        kernel[(_cdiv(tokens, ROWS_PER_PROGRAM), batch * heads)](
            x=x,
            mean=mean,
            out=rows,
            steps=steps,
            **_strides({"x": x}),
            heads=heads,
            tokens=tokens,
            D=head_dim,
            WIDTH=width_of(head_dim),
            BLOCK=ROWS_PER_PROGRAM,
        )


def splits_for(config: Config, own: Tensor, count: int) -> int:
    """Return into how many parts to split the other side, so that all processors have work."""
    blocks = max(1, _cdiv(count, config.shape.block))
    programs = own.shape[0] * own.shape[1] * _cdiv(own.shape[2], config.shape.tokens)
    wanted = _cdiv(PROGRAMS_PER_PROCESSOR * _processors(own.device), programs)
    return _cdiv(blocks, _per_split(blocks, min(wanted, blocks // LEAST_BLOCKS)))


_skipped: dict[tuple[object, ...], int] = {}


def stepping_down(
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


def _cdiv(a: int, b: int) -> int:
    return -(-a // b)


def _per_split(blocks: int, splits: int) -> int:
    return _cdiv(blocks, max(1, splits))


def _processors(device: torch.device) -> int:
    if device.type == "cpu":  # Triton's interpreter
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count


def _strides(tensors: dict[str, Tensor]) -> dict[str, int]:
    return {
        f"{tensor}_{dim}": x.stride(index) // unit
        for tensor, x in tensors.items()
        for index, (dim, unit) in enumerate(zip("bhl", (1, 1, ALIGNED), strict=True))
    }


def _on(device: torch.device) -> Any:
    return torch.cuda.device(device) if device.type == "cuda" else torch.device(device)
