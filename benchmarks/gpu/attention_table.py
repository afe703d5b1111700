"""The tables of the GPU benchmark's first half."""

from __future__ import annotations

import itertools

import torch

from benchmarks.gpu.attention import Result, Scope
from benchmarks.gpu.contestants import Contestant, fused_kernel
from benchmarks.gpu.exact import Case, largest_error
from benchmarks.gpu.measure import NOT_THERE, short_reason


def markdown(results: list[Result], scope: Scope, device: torch.device) -> str:
    """Return the tables, one for each text length and pooling; who never came is named below."""
    absent = _absent(results)
    present = [result for result in results if result.contestant.name not in absent]
    lines = ["## One attention layer", "", _legend(scope, device)]
    for text, factor in itertools.product(scope.texts, scope.factors):
        lines += ["", *_table(present, scope, text, factor)]
    lines += ["", *(f"- {name}: {reason}" for name, reason in absent.items())]
    return "\n".join(lines).rstrip()


def mistakes(results: list[Result]) -> list[str]:
    """Name the wrong results."""
    return [
        f"{result.contestant.name}, {result.case}: error {result.error:.1e}"
        for result in results
        if result.wrong
    ]


def _legend(scope: Scope, device: torch.device) -> str:
    return (
        f"{scope.heads} heads x {scope.head_dim}, {str(scope.dtype).removeprefix('torch.')}, batch "
        f"1. A cell is milliseconds / TFLOP/s / error. Milliseconds: median of {scope.turns} turns "
        "in which all contestants of a grid alternate, calls back to back, the L2 cache left as it "
        "is. TFLOP/s: 4 x heads x head_dim x pairs of the answer, not of the tiles computed. "
        "Error: the worst checked query's against float64, relative; above "
        f"{largest_error(scope.dtype):.1e} a result is WRONG and not timed. Full attention (torch "
        f"picked {_picked(scope, device)}) and its approximation depend on neither radius nor "
        "pooling: one measurement, repeated. The attention of random tensors is spread over all "
        "keys, the worst that an approximation can meet: on pictures it errs less."
    )


def _picked(scope: Scope, device: torch.device) -> str:
    try:
        shape = (1, scope.heads, 64, scope.head_dim)
        return fused_kernel(torch.empty(shape, dtype=scope.dtype, device=device))
    except RuntimeError as error:  # a kernel that crashed has taken the device with it
        return short_reason(error)


def _absent(results: list[Result]) -> dict[str, str]:
    """Return who took part in no case, and its one reason."""
    absent: dict[str, str] = {}
    for name in dict.fromkeys(result.contestant.name for result in results):
        reasons = {result.reason for result in results if result.contestant.name == name}
        if len(reasons) == 1 and (reason := reasons.pop()).startswith(NOT_THERE):
            absent[name] = reason
    return absent


def _table(results: list[Result], scope: Scope, text: int, factor: int) -> list[str]:
    names = list(dict.fromkeys(result.contestant.name for result in results))
    names.sort(key=[contestant.name for contestant in _order(results)].index)
    pooled = f"pooled by {factor}" if factor else "no pooling"
    lines = [
        f"### {text} text tokens, {pooled}",
        "",
        "| grid | r | " + " | ".join(names) + " |",
        "|---" * (2 + len(names)) + "|",
    ]
    for grid, radius in itertools.product(scope.grids, scope.radii):
        case = Case(grid, text, radius, factor)
        cells = [_cell(results, scope, name, case) for name in names]
        lines.append(f"| {grid} x {grid} | {radius} | " + " | ".join(cells) + " |")
    return lines


def _order(results: list[Result]) -> list[Contestant]:
    """Return the contestants, those with a window first."""
    found = {result.contestant.name: result.contestant for result in results}
    return sorted(found.values(), key=lambda contestant: not contestant.windowed)


def _cell(results: list[Result], scope: Scope, name: str, case: Case) -> str:
    for result in results:
        contestant = result.contestant
        same = (result.case.grid, result.case.text) == (case.grid, case.text)
        if contestant.name == name and same and (result.case == case or not contestant.windowed):
            return _told(result, scope)
    return "-"


def _told(result: Result, scope: Scope) -> str:
    """Return milliseconds, TFLOP/s and error; or why there are none."""
    if result.wrong:
        return f"**WRONG**, error {result.error:.1e}"
    if result.seconds is None:
        return result.reason
    work = 4 * scope.heads * scope.head_dim * result.case.pairs(result.contestant.sees)
    rate = "-" if result.contestant.approximate else f"{work / result.seconds / 1e12:.3g}"
    return f"{1000 * result.seconds:.4g} / {rate} / {result.error:.1e}"
