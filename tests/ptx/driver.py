"""A driver for Triton whose device is the interpreter: kernels are launched as on a card.

Triton's own just-in-time compiler chooses types and specialisations, as it does for a card, from
the arguments of each launch. Only the last step differs: where a card would get machine code, the
interpreter gets the PTX.
"""

from __future__ import annotations

import functools
import os
import struct
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from ptx.library import Library, Memory, Options, Program, Run
from torch import Tensor
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase
from triton.runtime.driver import driver as active

MOST_THREADS = 1024  # of a CTA


@dataclass(frozen=True)
class Roles:
    """Which of a kernel's tensors it must write, and which it must not touch.

    Attributes:
        written: Names of outputs: every byte once, never read.
        unread: Names of tensors that are only there to fill a place.
    """

    written: Collection[str]
    unread: Collection[str] = ()


@dataclass(frozen=True)
class Launched:
    """A launch that was executed.

    Attributes:
        kernel: Its name.
        grid: CTAs in each dimension.
        types: Of its arguments, as Triton chose them.
        shared_bytes: Per CTA.
        run: What it did.
    """

    kernel: str
    grid: tuple[int, int, int]
    types: dict[str, str]
    shared_bytes: int
    run: Run


@dataclass
class Machine:
    """What the driver launches on.

    Attributes:
        library: The interpreter.
        roles: Returns the roles of a kernel's tensors, from its name and arguments.
        arch: CUDA's number of the class of GPU.
        shared_bytes: Shared memory that a CTA may have.
        options: How launches are executed.
        edit: Changes a PTX text before it is read, to plant faults.
        launched: What was executed, the oldest first.
        outputs: What each launch of a kernel has written, by the kernel's name, the oldest first.
        known: The same, of launches to come: these are written, and not executed.
        loaded: How often Triton compiled a kernel, or found it compiled, for a new kind of launch.
    """

    library: Library
    roles: Callable[[str, dict[str, Any]], Roles]
    arch: int = 80
    shared_bytes: int = 227 * 1024
    options: Options = field(default_factory=Options)
    edit: Callable[[str], str] = str
    launched: list[Launched] = field(default_factory=list)
    outputs: dict[str, list[list[Tensor]]] = field(default_factory=dict)
    known: dict[str, list[list[Tensor]]] = field(default_factory=dict)
    loaded: int = 0

    @functools.cached_property
    def _programs(self) -> dict[str, Program]:
        return {}

    @property
    def compiled(self) -> int:
        """How many different programs were launched."""
        return len(self._programs)

    def program(self, text: str) -> Program:
        """Read a PTX text, once."""
        text = self.edit(text)
        if text not in self._programs:
            self._programs[text] = self.library.program(text)
        return self._programs[text]

    def launch(
        self,
        source: Any,
        metadata: Any,
        grid: tuple[int, int, int],
        text: str,
        values: tuple[Any, ...],
    ) -> None:
        """Execute a launch."""
        arguments = dict(zip(source.fn.arg_names, values, strict=True))
        types = {name: kind for name, kind in source.signature.items() if kind != "constexpr"}
        roles = self.roles(metadata.name, arguments)
        outputs = [arguments[name] for name in roles.written]
        if metadata.name in self.known:
            for output, values in zip(outputs, self.known[metadata.name].pop(0), strict=True):
                output.copy_(values)
            return
        written = {arguments[name].data_ptr() for name in roles.written}
        memory: list[Memory] = []
        parameters: list[int] = []
        for name, kind in types.items():
            value = arguments[name]
            if not isinstance(value, Tensor):
                parameters.append(_bits(value, kind))
                continue
            is_output = name in roles.written
            hidden = name in roles.unread or value.data_ptr() in written
            memory.append(Memory(len(memory), value, is_output, not is_output and not hidden))
            parameters.append(memory[-1].address)
        program = self.program(text)
        # Triton adds pointers to scratch memory, which these kernels have none of.
        parameters += [0] * (program.parameters - len(parameters))
        run = program.run(grid, metadata.shared, parameters, memory, self.options)
        self.outputs.setdefault(metadata.name, []).append([one.clone() for one in outputs])
        self.launched.append(Launched(metadata.name, grid, types, metadata.shared, run))


def _bits(value: float, kind: str) -> int:
    if kind == "fp32":
        return int.from_bytes(struct.pack("<f", value), "little")
    if kind not in ("i32", "i64"):
        raise ValueError(f"A scalar argument must be fp32, i32 or i64, got {kind}")
    return int(value) & (1 << int(kind[1:])) - 1


class _Utils:
    """What Triton asks of a device before the first launch."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": self._machine.shared_bytes}

    def load_binary(self, name: str, kernel: bytes, shared: int, device: int) -> tuple[Any, ...]:
        self._machine.loaded += 1
        registers = spills = 0
        return name, kernel.decode(), registers, spills, MOST_THREADS


class InterpreterDriver(DriverBase):
    """Triton's door to a `Machine`. Each class of GPU is a device of its own."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self._machine = machine
        self.utils = _Utils(machine)

    @classmethod
    def is_active(cls) -> bool:
        return False  # taken only where it is asked for

    def launcher_cls(self, source: Any, metadata: Any) -> Callable[..., None]:
        def run(x: int, y: int, z: int, stream: int, text: str, *rest: Any) -> None:
            # Four more are for profilers.
            self._machine.launch(source, metadata, (x, y, z), text, rest[4:])

        return run

    def map_python_to_cpp_type(self, ty: str) -> str:
        return ty

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self._machine.arch, 32)

    def get_current_device(self) -> int:
        return self._machine.arch

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def get_benchmarker(self) -> Any:
        raise NotImplementedError("an interpreter is not timed")


def install(machine: Machine, cache: Path) -> None:
    """Let Triton compile for a machine, and launch on it, in the rest of this process.

    Args:
        machine: What launches run on.
        cache: Folder for what is compiled. Triton's own must not see it: its entries have PTX where
            those of a card have machine code.
    """
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise ValueError("TRITON_INTERPRET must be unset before Triton is imported, got 1")

    def stop_at_ptx(backend: Any, stages: dict[str, Any], *_: Any) -> None:
        stages["cubin"] = lambda ptx, metadata: ptx.encode()

    knobs.cache.dir = str(cache)
    knobs.runtime.add_stages_inspection_hook = stop_at_ptx
    active.set_active(InterpreterDriver(machine))
