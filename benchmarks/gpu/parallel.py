"""The third part of the GPU benchmark: steps of FLUX.1 [dev] that several GPUs share.

Whole sampling runs through the host's sampler with CLEAR Parallel, for 1 to all GPUs, and two ranks
on one GPU, which shows what the ranks cost where nothing is gained.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.copies import CopyRates, measure_copies
from benchmarks.gpu.measure import NOT_RUN, Budget, free_memory, short_reason
from benchmarks.gpu.model import FLUX_DEV, Size, random_model
from benchmarks.gpu.step import Scope as StepScope
from benchmarks.gpu.step import largest_error
from benchmarks.gpu.variant import Variant
from benchmarks.ranks import STEPS, distance, shared_run


@dataclass(frozen=True)
class Scope:
    """What is measured.

    Attributes:
        edges: Of the square pictures, in pixels, the smallest first: all of it is checked.
        radii: Of the window, in tokens, the most interesting first.
        text: Number of text tokens.
        size: Of the model.
        dtype: Of the weights.
        copied: Bytes of a copy between two GPUs.
    """

    edges: Sequence[int] = (2048, 4096, 8192)
    radii: Sequence[int] = (16, 8, 32)
    text: int = 512
    size: Size = FLUX_DEV
    dtype: torch.dtype = torch.bfloat16
    copied: int = 2**28


SMALL = Scope(
    edges=(64, 128),
    radii=(2,),
    text=32,
    size=Size(double_blocks=1, single_blocks=1, hidden=256, text_dim=64, pooled_dim=64),
    copied=2**20,
)


@dataclass
class Result:
    """What some devices take at one size and radius.

    Attributes:
        edge: Of the picture, in pixels.
        radius: Of the window, in tokens.
        devices: Their names, as CLEAR Parallel takes them.
        seconds: Per step, or None.
        received: Bytes of each rank in a step.
        waited: Seconds of each rank in a step.
        error: Of the picture, relative to one device's; None where it is not compared.
        reason: Why there is no time; empty otherwise.
        wrong: Whether the picture is another one than that of one device.
    """

    edge: int
    radius: int
    devices: str
    seconds: float | None = None
    received: list[float] = field(default_factory=list[float])
    waited: list[float] = field(default_factory=list[float])
    error: float | None = None
    reason: str = ""
    wrong: bool = False

    @property
    def told(self) -> str:
        """The seconds, or why there are none."""
        if self.wrong:
            return "**WRONG**"
        return self.reason if self.seconds is None else f"{self.seconds:.4g}"


def device_lists(device: torch.device) -> list[str]:
    """Return what is compared: one device, two ranks on it, then two to all devices."""
    if device.type != "cuda":
        return ["cpu", "cpu,cpu"]
    names = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return [names[0], f"{names[0]},{names[0]}"] + [
        ",".join(names[:count]) for count in range(2, len(names) + 1)
    ]


def measure(
    device: torch.device, scope: Scope, budget: Budget
) -> tuple[list[CopyRates], list[Result]]:
    """Measure copies between devices, then steps that they share.

    Args:
        device: The first one.
        scope: What is measured.
        budget: The time that is left.
    """
    lists = device_lists(device)
    names = dict.fromkeys(name for each in lists for name in each.split(","))
    copies = measure_copies([torch.device(name) for name in names], scope.copied)
    model = random_model(scope.size, device, scope.dtype)
    model.offload_device = torch.device("cpu")  # where copies for other devices are made
    results: list[Result] = []
    for edge in scope.edges:
        for radius in scope.radii:
            latent: Tensor | None = None
            for devices in lists:
                result = Result(edge, radius, devices)
                latent = _measure_one(model, result, latent, results, scope, budget)
                results.append(result)
                free_memory(device)
                told = f"parallel, {edge} px, r = {radius}, {devices}: {result.told}"
                print(told, file=sys.stderr, flush=True)
    return copies, results


def _measure_one(
    model: Any,
    result: Result,
    expected: Tensor | None,
    before: list[Result],
    scope: Scope,
    budget: Budget,
) -> Tensor | None:
    """Fill a result; return the latent of one device, for the comparison with those that follow."""
    if not budget.allows(expected_seconds(before, result)):
        result.reason = NOT_RUN
        return expected
    # One case must not end the others' run, whatever happens inside of it.
    try:
        local = Variant(result.radius).apply(model)
        run = shared_run(local, result.devices, scope.size, result.edge, scope.text)
        result.received, result.waited = run.received, run.waited
        if not run.received:
            expected = run.latent
        elif expected is not None:
            result.error = distance(run.latent, expected)
        finite = bool(run.latent.isfinite().all())
        result.wrong = not finite or not (result.error or 0.0) <= tolerance(scope)
        if not result.wrong:
            result.seconds = statistics.median(run.seconds)
    except Exception as error:
        result.reason = short_reason(error)
    return expected


def tolerance(scope: Scope) -> float:
    """Return the relative error above which a picture is wrong: rounding of each step adds up."""
    one = largest_error(StepScope(size=scope.size, dtype=scope.dtype))
    return one * STEPS**0.5


def expected_seconds(before: Sequence[Result], result: Result) -> float:
    """Guess how long a run takes from the size before, whose time grows with the pixels."""
    for other in reversed(before):
        same = (other.radius, other.devices) == (result.radius, result.devices)
        if same and other.edge < result.edge and other.seconds is not None:
            return STEPS * other.seconds * 1.5 * (result.edge / other.edge) ** 2
    return 0.0
