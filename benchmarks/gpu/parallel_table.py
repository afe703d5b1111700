"""The tables of the GPU benchmark's third part: copies between GPUs, steps that they share."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.gpu.copies import CopyRates
from benchmarks.gpu.parallel import Result, Scope, tolerance
from benchmarks.ranks import STEPS


def markdown(
    copies: Sequence[CopyRates], results: Sequence[Result], scope: Scope, host_version: str
) -> str:
    """Return both tables."""
    return "\n".join(
        [
            "## Copies between GPUs",
            "",
            f"{scope.copied / 1e6:.0f} MB, best of a few, as torch copies between two devices. A "
            "device alone copies within its memory.",
            "",
            "| from | to | GB/s one way | GB/s while as much comes back | arrives whole |",
            "|---|---|---|---|---|",
            *(_copy_row(one) for one in copies),
            "",
            "## One step of FLUX.1 [dev] on several GPUs",
            "",
            f"ComfyUI {host_version}; {scope.size.double_blocks} double and "
            f"{scope.size.single_blocks} single blocks, hidden size {scope.size.hidden}, random "
            f"weights, {str(scope.dtype).removeprefix('torch.')}, {scope.text} text tokens, by the "
            f"host's sampler. Seconds: median of the steps after the first of {STEPS}. Waited: "
            "what each rank's thread waited for the others' tensors, not for the copies. Error: "
            "picture against that of one device, relative; above "
            f"{tolerance(scope):.1e} it is WRONG and not timed.",
            "",
            "| px | window | devices | s/step | times faster | MB received | ms waited | error |",
            "|---|---|---|---|---|---|---|---|",
            *(_row(result, results) for result in results),
        ]
    )


def mistakes(results: Sequence[Result]) -> list[str]:
    """Name the wrong pictures. Damaged copies are no mistake of ours: ranks go around them."""
    return [
        f"{result.devices}, r = {result.radius} at {result.edge} px: {_error(result)}"
        for result in results
        if result.wrong
    ]


def _copy_row(one: CopyRates) -> str:
    cells = (
        str(one.source),
        str(one.target),
        f"{one.one_way / 1e9:.1f}",
        f"{one.both_ways / 1e9:.1f}",
        "yes" if one.whole else "**NO**",
    )
    return "| " + " | ".join(cells) + " |"


def _row(result: Result, results: Sequence[Result]) -> str:
    cells = (
        f"{result.edge} x {result.edge}",
        f"r = {result.radius}",
        result.devices,
        result.told,
        _faster(result, results),
        " / ".join(f"{size / 1e6:,.1f}" for size in result.received) or "-",
        " / ".join(f"{1000 * seconds:,.0f}" for seconds in result.waited) or "-",
        _error(result),
    )
    return "| " + " | ".join(cells) + " |"


def _faster(result: Result, results: Sequence[Result]) -> str:
    key = (result.edge, result.radius)
    one = next((r.seconds for r in results if (r.edge, r.radius) == key and not r.received), None)
    if not result.received or not one or not result.seconds:
        return "-"
    return f"{one / result.seconds:.2f}"


def _error(result: Result) -> str:
    if result.error is None:
        return "not finite" if result.wrong else "-"
    return f"{result.error:.1e}"
