"""The processes of a run: one, or several that ``accelerate launch`` started together."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
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


TRANSPORTS = ("gloo", "NCCL")
"""Libraries whose names are in the errors of processes that lose another one."""


class ProcessLost(RuntimeError):
    """Another process of the run has ended."""

    __module__ = "clear_attention"  # hosts show it, and packs are loaded under their path


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


@contextmanager
def others_alive(accelerator: Accelerator) -> Generator[None]:
    """Turn what torch raises where another process of a run has ended into one sentence.

    Raises:
        ProcessLost: In place of it.
    """
    try:
        yield
    except RuntimeError as error:
        gone = any(name in str(error) for name in TRANSPORTS)
        if accelerator.num_processes == 1 or not gone:
            raise
        raise ProcessLost(
            f"process {accelerator.process_index + 1} of {accelerator.num_processes} cannot go on, "
            "for another one has ended: what that one said is the reason. What is kept stays; the "
            "same command goes on from it."
        ) from error


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
