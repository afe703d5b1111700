"""The planner's expectation against the run, on the demo's small FLUX: time and memory of a step.

    python3 benchmarks/cpu/plan.py

Expectation and measurement take turns in one process, and of both the best of all rounds counts:
what else the machine does spoils single ones. Memory is that by which another process grows (Linux
only): its allocator gives back what is freed, which takes time.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.cpu.host import RADIUS, import_host, models, sample
from tools.environment import reexec_in_venv

EDGES_PX = (512, 1024, 2048)
TOO_LONG = 4.0  # seconds per step: such sizes are not measured with full attention
TIME_TARGET, MEMORY_TARGET = 0.20, 0.15
# Otherwise glibc keeps freed tensors for itself, and the process is larger than what it uses.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
NAMES = {"full": "full", "clear": f"CLEAR r = {RADIUS}"}
STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Row:
    """One size and one attention.

    Attributes:
        edge: Of the picture, in pixels.
        attention: "full" or CLEAR's name.
        expected: Seconds per step.
        seconds: Measured.
        expected_memory: Bytes beside the weights.
        memory: Measured, or None.
    """

    edge: int
    attention: str
    expected: float
    seconds: float
    expected_memory: int
    memory: int | None

    def markdown(self) -> str:
        """Return the row of the table."""
        memory = ["-", "-"]
        if self.memory:
            memory = [f"{self.memory / 2**20:.1f}", percent(self.expected_memory / self.memory)]
        cells = (
            f"{self.edge} x {self.edge}",
            self.attention,
            f"{self.expected:.3f}",
            f"{self.seconds:.3f}",
            percent(self.expected / self.seconds),
            f"{self.expected_memory / 2**20:.1f}",
            *memory,
        )
        return "| " + " | ".join(cells) + " |"

    @property
    def time_missed(self) -> bool:
        """Whether the time is farther off than it should be."""
        return abs(self.expected / self.seconds - 1) > TIME_TARGET

    @property
    def memory_missed(self) -> bool:
        """Whether the memory is farther off than it should be."""
        return bool(self.memory) and abs(self.expected_memory / self.memory - 1) > MEMORY_TARGET


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--edges", type=int, nargs="+", default=EDGES_PX, metavar="PIXELS")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--threads", type=int, help="fewer are steadier on a busy machine")
    arguments.add_argument("--memory", choices=("full", "clear"), help=argparse.SUPPRESS)
    arguments.add_argument(
        "--processor-time", action="store_true", help="not the clock's: on a machine in use"
    )
    options = arguments.parse_args()
    import_host(reexec_in_venv(), True, options.threads)
    if options.memory:  # the other process
        model = dict(zip(("full", "clear"), models(), strict=True))[options.memory]
        print(peak_of_one_run(model, *options.edges))
        return
    if options.processor_time:
        from clear_attention.plan import machine as timing

        timing.clock = time.process_time
    from benchmarks.results_file import write

    write("plan", report(options.edges, options.rounds))


def report(edges: Iterable[int], rounds: int) -> str:
    """Return the table as Markdown."""
    full, clear = models()
    clock = "of processor time" if processor_time() else "by the clock"
    rows = [row for edge in edges for row in measure(full, clear, edge, rounds)]
    missed = sum(row.time_missed for row in rows), sum(row.memory_missed for row in rows)
    return "\n".join(
        [
            f"The demo's FLUX (1 double and 4 single blocks, 2 heads x 128) in float32, CLEAR with "
            f"r = {RADIUS}. Seconds {clock} per sampling step, MiB beside the weights; the best of "
            f"{rounds} rounds.",
            "",
            "| pixels | attention | s expected | s measured | deviation | MiB expected "
            "| MiB measured | deviation |",
            "|---|---|---|---|---|---|---|---|",
            *(row.markdown() for row in rows),
            "",
            f"Wanted: time within {TIME_TARGET:.0%}, memory within {MEMORY_TARGET:.0%}. Missed by "
            f"{missed[0]} of {len(rows)} times and {missed[1]} of {len(rows)} memory figures.",
        ]
    )


def measure(full: Any, clear: Any, edge: int, rounds: int) -> list[Row]:
    """Plan and run one size, in turns."""
    from clear_attention.comfyui.plan import model as plan_of
    from demo.nodes.text import MIN_TOKENS

    best: dict[str, tuple[float, float]] = {}
    memory: dict[str, tuple[int, int | None]] = {}
    for _ in range(rounds):
        plan_of.KNOWN.clear()
        plan = plan_of.plan_model(clear, (edge, edge), text_tokens=MIN_TOKENS)
        contestants = {"clear": (clear, plan.clear)}
        if plan.full.seconds < TOO_LONG:
            contestants["full"] = (full, plan.full)
        for name, (model, cost) in contestants.items():
            expected, seconds = best.get(name, (math.inf, math.inf))
            best[name] = min(expected, cost.seconds), min(seconds, fastest_step(model, edge))
            memory[name] = memory.get(name) or (cost.memory, measured_memory(name, edge))
    print(f"{edge} x {edge} done", file=sys.stderr)
    return [Row(edge, NAMES[name], *best[name], *memory[name]) for name in best]


def processor_time() -> bool:
    """Tell whether the processor's own time is taken."""
    from clear_attention.plan import machine as timing  # needs torch, which the venv has

    return timing.clock is time.process_time


def fastest_step(model: Any, edge: int) -> float:
    """Return the seconds of the fastest step of a run, or the processor's time for a mean one."""
    if not processor_time():
        _, ends = sample(model, edge, steps=4)
        return min(end - start for start, end in itertools.pairwise(ends))
    times = [time.process_time()]
    for steps in (1, 4):
        sample(model, edge, steps)
        times.append(time.process_time())
    return (times[2] - 2 * times[1] + times[0]) / 3


def measured_memory(name: str, edge: int) -> int | None:
    """Return what another process measures, or None where it cannot."""
    if not STATUS.exists():
        return None
    command = [sys.executable, __file__, "--memory", name, "--edges", str(edge), "--threads", "1"]
    environment = {**os.environ, **ALLOCATOR}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout.split()[-1])


def peak_of_one_run(model: Any, edge: int) -> int:
    """Return the bytes by which this process grows in a run, after a first one."""
    sample(model, edge, steps=1)
    before = _resident("VmRSS")
    CLEAR_REFS.write_text("5")  # forget the peak so far
    sample(model, edge, steps=2)
    return _resident("VmHWM") - before


def percent(ratio: float) -> str:
    """Write how far off an expectation is."""
    return f"{100 * (ratio - 1):+.0f} %"


def _resident(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", STATUS.read_text(encoding="utf-8"))
    assert found is not None
    return int(found[1]) * 1024


if __name__ == "__main__":
    main()
