"""A student in shards (FSDP): each process keeps a part of its weights and the optimiser's memory.

A projection's change is gathered when its layer computes, and let go. Files hold whole tensors, so
that a run can go on with another number of processes.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ..student import FullDelta, LowRankDelta

if TYPE_CHECKING:
    from accelerate import Accelerator

ASKED = "ACCELERATE_USE_FSDP"  # set by `accelerate launch --use_fsdp`


def sharded(accelerator: Accelerator) -> bool:
    """Say whether the processes of a run share one student."""
    return os.environ.get(ASKED, "").lower() == "true" and accelerator.num_processes > 1


def require_even(accelerator: Accelerator, optimiser: str, rows: Iterable[int]) -> None:
    """Refuse optimisers that cannot share the work.

    Prodigy flattens its memory, which uneven shards do not allow; 8-bit AdamW knows no shards.

    Args:
        accelerator: The run's.
        optimiser: Name of the optimiser.
        rows: Length of each parameter's first dimension.

    Raises:
        ValueError: It is 8-bit AdamW, or rows do not divide by the number of processes.
    """
    if optimiser == "adamw8bit" and sharded(accelerator):
        raise ValueError(
            "In shards, the optimiser must be prodigy or adamw, got adamw8bit: take optimiser.name "
            '= "adamw", whose memory is divided by the number of processes, or no --use_fsdp.'
        )
    count = accelerator.num_processes
    uneven = sorted({length for length in rows if length % count})
    if uneven and optimiser == "prodigy" and sharded(accelerator):
        raise ValueError(
            f"In shards, Prodigy needs rows that divide by the {count} processes, got {uneven[0]} "
            "(the model's width, student.rank or student.pool_factor): change the number of "
            'processes or take optimiser.name = "adamw".'
        )


def prepare(accelerator: Accelerator, task: nn.Module) -> nn.Module:
    """Spread a task over the processes: a copy for each, or shards where the launcher asks so.

    Not by accelerate, which shards on GPUs only.

    Args:
        accelerator: The run's.
        task: What is trained. Sharding replaces its parameters, so that their optimiser is made
            afterwards.

    Returns:
        What to call in place of the task.
    """
    if not sharded(accelerator):
        return accelerator.prepare_model(task)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    for module in list(task.modules()):
        if isinstance(module, FullDelta | LowRankDelta):
            fully_shard(module, mesh=mesh)
    fully_shard(task, mesh=mesh)
    return task


def without_sync(accelerator: Accelerator, model: nn.Module) -> AbstractContextManager[None]:
    """Let gradients add up in each process for the length of a ``with``."""
    return _sums_stay(model) if hasattr(model, "unshard") else accelerator.no_sync(model)


@contextmanager
def _sums_stay(model: Any) -> Generator[None]:
    model.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        model.set_requires_gradient_sync(True)


def whole(tensor: Tensor, keep: bool = True) -> Tensor:
    """Return a tensor in one piece; all processes must ask for the same ones in the same order.

    Args:
        tensor: Any tensor; one that is not sharded comes back as it is.
        keep: Whether this process wants it. What was gathered goes to the CPU, or away.
    """
    gather = getattr(tensor, "full_tensor", None)
    if gather is None:
        return tensor
    gathered: Tensor = gather()
    return gathered.cpu() if keep else tensor


def local(tensor: Tensor) -> Tensor:
    """Return this process's part of a tensor; one that is not sharded comes back as it is."""
    own = getattr(tensor, "to_local", None)
    return own() if own else tensor


def spread_as(parameter: Any, tensor: Tensor) -> Tensor:
    """Spread a whole tensor over the processes as a parameter is; unsharded, it only moves.

    Args:
        parameter: Says how.
        tensor: The same on each process, with as many elements as the parameter or with one.
    """
    mesh = getattr(parameter, "device_mesh", None)
    if mesh is None or tensor.ndim == 0:
        return tensor.to(parameter.device)
    from torch.distributed.tensor import distribute_tensor

    # Prodigy keeps its memory flat: the shards are those of the rows, flattened.
    rows = tensor.reshape(parameter.shape).to(parameter.device)
    shards = distribute_tensor(rows, mesh, parameter.placements, src_data_rank=None)
    return shards.reshape(tensor.shape)


@contextmanager
def in_one_piece(model: nn.Module) -> Generator[None]:
    """Gather all weights for the length of the ``with``; inside, a process may compute alone."""
    units: list[Any] = [module for module in model.modules() if hasattr(module, "unshard")]
    for unit in units:
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()
    try:
        yield
    finally:
        for unit in units:
            unit.set_reshard_after_forward(True, recurse=False)
            unit.reshard()
