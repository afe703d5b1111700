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

from ..families.names import DOWN
from ..weights import checkpoint
from .errors import CheckpointError, some
from .metadata import Radii


def save(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    *,
    radius: int,
    radii: Radii | None = None,
    pool_factor: int | None = None,
    base: str | None = None,
    family: str | None = None,
) -> None:
    """Write a low-rank checkpoint, see `checkpoint.save`.

    Args:
        path: The file to write; one that is there is replaced.
        tensors: Every change, by its names in a LoRA, and the pooling weights.
        radius: Radius of the window in tokens.
        radii: Radius of the blocks that have another one.
        pool_factor: Edge of a pooled cell in tokens; None takes it from the pooling weights.
        base: What the weights were distilled from.
        family: Key of the model family; None takes the first one that has these names.

    Raises:
        CheckpointError: The tensors are no whole set of changes, or have NaN or infinite values.
        OSError: The file cannot be written.
    """
    if not any(name.endswith(f".{DOWN}") for name in tensors):
        raise CheckpointError(
            f"{os.path.basename(path)} must hold low-rank changes, named *.{DOWN}, "
            f"got {some(tensors)}."
        )
    checkpoint.save(
        path,
        tensors,
        radius=radius,
        radii=radii,
        pool_factor=pool_factor,
        base=base,
        family=family,
    )
