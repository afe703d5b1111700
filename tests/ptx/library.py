"""The interpreter of PTX as a library: built with g++, called by ctypes.

It knows neither Triton nor attention: a program is a PTX text, memory is a list of tensors.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

SOURCES = Path(__file__).with_name("interpreter")
FLAGS = ("-std=c++17", "-O2", "-ffp-contract=off", "-fPIC")
ORDERS = ("forward", "reverse", "random")  # of warps between barriers
VIEW_BITS = 40  # as in memory.hpp
SAME_BITS = 16  # of an address are those of the tensor: alignment is what it is on a card
REPORT_BYTES = 1 << 20


class _View(ctypes.Structure):
    _fields_ = (
        ("host", ctypes.c_void_p),
        ("address", ctypes.c_uint64),
        ("elements", ctypes.c_uint64),
        ("present", ctypes.c_void_p),
        ("writes", ctypes.c_void_p),
        ("element_bytes", ctypes.c_uint32),
        ("readable", ctypes.c_uint32),
    )


class _Options(ctypes.Structure):
    _fields_ = (
        ("order", ctypes.c_uint32),
        ("seed", ctypes.c_uint32),
        ("truncate", ctypes.c_uint32),
        ("most_steps", ctypes.c_uint32),
    )


@dataclass(frozen=True)
class Options:
    """How a launch is executed.

    Attributes:
        order: One of `ORDERS`.
        seed: Of the random order.
        truncate: Whether tensor cores cut off what they add; otherwise their sums are exact, and
            rounded once.
        most_steps: Instructions that a warp may execute between two barriers.
    """

    order: str = "forward"
    seed: int = 0
    truncate: bool = False
    most_steps: int = 10_000_000


@dataclass(frozen=True)
class Finding:
    """Something that a program must not do, or for notes should not.

    Attributes:
        kind: What it is.
        line: Of the PTX text, from 1; 0 where there is none.
        count: How often it was seen.
        first: Where it was seen first, and the addresses.
        text: The instruction.
        source: Place in the source code that the instruction comes from, if the PTX names it.
    """

    kind: str
    line: int
    count: int
    first: str
    text: str = ""
    source: str = ""

    @property
    def is_note(self) -> bool:
        """Whether it is no error."""
        return self.kind.startswith("note")

    def __str__(self) -> str:
        place = f"PTX line {self.line} `{self.text}` from {self.source or 'nowhere'}"
        return f"{self.kind}: {self.count} x, {place}: {self.first}"


@dataclass(frozen=True)
class Run:
    """What a launch did.

    Attributes:
        findings: What was wrong, and notes.
        steps: Instructions that its warps executed.
        barriers: That its CTAs passed.
    """

    findings: tuple[Finding, ...]
    steps: int
    barriers: int


class Memory:
    """A tensor as a kernel sees it: at an address of its own, gaps between its rows forbidden."""

    def __init__(self, index: int, tensor: Tensor, written: bool, readable: bool) -> None:
        """Lay out a tensor.

        Args:
            index: Of the kernel's parameter.
            tensor: Of any strides, on the CPU.
            written: Whether the kernel must write every byte of it, once.
            readable: Whether the kernel may read it.
        """
        reach = (size - 1 for size in tensor.shape)
        steps = (a * b for a, b in zip(reach, tensor.stride(), strict=True))
        elements = 1 + sum(steps) if tensor.numel() else 0
        self.tensor = tensor
        self.present = torch.zeros(elements, dtype=torch.uint8)
        if elements:
            self.present.as_strided(tensor.shape, tensor.stride()).fill_(1)
        self.writes = torch.zeros(elements if written else 0, tensor.element_size()).byte()
        self.address = (index + 1 << VIEW_BITS) | (tensor.data_ptr() & (1 << SAME_BITS) - 1)
        self.view = _View(
            tensor.data_ptr(),
            self.address,
            elements,
            self.present.data_ptr(),
            self.writes.data_ptr() if written else None,
            tensor.element_size(),
            readable,
        )

    def missing(self) -> int:
        """Return how many bytes should have been written, and were not."""
        if not self.writes.numel():
            return 0
        return int((self.writes[self.present.bool()] == 0).sum())


class Library:
    """The compiled interpreter."""

    def __init__(self, path: Path) -> None:
        self._calls = ctypes.CDLL(str(path))
        self._calls.ptx_parse.restype = ctypes.c_void_p

    def program(self, text: str) -> Program:
        """Read a PTX text; `ValueError` names the line that is not understood."""
        error = ctypes.create_string_buffer(1000)
        handle = self._calls.ptx_parse(text.encode(), error, ctypes.c_size_t(len(error)))
        if not handle:
            raise ValueError(error.value.decode())
        return Program(self._calls, ctypes.c_void_p(handle), text)


class Program:
    """A PTX kernel, ready to run."""

    def __init__(self, calls: ctypes.CDLL, handle: ctypes.c_void_p, text: str) -> None:
        self._calls, self._handle = calls, handle
        self.lines = text.splitlines()
        self.parameters = int(calls.ptx_parameters(handle))

    def __del__(self) -> None:
        self._calls.ptx_free(self._handle)

    def run(
        self,
        grid: Sequence[int],
        shared_bytes: int,
        parameters: Sequence[int],
        memory: Sequence[Memory],
        options: Options,
    ) -> Run:
        """Execute a launch.

        Args:
            grid: CTAs in each of three dimensions.
            shared_bytes: Dynamic shared memory of a CTA.
            parameters: Their bits; pointers are addresses of the memory.
            memory: By index: `memory[i]` has addresses of index i.
            options: How.
        """
        views = (_View * max(1, len(memory)))(*(one.view for one in memory))
        how = _Options(
            ORDERS.index(options.order), options.seed, options.truncate, options.most_steps
        )
        report = ctypes.create_string_buffer(REPORT_BYTES)
        self._calls.ptx_run(
            self._handle,
            (ctypes.c_uint32 * 3)(*grid),
            ctypes.c_uint32(shared_bytes),
            (ctypes.c_uint64 * max(1, len(parameters)))(*parameters),
            views,
            ctypes.c_size_t(len(memory)),
            ctypes.byref(how),
            report,
            ctypes.c_size_t(len(report)),
        )
        counts, *found = report.value.decode(errors="replace").splitlines()
        steps, barriers = map(int, counts.split("\t"))
        findings = [self._finding(*line.split("\t", 3)) for line in found]
        for index, one in enumerate(memory):
            if missing := one.missing():
                detail = f"{missing} bytes of parameter {index}"
                findings.append(Finding("output never written", 0, 1, detail))
        return Run(tuple(findings), steps, barriers)

    def _finding(self, kind: str, line: str, count: str, first: str) -> Finding:
        at = int(line)
        return Finding(kind, at, int(count), first, self.lines[at - 1].strip(), self._source(at))

    def _source(self, line: int) -> str:
        """Return the place that the last `.loc` before a line names, as LLVM comments it."""
        for text in reversed(self.lines[:line]):
            if found := re.match(r"\s*\.loc\b[^/]*//\s*(.*)", text):
                return found[1]
        return ""


def build(folder: Path) -> Path:
    """Compile the interpreter into a folder, and return the library's path."""

    # As one unit, whose headers are read once: half the time of nine.
    sources = sorted(SOURCES.glob("*.cpp"))
    unit, path = folder / "interpreter.cpp", folder / "libptx.so"
    unit.write_text("".join(f'#include "{source}"\n' for source in sources), encoding="utf-8")
    command = ["g++", *FLAGS, "-shared", str(unit), "-o", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"g++ must compile the interpreter, got:\n{done.stderr}")
    return path
