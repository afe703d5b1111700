"""Checkpoints of low rank: changes W + B A of a model's weights, in the form of an ordinary LoRA.

Each layer has ``transformer.<published name>.lora_A.weight``, ``[rank, hidden]``, and
``.lora_B.weight``, ``[hidden, rank]``, which every LoRA loader knows; an ``.alpha``, ``[]``, scales
the change by alpha / rank. Changes of biases, where there are some, are whole, by the name of the
host's layer: ``diffusion_model.double_blocks.0.img_attn.qkv.diff_b``. Pooling weights keep their
published names. It is the metadata, with ``clear.rank`` among it, that distinguishes such a file
from any other LoRA.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from torch import Tensor

from ..families.names import BIAS_CHANGE, HOST_PREFIX, LORA_PREFIX, HostSlice, ModelSize, NameTable
from . import checkpoint
from .errors import CheckpointError, some

WEIGHT = ".weight"


def save(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    *,
    radius: int,
    pool_factor: int | None = None,
    base: str | None = None,
) -> None:
    """Write a low-rank checkpoint, see `checkpoint.save`.

    Args:
        path: The file to write; one that is there is replaced.
        tensors: Every change, by its names in a LoRA, and the pooling weights.
        radius: Radius of the window in tokens.
        pool_factor: Edge of a pooled cell in tokens; None takes it from the pooling weights.
        base: What the weights were distilled from.

    Raises:
        CheckpointError: The tensors are no whole set of changes, or have NaN or infinite values.
        OSError: The file cannot be written.
    """
    if not any(name.startswith(LORA_PREFIX) for name in tensors):
        raise CheckpointError(
            f"{os.path.basename(path)} must hold low-rank changes, named {LORA_PREFIX}*, "
            f"got {some(tensors)}."
        )
    checkpoint.save(path, tensors, radius=radius, pool_factor=pool_factor, base=base)


def slices(table: NameTable, size: ModelSize) -> dict[str, HostSlice]:
    """Map every change to the rows of the host's weight that it changes.

    Changes are named as a LoRA's layers are: ``transformer.transformer_blocks.0.attn.to_q``.
    """
    return {
        LORA_PREFIX + name.removesuffix(WEIGHT): rows
        for name, rows in table.slices(size).items()
        if name.endswith(WEIGHT)
    }


def bias_slices(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, HostSlice]:
    """Map the changes of biases among a checkpoint's tensors to the host's biases.

    Args:
        shapes: Shape of every tensor in the checkpoint.
    """
    return {
        name: HostSlice(
            f"{name.removeprefix(HOST_PREFIX).removesuffix(BIAS_CHANGE)}bias", (0, 0, shape[0])
        )
        for name, shape in shapes.items()
        if name.endswith(f".{BIAS_CHANGE}")
    }
