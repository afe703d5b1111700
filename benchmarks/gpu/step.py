"""The second half of the GPU benchmark: a whole step of FLUX.1 [dev] in the host's model class.

A step is one `apply_model`, as the sampler calls it at guidance without negative prompt, with all
wrappers. Loading, text encoder and VAE are not in it.
"""

from __future__ import annotations

import itertools
import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.measure import (
    NOT_RUN,
    NOT_THERE,
    Budget,
    free_memory,
    seconds_of,
    short_reason,
    shortened,
)
from benchmarks.gpu.model import (
    FLUX_DEV,
    PIXELS_PER_TOKEN,
    Size,
    random_inputs,
    random_model,
)
from benchmarks.gpu.variant import FULL, Step, Variant, first_call, ready, velocity


@dataclass(frozen=True)
class Scope:
    """What is measured.

    Attributes:
        edges: Of the square pictures, in pixels, the smallest first: it is the one that is checked.
        radii: Of the window, in tokens.
        text: Number of text tokens.
        size: Of the model.
        dtype: Of the weights.
        repetitions: At most so many calls after the first one.
        most_seconds: No further call after so long.
        single_seconds: A full step that takes so long is not repeated: its first call counts.
    """

    edges: Sequence[int] = (1024, 2048, 4096, 8192)
    radii: Sequence[int] = (8, 16, 32)
    text: int = 512
    size: Size = FLUX_DEV
    dtype: torch.dtype = torch.bfloat16
    repetitions: int = 5
    most_seconds: float = 6.0
    single_seconds: float = 15.0


SMALL = Scope(
    edges=(64, 128),
    radii=(2,),
    text=32,
    size=Size(double_blocks=1, single_blocks=1, hidden=256, text_dim=64, pooled_dim=64),
    repetitions=2,
)


@dataclass
class Result:
    """What one variant takes at one size.

    Attributes:
        edge: Of the picture, in pixels.
        variant: Which.
        seconds: Per step, or None.
        peak: Bytes allocated at most, weights included; None where nobody counts.
        ran: The backend that ran.
        error: Of the result, relative to the reference backend's; None where it is not compared.
        reason: Why there is no time; empty otherwise.
        wrong: Whether the result cannot be right.
    """

    edge: int
    variant: Variant
    seconds: float | None = None
    peak: int | None = None
    ran: str = ""
    error: float | None = None
    reason: str = ""
    wrong: bool = False

    @property
    def told(self) -> str:
        """The seconds, or why there are none."""
        if self.wrong:
            return "**WRONG**"
        return self.reason if self.seconds is None else f"{self.seconds:.4g}"


def measure(
    device: torch.device,
    scope: Scope,
    budget: Budget,
    backends: Sequence[str] = ("auto", "triton"),
) -> list[Result]:
    """Check and time every variant at every size.

    The first backend comes before full attention, which takes longest, and the others after it: if
    the time runs out, the ratio is there.
    """
    results: list[Result] = []
    first, *others = [[Variant(radius, name) for radius in scope.radii] for name in backends]
    variants = [*first, FULL, *itertools.chain(*others)]
    model = random_model(scope.size, device, scope.dtype)
    for edge in scope.edges:
        for variant in variants:
            result = Result(edge, variant)
            results.append(result)
            result.reason = why_not(results, edge, variant, budget)
            if not result.reason:
                _measure_one(model, result, device, scope)
            free_memory(device)
            told = f"step, {edge} px, {variant.name}, {variant.backend}: {result.told}"
            print(told, file=sys.stderr, flush=True)
    return results


def why_not(results: list[Result], edge: int, variant: Variant, budget: Budget) -> str:
    """Say why a variant is not run at a size, or nothing."""
    from clear_attention.backends import BACKENDS

    if variant.backend not in ("auto", *BACKENDS):
        return f"{NOT_THERE}: no such backend"
    for other in results:
        if other.variant == variant and other.reason.startswith(NOT_THERE):
            return other.reason
        same = (other.edge, other.variant.radius) == (edge, variant.radius)
        if same and other.ran == variant.backend:
            return "what auto took"
    return "" if budget.allows(_expected_seconds(results, edge, variant)) else NOT_RUN


def _measure_one(model: Any, result: Result, device: torch.device, scope: Scope) -> None:
    variant = result.variant
    # One variant must not end the others' run, whatever happens inside of it.
    try:
        inputs = random_inputs(scope.size, result.edge, scope.text, device)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        with ready(variant.apply(model)) as step:
            velocity, result.ran, first = first_call(step, inputs, device)
        if device.type == "cuda":
            result.peak = torch.cuda.max_memory_allocated(device)
        if variant.backend not in ("auto", result.ran):
            objection = result.ran.removeprefix(f"not {variant.backend}: ")
            result.reason, result.ran = shortened(f"{NOT_THERE}: {objection}"), ""
            return
        result.wrong = not bool(velocity.isfinite().all())
        if result.edge == scope.edges[0]:
            exact = _exact(model, variant, inputs, scope)
            result.error = float((velocity - exact).norm() / exact.norm())
            result.wrong |= not result.error <= largest_error(scope)
        if not result.wrong:
            with ready(variant.apply(model)) as step:
                result.seconds = _seconds(step, inputs, device, scope, variant, first)
    except Exception as error:
        result.reason = short_reason(error)


def _exact(model: Any, variant: Variant, inputs: dict[str, Tensor], scope: Scope) -> Tensor:
    """Compute the velocity through the reference backend; its window covers all for full."""
    everything = 2 * scope.edges[0] // PIXELS_PER_TOKEN
    exact = Variant(variant.radius or everything, "reference")
    with ready(exact.apply(model)) as step:
        return velocity(step(inputs), inputs)


def _seconds(
    step: Step,
    inputs: dict[str, Tensor],
    device: torch.device,
    scope: Scope,
    variant: Variant,
    first: float,
) -> float:
    if variant.radius is None and first > scope.single_seconds:
        return first
    measured: list[float] = []
    while len(measured) < scope.repetitions and sum(measured) < scope.most_seconds:
        measured.append(seconds_of(lambda: step(inputs), device))
    return statistics.median(measured)


def largest_error(scope: Scope) -> float:
    """Return the relative error above which a velocity is wrong.

    Each block rounds anew, so that the roundings add up like a random walk through the blocks.
    """
    return max(torch.finfo(scope.dtype).eps * math.sqrt(scope.size.blocks), 1e-4)


def _expected_seconds(results: list[Result], edge: int, variant: Variant) -> float:
    """Guess from the size before; full attention grows nearly with the square of the tokens."""
    for result in reversed(results):
        if result.variant == variant and result.edge < edge and result.seconds is not None:
            tokens = (edge / result.edge) ** 2
            return result.seconds * (tokens**1.8 if variant == FULL else 2 * tokens)
    return 0.0
