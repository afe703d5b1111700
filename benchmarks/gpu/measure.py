"""What both halves of the GPU benchmark share: the time left, timed calls, short reasons."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

NOT_RUN = "not run (time)"
NOT_THERE = "not there"
REASON_LENGTH = 70


class Budget:
    """The time that a part of the benchmark may take."""

    def __init__(self, minutes: float) -> None:
        self._end = time.monotonic() + 60 * minutes

    def allows(self, seconds: float = 0.0) -> bool:
        """Tell whether something that takes these seconds would end in time."""
        return time.monotonic() + seconds < self._end


@dataclass
class Run:
    """Something to be timed in turns with others.

    Attributes:
        call: Does it once.
        seconds: What one call has cost at first, roughly.
        per_call: Seconds per call of each turn.
        failure: Why there are no more turns; empty otherwise.
    """

    call: Callable[[], object]
    seconds: float
    per_call: list[float] = field(default_factory=list[float])
    failure: str = ""

    @property
    def median(self) -> float:
        """Seconds per call; there has been a turn."""
        return statistics.median(self.per_call)


def time_in_turns(
    runs: list[Run], device: torch.device, *, turns: int, turn_seconds: float, most_seconds: float
) -> None:
    """Time runs in turns, so that a change of the clock rate meets all of them.

    Args:
        runs: Their `per_call` is filled.
        device: Which computes them.
        turns: Of each run, unless it takes too long.
        turn_seconds: A turn repeats a call for about so long, without waiting in between: the CPU
            prepares the next call while the GPU computes, as it does in a model.
        most_seconds: A run has no further turn after so long.
    """
    for turn in range(turns):
        for run in runs:
            if run.failure or turn * max(run.seconds, turn_seconds) > most_seconds:
                continue
            calls = max(1, min(100, round(turn_seconds / max(run.seconds, 1e-6))))
            try:
                run.per_call.append(seconds_of(run.call, device, calls))
            except Exception as error:  # the others go on
                run.failure = short_reason(error)


def seconds_of(call: Callable[[], object], device: torch.device, calls: int = 1) -> float:
    """Return the seconds per call: by CUDA events on a GPU, by the clock elsewhere."""
    if device.type != "cuda":
        started = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - started) / calls
    # The stubs describe a class without arguments.
    event: Any = torch.cuda.Event
    start, end = event(enable_timing=True), event(enable_timing=True)
    torch.cuda.synchronize(device)
    start.record()
    for _ in range(calls):
        call()
    end.record()
    torch.cuda.synchronize(device)
    return start.elapsed_time(end) / 1000 / calls


def short_reason(error: BaseException) -> str:
    """Say in a few words what went wrong, fit for a cell of a Markdown table."""
    if isinstance(error, torch.OutOfMemoryError):
        return "out of memory"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return shortened(f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__)


def shortened(text: str) -> str:
    """Cut a text to the length of a cell, without the character that would end it."""
    text = text.replace("|", "/")
    return text if len(text) <= REASON_LENGTH else text[: REASON_LENGTH - 3] + "..."


def free_memory(device: torch.device) -> None:
    """Give cached memory of a GPU back, so that the next run does not fail for its fragments."""
    if device.type == "cuda":
        with contextlib.suppress(RuntimeError):  # a kernel that crashed takes the device with it
            torch.cuda.empty_cache()
