"""The file that a run writes, for CLEARLoader: whole projections, or a change of low rank."""

from __future__ import annotations

from typing import Any

import torch

from ...distill.config import RunConfig
from ...distill.tasks import Distillation
from ...weights import checkpoint, low_rank


def write(task: Distillation, config: RunConfig) -> None:
    """Write the student in bfloat16, with its window in the file's metadata."""
    config.output.parent.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = dict(
        radius=config.student.radius,
        radii=task.radii,
        pool_factor=config.student.pool_factor,
        base=config.base or None,
        family=task.denoiser.table.family,
    )
    if config.student.rank:
        low_rank.save(config.output, task.student.low_rank(torch.bfloat16), **facts)
        return
    base = task.denoiser.network.state_dict()
    checkpoint.save(config.output, task.student.published(base, torch.bfloat16), **facts)
