"""Plant faults into the PTX of the kernels, and print what the interpreter says of each.

    python3 tests/ptx/faults.py

Prints one line of JSON per fault.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from ptx.driver import Machine, install
from ptx.library import Library, Options, build
from ptx.trial_table import trial
from ptx.trials import Trial, roles, run
from torch import Tensor

KERNELS = ("forward", "backward_queries", "backward_keys")
# Ragged, several blocks of shared tokens and of the list, both kinds of launch; NaN around each
# row of v.
TRIAL = trial("sm_80", "spaced v, long text", torch.bfloat16, 64, {"trained": True})
FORWARD = replace(TRIAL, trained=False)
NOTHING_SHARED = trial("sm_80", "no shared token", torch.bfloat16, 64, {})
MOST_STEPS = 100_000  # a broken loop may have no end
# -(2.0**100) and -1e30.
HIDDEN, NO_POWER_OF_TWO = "0fF1800000", "0fF149F2CA"

Plant = Callable[[list[str]], Iterator[list[str]]]


@dataclass(frozen=True)
class Fault:
    """A way to break a kernel.

    Attributes:
        name: What is done to it.
        kernel: The one that is broken, in its launch over the grid.
        plant: Returns broken versions of its lines, each of which must be noticed.
        expected: Kinds of findings, of which each version must have one; none if only the numbers
            can tell.
        trial: The call, if it is not `TRIAL`.
    """

    name: str
    kernel: str
    plant: Plant
    expected: tuple[str, ...]
    trial: Trial | None = None


def loops(lines: list[str]) -> list[int]:
    """Return the lines of all loops that multiply matrices."""
    labels: dict[str, int] = {}
    inside: list[int] = []
    for at, line in enumerate(lines):
        if label := re.match(r"(\$\w+):", line):
            labels[label[1]] = at
        jump = re.search(r"\bbra(?:\.uni)?\s+(\$\w+);", line)
        start = labels.get(jump[1], at) if jump else at
        if any("mma.sync" in line for line in lines[start:at]):
            inside += range(start, at)
    return inside


def places(lines: list[str], pattern: str, within: Sequence[int] | None = None) -> list[int]:
    """Return the lines that match, of all or of some."""
    among = range(len(lines)) if within is None else within
    found = [at for at in among if re.search(pattern, lines[at])]
    if not found:
        raise ValueError(f"The kernel must have a line with {pattern}, got none")
    return found


def changed(lines: list[str], at: int, line: str) -> list[str]:
    """Return the lines with another one in a place."""
    return [*lines[:at], line, *lines[at + 1 :]]


def without(pattern: str) -> Plant:
    """Remove, one at a time, what matches in the loops."""

    def plant(lines: list[str]) -> Iterator[list[str]]:
        for at in places(lines, pattern, loops(lines)):
            yield changed(lines, at, "")

    return plant


def without_first(pattern: str) -> Plant:
    """Remove the first line that matches."""

    def plant(lines: list[str]) -> Iterator[list[str]]:
        yield changed(lines, places(lines, pattern)[0], "")

    return plant


def each(pattern: str, replacement: str) -> Plant:
    """Replace a pattern wherever it is, at once."""

    def plant(lines: list[str]) -> Iterator[list[str]]:
        places(lines, pattern)
        yield [re.sub(pattern, replacement, line) for line in lines]

    return plant


def waits_for_less(lines: list[str]) -> Iterator[list[str]]:
    """Let each wait of the loops leave one more group in flight."""
    for at in places(lines, r"cp\.async\.wait_group", loops(lines)):
        number = re.sub(r"\d+;", lambda found: f"{int(found[0][:-1]) + 1};", lines[at])
        yield changed(lines, at, number)


def half_of_the_lanes_at_a_barrier(lines: list[str]) -> Iterator[list[str]]:
    """Let only odd lanes reach the loops' first barrier."""
    at = places(lines, r"bar\.sync", loops(lines))[0]
    thread = "mov.u32 %r90001, %tid.x;\nand.b32 %r90001, %r90001, 1;\n"
    guard = "setp.eq.b32 %p90001, %r90001, 1;\n@%p90001 " + lines[at].strip()
    yield changed(lines, at, thread + guard)


RACES = ("race: ",)
IN_FLIGHT = ("read of a copy in flight", "write onto a copy in flight")
COPY = r"(cp\.async\.cg\.shared\.global \[ %r\d+ \+ 0 \], \[ %rd\d+ \+ )0"
FAULTS = (
    *(Fault("a barrier less in its loops", name, without(r"bar\.sync"), RACES) for name in KERNELS),
    *(Fault("no wait for copies", name, without(r"wait_group"), IN_FLIGHT) for name in KERNELS),
    *(Fault("waits for fewer copies", name, waits_for_less, IN_FLIGHT) for name in KERNELS),
    *(
        Fault("rows are read from 16 bytes later on", name, each(COPY, r"\g<1>16"), ("stray",))
        for name in KERNELS
    ),
    Fault("misaligned copies", "forward", each(COPY, r"\g<1>2"), ("misaligned global",)),
    Fault(
        "tiles are kept 16 bytes further on",
        "forward",
        each(r"(st\.shared\.v4\.b32\s+\[%r\d+)\]", r"\1+16]"),
        ("read of uninitialised shared memory",),
    ),
    Fault(
        "tiles are kept behind the end",
        "forward",
        each(r"(st\.shared\.v4\.b32\s+\[%r\d+)\+12288\]", r"\1+262144]"),
        ("stray shared access",),
    ),
    Fault(
        "tokens beyond the grid are written",
        "forward",
        each(r"@%p\d+ (st\.global\.v4)", r"\1"),
        ("output written twice",),
    ),
    Fault(
        "a part of the output is not written",
        "forward",
        without_first(r"st\.global\.v4"),
        ("output never written",),
    ),
    Fault(
        "lanes part before a barrier",
        "forward",
        half_of_the_lanes_at_a_barrier,
        ("barrier in a divergent branch",),
    ),
    Fault(
        "a register without a value",
        "forward",
        without_first(r"%tid\.x"),
        ("read of an uninitialised register",),
    ),
    Fault("a matrix is not transposed", "forward", each(r"\.x4\.trans", ".x4"), ()),
    Fault(
        "scores of hidden keys are no power of two",
        "forward",
        each(HIDDEN, NO_POWER_OF_TWO),
        (),
        NOTHING_SHARED,
    ),
)


def of_grid(machine: Machine, one: Trial) -> dict[str, str]:
    """Return the text of each kernel's first launch in a trial."""
    texts: dict[str, str] = {}

    def keep(text: str) -> str:
        name = re.search(r"\.entry (\w+)", text)
        assert name is not None
        texts.setdefault(name[1], text)
        return text

    machine.edit = keep
    run(one, machine)
    return texts


def noticed(
    machine: Machine, fault: Fault, text: str, outputs: dict[str, list[list[Tensor]]]
) -> Iterator[dict[str, Any]]:
    """Execute each broken version of a kernel; of the others, the outputs are known."""
    chosen = fault.trial or (FORWARD if fault.kernel == "forward" else TRIAL)
    fast = replace(chosen, options=Options(most_steps=MOST_STEPS))
    for lines in fault.plant(text.splitlines()):
        broken = "\n".join(lines)
        machine.edit = lambda found, broken=broken: broken if found == text else found
        machine.known = {name: list(of) for name, of in outputs.items() if name != fault.kernel}
        outcome = run(fast, machine)
        findings = [finding for launched in outcome.launched for finding in launched.run.findings]
        yield {
            "kinds": sorted({finding.kind for finding in findings if not finding.is_note}),
            "lines": [finding.line for finding in findings],
            "error": max(outcome.errors.values()),
        }
    machine.known = {}


def planted(machine: Machine) -> Iterator[dict[str, Any]]:
    """Plant all faults, and describe what was noticed of each."""
    machine.outputs = {}
    texts = of_grid(machine, TRIAL)
    outputs, machine.outputs = machine.outputs, {}
    for fault in FAULTS:
        versions = list(noticed(machine, fault, texts[fault.kernel], outputs))
        yield {"name": fault.name, "kernel": fault.kernel, "versions": versions}


def main() -> None:
    """Plant all faults, one after the other."""
    parser = argparse.ArgumentParser(description="Plant faults into the PTX of the kernels.")
    parser.add_argument("--library", type=Path, help="a built interpreter; built if not given")
    parser.add_argument("--cache", type=Path, help="folder that keeps what Triton compiles")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # its tensors are small: threads would only wait for each other
    with tempfile.TemporaryDirectory() as folder:
        machine = Machine(Library(arguments.library or build(Path(folder))), roles)
        install(machine, arguments.cache or Path(folder))
        for found in planted(machine):
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
