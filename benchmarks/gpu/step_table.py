"""The table of the GPU benchmark's second half, beside its goals and the paper's figures."""

from __future__ import annotations

from benchmarks.gpu.step import Result, Scope, largest_error
from benchmarks.gpu.variant import FULL

# (radius, edge in pixels) -> times faster than full attention.
GOALS = {
    (8, 1024): 1.07,
    (8, 2048): 1.5,
    (8, 4096): 3.2,
    (8, 8192): 10.0,
    (16, 1024): 1.04,
    (16, 2048): 1.4,
    (16, 4096): 3.0,
    (16, 8192): 9.0,
    **{(32, edge): 1.0 for edge in (1024, 2048, 4096, 8192)},
}
# From the seconds of arXiv 2412.16112, on an H100.
PAPER = {
    (8, 1024): 1.01,
    (8, 2048): 1.33,
    (8, 4096): 2.15,
    (8, 8192): 6.3,
    (16, 1024): 0.98,
    (16, 2048): 1.22,
    (16, 4096): 1.79,
    (16, 8192): 5.1,
}


def markdown(results: list[Result], scope: Scope, host_version: str) -> str:
    """Return the table."""
    lines = [
        "## One step of FLUX.1 [dev]",
        "",
        f"ComfyUI {host_version}; {scope.size.double_blocks} double and {scope.size.single_blocks} "
        f"single blocks, hidden size {scope.size.hidden}, random weights, "
        f"{str(scope.dtype).removeprefix('torch.')}, {scope.text} text tokens, batch 1. Seconds: "
        "median of the calls after the first; a full step above "
        f"{scope.single_seconds:g} s is called once. Peak: allocated by torch, weights included. "
        f"Error: velocity against the reference backend's at {scope.edges[0]} px, relative; above "
        f"{largest_error(scope):.1e} a result is WRONG and not timed.",
        "",
        "| pixels | attention | backend | s/step | times faster | goal | paper | peak GB | error |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_row(result, results) for result in results),
    ]
    return "\n".join(lines)


def mistakes(results: list[Result]) -> list[str]:
    """Name the wrong results."""
    return [
        f"{result.variant.name} at {result.edge} px: {_error(result)}"
        for result in results
        if result.wrong
    ]


def _row(result: Result, results: list[Result]) -> str:
    key = (result.variant.radius or 0, result.edge)
    cells = (
        f"{result.edge} x {result.edge}",
        result.variant.name,
        _backend(result),
        result.told,
        _faster(result, results),
        f"{GOALS[key]:g}" if key in GOALS else "-",
        f"{PAPER[key]:g}" if key in PAPER else "-",
        "-" if result.peak is None else f"{result.peak / 1e9:.1f}",
        _error(result),
    )
    return "| " + " | ".join(cells) + " |"


def _backend(result: Result) -> str:
    """Name what was asked for, and what ran if that is another name."""
    asked = result.variant.backend
    if result.variant == FULL:
        return result.ran
    return asked if result.ran in ("", asked) else f"{asked}: {result.ran}"


def _faster(result: Result, results: list[Result]) -> str:
    full = next(
        (other.seconds for other in results if (other.edge, other.variant) == (result.edge, FULL)),
        None,
    )
    if result.variant == FULL or not full or not result.seconds:
        return "-"
    ratio = full / result.seconds
    goal = GOALS.get((result.variant.radius or 0, result.edge))
    verdict = "" if goal is None else ", reached" if ratio >= goal else ", missed"
    return f"{ratio:.2f}{verdict}"


def _error(result: Result) -> str:
    if result.error is None:
        return "not finite" if result.wrong else "-"
    return f"{result.error:.1e}"
