"""A rehearsal: what a picture takes of this machine in an update, measured before a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import fields

import torch
from torch import Tensor

from ..config import Optimiser
from ..data.batches import Batch
from ..tasks import Distillation
from ..updates.optimisers import make_optimiser
from .duration import Pass

clock = time.perf_counter
"""In seconds. A test can put the processor's own time here, for machines in use."""


def rehearse(
    task: Distillation,
    batch: Batch,
    optimiser: Optimiser | None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Pass | None:
    """Time the ways of a picture through the model, and a step of the optimiser.

    It takes the memory of an update, so that a run which does not fit fails here. The student
    moves: a run takes a new one.

    Args:
        task: What a run would train, on its device.
        batch: As many pictures as an update computes at once.
        optimiser: How weights are updated; None rehearses no step.
        should_stop: Asked between the passes.

    Returns:
        Seconds; None if it was stopped.
    """
    parameters: list[Tensor] = [each for each in task.parameters() if each.requires_grad]
    batch = batch.to(parameters[0].device)
    stepping = make_optimiser(parameters, optimiser) if optimiser else None
    noisy, _ = task.noisy(batch)

    def teacher() -> Tensor:
        with torch.no_grad():
            return task.velocity(noisy, batch, None)

    def student() -> Tensor:
        with torch.no_grad(), task.student.attached(task.denoiser.network):
            return task.velocity(noisy, batch, task.local)

    def update() -> Tensor:
        task.zero_grad()
        kind, wanted = noisy.device.type, task.settings.precision == "bf16"
        with task.context():
            with torch.autocast(kind, torch.bfloat16, enabled=wanted):
                loss = task(batch)["loss"]
            loss.backward()
        return parameters[-1].detach()

    def step() -> Tensor:
        if stepping:
            stepping.step()
        return parameters[-1].detach()

    found: list[float] = []
    for run in (teacher, student, update, step):
        seconds = _seconds(run, should_stop)
        if seconds is None:
            return None
        found.append(seconds)
    *ways, of_step = found
    return Pass(*(seconds / len(batch) for seconds in ways), step=of_step)


def mean(passes: Sequence[Pass], counts: Sequence[int]) -> Pass:
    """Return the mean over pictures of several sizes.

    Args:
        passes: Of each size.
        counts: Pictures of each size.
    """
    columns = ([getattr(each, field.name) for each in passes] for field in fields(Pass))
    return Pass(
        *(
            sum(value * count for value, count in zip(column, counts, strict=True)) / sum(counts)
            for column in columns
        )
    )


def _seconds(run: Callable[[], Tensor], should_stop: Callable[[], bool]) -> float | None:
    """Time the second run: the first one compiles kernels and takes memory. None if stopped."""
    if should_stop():
        return None
    run().flatten()[-1].item()  # waits for the device
    if should_stop():
        return None
    started = clock()
    run().flatten()[-1].item()
    return clock() - started
