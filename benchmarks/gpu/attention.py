"""The first half of the GPU benchmark: one attention layer, everyone against everyone.

Every result is checked in some queries before it is timed; what is wrong is not timed.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from benchmarks.gpu.contestants import Contestant
from benchmarks.gpu.exact import (
    Case,
    Sees,
    chosen_queries,
    exact_rows,
    largest_error,
    worst_error,
)
from benchmarks.gpu.measure import (
    NOT_RUN,
    NOT_THERE,
    Budget,
    Run,
    free_memory,
    seconds_of,
    short_reason,
    shortened,
    time_in_turns,
)


@dataclass(frozen=True)
class Scope:
    """What is measured.

    Attributes:
        grids: Edges of the square grids, in tokens.
        radii: Of the window, in tokens.
        texts: Numbers of text tokens.
        factors: Edges of a pooled cell, 0 for no pooling.
        heads: Of the layer.
        head_dim: Of the layer.
        dtype: Of q, k and v.
        turns: How often each call is timed, in turns with the others.
        turn_seconds: For about so long a call is repeated in a turn.
        most_seconds: A call is timed no further after so long.
    """

    # What matters most comes first: the time may run out.
    grids: Sequence[int] = (64, 128, 256, 512)
    radii: Sequence[int] = (8, 16, 32)
    texts: Sequence[int] = (512, 256)
    factors: Sequence[int] = (0, 4)
    heads: int = 24
    head_dim: int = 128
    dtype: torch.dtype = torch.bfloat16
    turns: int = 5
    turn_seconds: float = 0.02
    most_seconds: float = 0.6


SMALL = Scope(
    grids=(16,),
    radii=(4,),
    texts=(512, 32),
    heads=1,
    head_dim=64,
    turns=2,
    turn_seconds=0.002,
)


@dataclass
class Result:
    """What one contestant made of one case.

    Attributes:
        contestant: Who.
        case: What; of a contestant without a window, the radius and the factor mean nothing.
        error: Worst relative error of a checked query, or None.
        seconds: Per call, or None.
        reason: Why there is no time; empty otherwise.
        wrong: Whether the error is above the limit.
        run: What is to be timed.
    """

    contestant: Contestant
    case: Case
    error: float | None = None
    seconds: float | None = None
    reason: str = ""
    wrong: bool = False
    run: Run | None = field(default=None, repr=False)


def measure(
    device: torch.device,
    scope: Scope,
    budget: Budget,
    contestants: Sequence[Contestant],
) -> list[Result]:
    """Check and time every contestant in every case."""
    results: list[Result] = []
    for text, grid in itertools.product(scope.texts, scope.grids):
        results += _measure_grid(device, scope, budget, contestants, text, grid)
        print(f"attention, {text} text tokens, {grid} x {grid}: done", file=sys.stderr, flush=True)
    return results


def _measure_grid(
    device: torch.device,
    scope: Scope,
    budget: Budget,
    contestants: Sequence[Contestant],
    text: int,
    grid: int,
) -> list[Result]:
    results = [
        Result(contestant, case)
        for contestant in contestants
        for case in _cases(scope, contestant, text, grid)
    ]
    # Unpooled cases first, contestants side by side: the time may run out.
    results.sort(key=lambda result: (result.contestant.windowed, result.case.factor))
    try:
        with torch.inference_mode():
            tensors = _tensors(device, scope, text, grid)
            checker = _Checker(*tensors)
            for result in results:
                _prepare(result, tensors, checker, scope, budget)
            _time(results, device, scope)
    except Exception as error:  # the next grid may fit
        for result in results:
            result.reason = result.reason or short_reason(error)
    for result in results:
        result.run = None  # it holds tensors
    free_memory(device)
    return results


def _cases(scope: Scope, contestant: Contestant, text: int, grid: int) -> list[Case]:
    if not contestant.windowed:
        return [Case(grid, text, radius=scope.radii[0])]
    return [
        Case(grid, text, radius, factor)
        for factor, radius in itertools.product(scope.factors, scope.radii)
    ]


def _tensors(
    device: torch.device, scope: Scope, text: int, grid: int
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator(device).manual_seed(0)
    shape = (1, scope.heads, text + grid * grid, scope.head_dim)
    q, k, v = (
        torch.randn(shape, generator=generator, device=device, dtype=scope.dtype) for _ in range(3)
    )
    return q, k, v


class _Checker:
    """Compares results with the exact one, which is computed once for each question."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor) -> None:
        self._tensors = q, k, v
        self._exact: dict[tuple[Case, Sees], Tensor] = {}

    def error(self, out: Tensor, case: Case, contestant: Contestant) -> float:
        """Return the worst relative error of the checked queries."""
        queries = chosen_queries(case.layout, out.device)
        key = case, contestant.sees
        if key not in self._exact:
            self._exact[key] = exact_rows(*self._tensors, case, contestant.sees, queries)
        exact = self._exact[key]
        if contestant.image_only:
            image = queries >= case.text
            exact, queries = exact[:, image], queries[image] - case.text
        return worst_error(out[0, :, queries], exact)


def _prepare(
    result: Result,
    tensors: tuple[Tensor, Tensor, Tensor],
    checker: _Checker,
    scope: Scope,
    budget: Budget,
) -> None:
    """Compile, warm up and check; leave a run to be timed, or a reason."""
    q = tensors[0]
    contestant, case = result.contestant, result.case
    # A contestant must not end the others' run, whatever happens inside of it.
    try:
        objection = contestant.why_not(case, q)
        if objection is not None:
            result.reason = shortened(f"{NOT_THERE}: {objection}")
            return
        if not budget.allows():
            result.reason = NOT_RUN
            return
        call = contestant.prepare(case, *tensors)
        result.error = checker.error(call(), case, contestant)
        allowed = largest_error(scope.dtype)
        result.wrong = not contestant.approximate and not result.error <= allowed
        if not result.wrong:
            result.run = Run(call, seconds_of(call, q.device))
    except Exception as error:
        result.reason = short_reason(error)
        free_memory(q.device)


def _time(results: list[Result], device: torch.device, scope: Scope) -> None:
    running = [result for result in results if result.run is not None]
    runs = [result.run for result in running if result.run is not None]
    time_in_turns(
        runs,
        device,
        turns=scope.turns,
        turn_seconds=scope.turn_seconds,
        most_seconds=scope.most_seconds,
    )
    for result, run in zip(running, runs, strict=True):
        result.reason = run.failure
        result.seconds = None if run.failure else run.median
