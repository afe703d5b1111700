"""The gradients of a batch: each process takes its share, in parts, and all get the mean."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..config import Training
from ..data.batches import Batch
from ..tasks import Task
from ..workers import sharding
from ..workers.processes import Accelerator, require_divisible


@dataclass(frozen=True, eq=False)
class Gradients:
    """Computes gradients of a task.

    Attributes:
        accelerator: The run's.
        task: What is trained.
        model: The task as it is spread over the processes.
        training: In how many parts, and how precisely.
    """

    accelerator: Accelerator
    task: Task
    model: nn.Module
    training: Training

    def add(self, batch: Batch) -> dict[str, Tensor]:
        """Add the gradients of a batch, and return the losses of this process's share.

        Raises:
            ValueError: The batch does not divide by the number of processes.
        """
        own = self.share(batch)
        parts = min(self.training.accumulate, len(own))
        sums: dict[str, Tensor] = {}
        for index in range(parts):
            part = own.part(index, parts)
            weight = len(part) / len(own)
            terms = self._add_part(part, weight, last=index == parts - 1)
            for name, term in terms.items():
                sums[name] = sums.get(name, 0) + term.detach() * weight
        return sums

    def _add_part(self, part: Batch, weight: float, last: bool) -> dict[str, Tensor]:
        # Gradients travel between processes once per update.
        apart = nullcontext() if last else sharding.without_sync(self.accelerator, self.model)
        with self.task.context(), apart:
            with self.precision():
                terms = self.model(part)
            self.accelerator.backward(terms["loss"] * weight)
        return terms

    def share(self, batch: Batch) -> Batch:
        """Return this process's share of a batch.

        Raises:
            ValueError: The batch does not divide by the number of processes.
        """
        require_divisible(self.accelerator, len(batch))
        own = batch.part(self.accelerator.process_index, self.accelerator.num_processes)
        return own.to(self.accelerator.device)

    def mean(self, value: Tensor) -> float:
        """Return the mean of a number over all processes."""
        mean = self.accelerator.reduce(value, "mean")
        assert isinstance(mean, Tensor)
        return float(mean)

    def precision(self) -> AbstractContextManager[Any]:
        """Compute in bfloat16 where it is safe, if asked to.

        Not by the accelerator: its precision is fixed for the whole process.
        """
        wanted = self.training.precision == "bf16"
        return torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=wanted)
