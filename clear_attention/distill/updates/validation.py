"""The losses on held-out data: in parts as an update's, shared between the processes."""

from __future__ import annotations

import torch
from torch import Tensor

from ..data.held_out import HeldOut
from .gradients import Gradients


def validate(held_out: HeldOut, gradients: Gradients) -> dict[str, float]:
    """Return the mean losses over the held-out pictures, each of which counts once.

    All processes must enter; all get the same.

    Args:
        held_out: The pictures.
        gradients: The task, and how its updates are computed.
    """
    accelerator, task = gradients.accelerator, gradients.task
    count, own = accelerator.num_processes, accelerator.process_index
    parts = held_out.parts(count)
    sums: dict[str, Tensor] = {}
    task.eval()
    with task.context(), torch.no_grad():
        for first in range(0, len(parts), count):
            together = parts[first : first + count]
            # Shards are gathered by all together: who has no part left computes one in vain.
            part = held_out.batch(together[min(own, len(together) - 1)])
            pictures = len(part) if own < len(together) else 0
            with gradients.precision():
                terms = task(part.to(accelerator.device))
            for name, term in terms.items():
                sums[name] = sums.get(name, 0) + pictures * term
    of_one = len(held_out) / count
    return {name: gradients.mean(value) / of_one for name, value in sums.items()}
