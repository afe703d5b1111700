"""CLEAR attention against the host's own full attention, one layer, on this machine's CPU.

    python3 benchmarks/cpu/attention.py

Every case is checked against the reference before it is timed. Times are the best of several
interleaved repetitions in one process; memory is the growth of a fresh process's peak.
"""

from __future__ import annotations

import argparse
import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.environment import reexec_in_venv

HEADS, HEAD_DIM, TEXT = 4, 64, 256
RADII = (8, 16, 32)
GRIDS = (64, 96, 128, 192, 256)
LARGEST_FULL_GRID = 128
CHECKED_GRID = 48


@dataclass(frozen=True)
class Case:
    """One attention layer: HEADS x HEAD_DIM, float32, TEXT text tokens.

    Attributes:
        grid: Edge of the square grid, in tokens.
        radius: Of the window, in tokens.
    """

    grid: int
    radius: int


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--memory", type=int, nargs=2, metavar=("GRID", "RADIUS"))
    arguments.add_argument("--repeat", type=int, default=5)
    options = arguments.parse_args()
    if options.memory:
        print(extra_memory(Case(*options.memory)))
        return
    host = reexec_in_venv()
    from benchmarks.results_file import write

    write("attention", report(host, options.repeat))


def report(host: Path, repeat: int) -> str:
    """Return the tables as Markdown."""
    # First, while this process is small: on Linux a child inherits its parent's peak.
    memory = [memory_in_child(Case(GRIDS[-1], radius)) for radius in RADII]
    check_exactness()
    full = host_attention(host)
    rows = [row(full, grid, repeat) for grid in GRIDS]
    table = [
        f"{HEADS} heads x {HEAD_DIM}, float32, {TEXT} text tokens. Seconds per layer and, in "
        "brackets, how many times faster than the faster full attention of the same run.",
        "",
        "| grid | host, full | torch SDPA, full | " + " | ".join(f"r = {r}" for r in RADII) + " |",
        "|---" * (3 + len(RADII)) + "|",
        *(row.markdown() for row in rows),
        "",
        "| | " + " | ".join(f"r = {radius}" for radius in RADII) + " |",
        "|---" * (1 + len(RADII)) + "|",
        f"| exponent of time against pixels, {GRIDS[0]}^2 to {GRIDS[-1]}^2 | "
        + " | ".join(f"{exponent(rows, index):.2f}" for index in range(len(RADII)))
        + " |",
        f"| extra memory at {GRIDS[-1]}^2, in q tensors, output included | "
        + " | ".join(f"{share:.2f}" for share in memory)
        + " |",
    ]
    return "\n".join(table)


@dataclass(frozen=True)
class Row:
    """Seconds per layer on one grid; None where full attention takes too long to wait for."""

    grid: int
    host: float | None
    torch: float | None
    local: list[float]

    @property
    def full(self) -> float | None:
        """The faster of the two full attentions."""
        return min(filter(None, (self.host, self.torch)), default=None)

    def markdown(self) -> str:
        """Return the row of the table."""
        cells = [f"{self.grid} x {self.grid}", _seconds(self.host), _seconds(self.torch)]
        for seconds in self.local:
            ratio = f" ({self.full / seconds:.1f} x)" if self.full else ""
            cells.append(_seconds(seconds) + ratio)
        return "| " + " | ".join(cells) + " |"


def row(full: Callable[..., object], grid: int, repeat: int) -> Row:
    """Time one grid, everything interleaved."""
    import torch
    import torch.nn.functional as F

    from clear_attention import Window, attention

    q, k, v, layout = tensors(Case(grid, 1))
    runs: dict[str, Callable[[], object]] = {
        str(radius): lambda radius=radius: attention(
            q, k, v, layout, Window(radius), backend="tiled"
        )
        for radius in RADII
    }
    if grid <= LARGEST_FULL_GRID:
        runs["host"] = lambda: full(q, k, v, HEADS, skip_reshape=True)
        runs["torch"] = lambda: F.scaled_dot_product_attention(q, k, v)
    best = dict.fromkeys(runs, math.inf)
    with torch.inference_mode():
        for _ in range(repeat):
            for name, run in runs.items():
                started = time.perf_counter()
                run()
                best[name] = min(best[name], time.perf_counter() - started)
    print(f"{grid} x {grid} done", file=sys.stderr)
    return Row(grid, best.get("host"), best.get("torch"), [best[str(radius)] for radius in RADII])


def tensors(case: Case) -> tuple[Any, Any, Any, Any]:
    """Return seeded q, k, v ``[1, HEADS, L, HEAD_DIM]`` and their layout."""
    import torch

    from clear_attention import TokenLayout

    layout = TokenLayout(TEXT, case.grid, case.grid)
    generator = torch.Generator().manual_seed(0)
    shape = (1, HEADS, layout.tokens, HEAD_DIM)
    q, k, v = (torch.randn(shape, generator=generator) for _ in range(3))
    return q, k, v, layout


def check_exactness() -> None:
    """Refuse to time what differs from the reference."""
    import torch

    from clear_attention import Window, attention

    for radius in RADII:
        q, k, v, layout = tensors(Case(CHECKED_GRID, radius))
        tiled, reference = (
            attention(q, k, v, layout, Window(radius), backend=name)
            for name in ("tiled", "reference")
        )
        torch.testing.assert_close(tiled, reference, atol=1e-5, rtol=1e-5)


def host_attention(host: Path) -> Callable[..., object]:
    """Return the attention function that the host itself uses on this machine."""
    sys.path.insert(0, str(host))
    import comfy.options

    arguments, sys.argv = sys.argv, [sys.argv[0], "--cpu"]
    comfy.options.enable_args_parsing()
    from comfy.ldm.modules.attention import optimized_attention

    sys.argv = arguments
    return optimized_attention


def exponent(rows: list[Row], index: int) -> float:
    """Return the slope of log time against log pixels between the smallest and largest grid."""
    first, last = rows[0], rows[-1]
    pixels = (last.grid / first.grid) ** 2
    return math.log(last.local[index] / first.local[index]) / math.log(pixels)


def memory_in_child(case: Case) -> float:
    """Measure `extra_memory` where nothing else has raised the peak."""
    command = [sys.executable, __file__, "--memory", str(case.grid), str(case.radius)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def extra_memory(case: Case) -> float:
    """Return how much one call raises the peak of this process, in sizes of q."""
    import torch

    from clear_attention import Window, attention

    q, k, v, layout = tensors(case)
    with torch.inference_mode():
        # Libraries allocate their own buffers at the first call.
        *warm, small = tensors(Case(32, case.radius))
        attention(warm[0], warm[1], warm[2], small, Window(case.radius), backend="tiled")
        before = peak_bytes()
        attention(q, k, v, layout, Window(case.radius), backend="tiled")
    return (peak_bytes() - before) / (q.numel() * q.element_size())


def peak_bytes() -> int:
    """Return the largest resident size of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


if __name__ == "__main__":
    main()
