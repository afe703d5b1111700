"""A sampling step on two cores as two ranks of CLEAR Parallel against one core, on a narrow FLUX.

    python3 benchmarks/cpu/parallel.py

Each rank is a thread that computes with one core. Both cores must have nothing else to do: the load
before the run is part of the result. The picture of two ranks is compared with that of one before
anything is timed; a time is the best of all steps after the first of a run.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.environment import reexec_in_venv

RADIUS, TEXT = 8, 256
EDGES_PX = (2048, 4096)
GOALS = {2048: 1.7, 4096: 1.85}
CHECKED_PX = 512
TOLERANCE = 1e-6  # relative: float32 rounding
ONE, TWO = "cpu", "cpu,cpu"
DOUBLE_BLOCKS, SINGLE_BLOCKS, HIDDEN = 1, 1, 512


@dataclass(frozen=True)
class Row:
    """What one size takes.

    Attributes:
        edge: Of the picture, in pixels.
        one: Seconds per step on one core.
        two: Seconds per step as two ranks.
        received: Bytes that the busier rank receives in a step.
        waited: Seconds in which each rank waited in a step.
    """

    edge: int
    one: float
    two: float
    received: float
    waited: list[float]

    def markdown(self) -> str:
        """Return the row of the table."""
        goal = GOALS.get(self.edge)
        cells = (
            f"{self.edge} x {self.edge}",
            f"{self.one:.2f}",
            f"{self.two:.2f}",
            f"{self.one / self.two:.2f} x",
            "-" if goal is None else f"{goal:g} x",
            f"{self.received / 1e6:.1f}",
            " / ".join(f"{1000 * seconds:.0f}" for seconds in self.waited),
        )
        return "| " + " | ".join(cells) + " |"


def main() -> None:
    # Read when torch is loaded, by each thread that a rank is: one core each.
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edges", type=int, nargs="+", default=EDGES_PX, metavar="PIXELS")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    host = reexec_in_venv()
    load = os.getloadavg()[0]
    from benchmarks.cpu.host import import_host
    from benchmarks.results_file import write

    import_host(host, True, 1)
    write("parallel", report(host, options.edges, options.rounds, load))


def report(host: Path, edges: list[int], rounds: int, load: float) -> str:
    """Return the table as Markdown."""
    from tools.host import Host

    model = narrow_flux()
    check(model)
    return "\n".join(
        [
            f"ComfyUI {Host(host).version}; FLUX with {DOUBLE_BLOCKS} double and {SINGLE_BLOCKS} "
            f"single block of {HIDDEN // 128} heads x 128, float32, {TEXT} text tokens, CLEAR r = "
            f"{RADIUS}. Seconds per sampling step, one thread for each rank; {os.cpu_count()} "
            f"cores, whose load was {load:.2f} before the run.",
            "",
            "| pixels | one rank | two ranks | faster | goal | MB received | ms waited |",
            "|---|---|---|---|---|---|---|",
            *(row(model, edge, rounds).markdown() for edge in edges),
        ]
    )


def narrow_flux() -> Any:
    """Return a MODEL with CLEAR attention and random weights."""
    import torch

    from benchmarks.gpu.model import random_model
    from clear_attention.comfyui.core.patch import with_window
    from clear_attention.comfyui.core.settings import WindowSettings

    model = random_model(size(), torch.device("cpu"), torch.float32)
    return with_window(model, WindowSettings(RADIUS))


def size() -> Any:
    """Return the model's size."""
    from benchmarks.gpu.model import Size

    return Size(DOUBLE_BLOCKS, SINGLE_BLOCKS, HIDDEN, text_dim=64, pooled_dim=64)


def check(model: Any) -> None:
    """Refuse to time ranks whose picture is another one."""
    from benchmarks.ranks import distance, shared_run

    one, two = (
        shared_run(model, devices, size(), CHECKED_PX, TEXT).latent for devices in (ONE, TWO)
    )
    error = distance(two, one)
    if not error <= TOLERANCE:
        raise SystemExit(f"Two ranks change the picture by {error:.1e}: not timed.")


def row(model: Any, edge: int, rounds: int) -> Row:
    """Time one size, in turns."""
    from benchmarks.ranks import SharedRun, shared_run

    best = dict.fromkeys((ONE, TWO), math.inf)
    shared: SharedRun | None = None
    for _ in range(rounds):
        for devices in best:
            run = shared_run(model, devices, size(), edge, TEXT)
            best[devices] = min(best[devices], *run.seconds)
            shared = run
    assert shared is not None
    print(f"{edge} x {edge} done", file=sys.stderr)
    return Row(edge, best[ONE], best[TWO], max(shared.received), shared.waited)


if __name__ == "__main__":
    main()
