"""Checks of a run's settings, before hours of painting: the model, the blocks, the processes."""

from __future__ import annotations

import torch
from comfy.model_patcher import ModelPatcher

from ...distill.config import RunConfig
from ...distill.tasks import compared_blocks
from ...distill.updates.optimisers import make_optimiser
from ...distill.workers.processes import Accelerator, require_divisible
from ...distill.workers.sharding import require_even, sharded
from ..core.blocks import block_counts
from ..weights.base import table_and_size
from .trainable import require_plain_weights, require_trainable


def require_possible(model: ModelPatcher, config: RunConfig) -> None:
    """Check that a model can be distilled with a run's settings.

    Raises:
        ValueError: It cannot; the message says what to change.
        ImportError: The optimiser's package is missing.
    """
    require_trainable(model)
    if not config.student.rank:
        require_plain_weights(model)
    compared_blocks(config.loss.attention_blocks, block_counts(model))
    make_optimiser([torch.zeros(1)], config.optimiser)


def require_shares(accelerator: Accelerator, model: ModelPatcher, config: RunConfig) -> None:
    """Check that several processes can share the work.

    Raises:
        ValueError: They cannot; the message says what to change.
    """
    training, student = config.training, config.student
    if not training.batch_tokens:
        require_divisible(accelerator, training.batch)
    if sharded(accelerator) and not training.gradient_checkpointing:
        raise ValueError(
            "A student in shards needs the blocks to be recomputed, got gradient_checkpointing = "
            "false: set training.gradient_checkpointing = true."
        )
    table, size = table_and_size(model)
    shapes = table.shapes(size).values()
    rows = {rows for rows, _ in shapes} | {student.rank, student.pool_factor}
    require_even(accelerator, config.optimiser.name, rows)
