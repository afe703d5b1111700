"""The processes of a run: one, or several that ``accelerate launch`` started together."""

from __future__ import annotations

import os
import sys
from datetime import timedelta

import torch

try:
    from accelerate import Accelerator, InitProcessGroupKwargs
except ImportError as error:
    raise ImportError(
        "Distilling needs accelerate and prodigyopt: python -m pip install accelerate prodigyopt"
    ) from error

LONGEST_WAIT = timedelta(days=7)
"""How long processes wait for those that paint a larger share of the data, or paint it slower."""


def make_accelerator(cpu: bool = False) -> Accelerator:
    """Join the processes of ``accelerate launch``, or be the only one.

    Args:
        cpu: Run on the CPU.
    """
    waiting = InitProcessGroupKwargs(timeout=LONGEST_WAIT)
    return Accelerator(cpu=cpu, kwargs_handlers=[waiting])


def any_process(accelerator: Accelerator, here: bool) -> bool:
    """Return in all processes whether `here` is true in one of them; each waits for the others."""
    if accelerator.num_processes == 1:
        return here
    count = accelerator.reduce(torch.tensor(float(here), device=accelerator.device), "sum")
    assert isinstance(count, torch.Tensor)
    return bool(count > 0)


def require_divisible(accelerator: Accelerator, samples: int) -> None:
    """Check that a batch can be shared.

    Raises:
        ValueError: It does not divide by the number of processes.
    """
    count = accelerator.num_processes
    if samples % count:
        raise ValueError(
            f"A batch must divide by the {count} processes, got {samples} samples: change "
            "training.batch."
        )


def leave(accelerator: Accelerator, code: int) -> int:
    """Part from the other processes at the end of a run, and return the exit code.

    On CPUs it does not return: gloo's threads outlive the group that DistributedDataParallel had,
    and now and then abort while Python shuts down (pytorch pull request 179291).

    Args:
        accelerator: The run's.
        code: Exit code.
    """
    accelerator.wait_for_everyone()
    accelerator.end_training()
    if accelerator.num_processes > 1 and accelerator.device.type == "cpu":
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code
