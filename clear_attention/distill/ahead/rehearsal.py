"""A rehearsal: what a picture takes of this machine in an update, measured before a run."""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..config import Optimiser
from ..data.batches import Batch
from ..tasks import Distillation
from ..updates.optimisers import make_optimiser
from .duration import Pass

FEW = 20
"""A run of fewer first updates is not rehearsed further, which takes about three and a half."""

clock = time.perf_counter
"""In seconds. A test can put the processor's own time here, for machines in use."""


class Stopped(Exception):
    """A rehearsal was asked to stop."""

    __module__ = "clear_attention"  # packs are loaded under their path


def rehearse(
    task: Distillation,
    batch: Batch,
    optimiser: Optimiser | None,
    should_stop: Callable[[], bool] = lambda: False,
    *,
    painted: int = 1,
    left: Callable[[Pass], float] = lambda one: math.inf,
) -> Pass | None:
    """Time an update, and the ways of a picture through the model.

    It takes the memory of an update, so that a run which does not fit fails here. Where little is
    left to do, the first update, which also compiles kernels and takes memory, has to do as a bound
    on all of it. The student moves: a run takes a new one.

    Args:
        task: What a run would train, on its device.
        batch: As many pictures as an update computes at once.
        optimiser: How weights are updated; None rehearses no step.
        should_stop: Asked between the passes.
        painted: Pictures that are painted at once.
        left: Returns the seconds of the run that is rehearsed, by those of a picture.

    Returns:
        Seconds; None if it was stopped.
    """
    parameters: list[Tensor] = [each for each in task.parameters() if each.requires_grad]
    batch = batch.to(parameters[0].device)
    stepping = make_optimiser(parameters, optimiser) if optimiser else None
    some = batch.first(painted)

    def teacher() -> Tensor:
        with torch.no_grad():
            return task.velocity(task.noisy(some)[0], some, None)

    def student() -> Tensor:
        with torch.no_grad(), task.student.attached(task.denoiser.network):
            return task.velocity(task.noisy(some)[0], some, task.local)

    def update() -> Tensor:
        task.zero_grad()
        kind, wanted = batch.noise.device.type, task.settings.precision == "bf16"
        with task.context():
            with torch.autocast(kind, torch.bfloat16, enabled=wanted):
                loss = task(batch)["loss"]
            loss.backward()
        return parameters[-1].detach()

    def step() -> Tensor:
        if stepping:
            stepping.step()
        return parameters[-1].detach()

    def seconds(run: Callable[[], Tensor]) -> float:
        if should_stop():
            raise Stopped
        started = clock()
        run().flatten()[-1].item()  # waits for the device
        return clock() - started

    def of_second(run: Callable[[], Tensor]) -> float:
        seconds(run)
        return seconds(run)

    try:
        first, of_step = seconds(update), seconds(step)
        bound = Pass(*(3 * [first / len(batch)]), step=of_step, at_most=True)
        if left(bound) < FEW * (first + of_step):
            return bound
        of_update, of_step = seconds(update) / len(batch), seconds(step)
        of_teacher, of_student = (of_second(run) / len(some) for run in (teacher, student))
    except Stopped:
        return None
    return Pass(of_teacher, of_student, of_update, of_step)


def mean(passes: Sequence[Pass], counts: Sequence[int]) -> Pass:
    """Return the mean over pictures of several sizes.

    Args:
        passes: Of each size.
        counts: Pictures of each size.
    """
    columns = zip(*map(_seconds, passes), strict=True)
    return Pass(
        *(
            sum(value * count for value, count in zip(column, counts, strict=True)) / sum(counts)
            for column in columns
        ),
        at_most=any(each.at_most for each in passes),
    )


def between(measured: Mapping[int, Pass], tokens: int) -> Pass:
    """Return the seconds of a picture on the straight line between measured ones.

    Args:
        measured: By the tokens of a picture, the smallest and the largest of a run among them.
        tokens: Of the picture.
    """
    known = sorted(measured)
    above = bisect_left(known, tokens)
    if known[above] == tokens:
        return measured[tokens]
    low, high = known[above - 1], known[above]
    share = (tokens - low) / (high - low)
    ends = zip(_seconds(measured[low]), _seconds(measured[high]), strict=True)
    bound = measured[low].at_most or measured[high].at_most
    return Pass(*(a + share * (b - a) for a, b in ends), at_most=bound)


def _seconds(one: Pass) -> tuple[float, float, float, float]:
    return one.teacher, one.student, one.update, one.step
