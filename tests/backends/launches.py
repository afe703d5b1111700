"""What the library launches on a class of GPU that need not be there, specialised as there.

The library runs on tensors without memory. In place of a launch, Triton's own code says what it
would compile: types of pointers and strides, which addresses are aligned, and, on AMD, which
tensors are small enough for 32-bit offsets.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.runtime.jit import create_function_from_signature

from clear_attention import TokenLayout, Window
from clear_attention.backends.call import Call
from clear_attention.backends.global_tokens import shared_keys
from clear_attention.backends.triton import kernels, launch, sequence
from clear_attention.backends.triton.configs import CONFIGS, Config, width_of
from clear_attention.backends.triton.operators import geometry_of

META: dict[str, Any] = dict(dtype=torch.bfloat16, device="meta")
NUMBERS = 3072  # per token, of all heads: as FLUX has it
FUSED = 7  # q, k, v and an MLP of four times the width share a tensor
CASES = {
    # All strides are 32-bit integers, all tensors below 2 GiB.
    "small": TokenLayout(77, 16, 16, extra=5),
    # Tensors above 2 GiB; strides of sequences are 64-bit integers. Text is a view of them.
    "large": TokenLayout(512, 1024, 1024),
    # Views of a tensor above 2 GiB, with small tensors of shared tokens.
    "mixed": TokenLayout(512, 256, 256, extra=64),
}
# Without a window, a kernel is the first of the two loops that it has with one. Where only first
# rows are asked for, it is compiled for one class of AMD's: those of NVIDIA are executed
# (`tests/ptx`).
WINDOWLESS = ("gfx1100",)


class Launch(NamedTuple):
    """A kernel as it is to be compiled.

    Attributes:
        kernel: Its name.
        case: Of `CASES`.
        config: Tile, warps and stages; None for the kernel that rounds.
        constants: Its compile-time arguments by name.
        source: For Triton's compiler.
        options: For Triton's compiler.
    """

    kernel: str
    case: str
    config: Config | None
    constants: dict[str, Any]
    source: ASTSource
    options: dict[str, Any]


def target_of(gpu: str) -> GPUTarget:
    """Return the compiler's name for a class of GPU."""
    if gpu.startswith("sm_"):
        return GPUTarget("cuda", int(gpu[3:]), 32)
    return GPUTarget("hip", gpu, 64 if gpu.startswith("gfx9") else 32)


def launches(gpu: str, head_dim: int, every: bool = True) -> list[Launch]:
    """Return every different kernel that a class of GPU may compile for a head_dim.

    All rows of its table for small tensors; the first ones also for others and in 8 bits. Which
    tensors are small makes a difference on AMD only. Of rows that are filled up with zeros, only
    the first row of the table.

    Args:
        gpu: The class.
        head_dim: Of the model.
        every: Without it, only the first rows, and for small tensors: what others are compiled to
            has the same shared memory and spills, and registers that differ by a few. Without a
            window only for `WINDOWLESS`.
    """
    cases = [case for case in CASES if case != "mixed" or not gpu.startswith("sm_")]
    cases = cases if every else ["small"]
    found: dict[str, Launch] = {}
    width = width_of(head_dim)
    filled_up = head_dim != width
    table = {kernel: rows for (kernel, dim), rows in CONFIGS[gpu].items() if dim == width}
    for place in range(1 if filled_up or not every else max(map(len, table.values()))):
        row = {kernel: rows[min(place, len(rows) - 1)] for kernel, rows in table.items()}
        for case in cases if place == 0 and not filled_up else ("small",):
            with _recorded(gpu, case, row, found):
                trained = "backward_keys" in table
                _run(CASES[case], case == "mixed", head_dim, trained, rounded=place == 0)
    return [
        one
        for one in found.values()
        if every or gpu in WINDOWLESS or one.constants.get("WINDOW", True)
    ]


def _run(layout: TokenLayout, fused: bool, head_dim: int, trained: bool, rounded: bool) -> None:
    q, k, v = _tensors(layout, fused, head_dim)
    call = Call(layout, Window(4), None, head_dim**-0.5)
    shared = shared_keys(k, call), shared_keys(v, call)
    geometry = sequence.SequenceShape(*geometry_of(layout, call.window))
    arguments = (q, k, v, *shared, geometry, call.scale)
    if rounded:
        sequence.attend_rounded(*arguments)
    out, lse = sequence.attend(*arguments)
    if trained:
        sequence.gradients(torch.empty_like(out), out, lse, *arguments)


def _tensors(layout: TokenLayout, fused: bool, head_dim: int) -> list[Tensor]:
    heads = NUMBERS // head_dim
    if fused:
        wide = torch.empty(1, layout.tokens, FUSED, heads, head_dim, **META)
        return [wide[:, :, part].transpose(1, 2) for part in range(3)]
    return [torch.empty(1, heads, layout.tokens, head_dim, **META) for _ in range(3)]


@contextmanager
def _recorded(
    gpu: str, case: str, row: dict[str, Config], found: dict[str, Launch]
) -> Iterator[None]:
    def recorder(name: str) -> Any:
        def record(**arguments: Any) -> None:
            one = _specialised(gpu, name, case, row.get(name), arguments)
            found.setdefault(_key(one), one)

        return _Recorder(record)

    fakes = SimpleNamespace(**{name: recorder(name) for name in kernels.__all__})
    with (
        patch.object(launch, "kernels", fakes),
        patch.object(launch, "configs_for", lambda kernel, own: (row[kernel],)),
        patch.object(launch, "_processors", lambda device: 100),
    ):
        yield


class _Recorder:
    """In place of a kernel: `kernel[grid](**arguments)` records the arguments."""

    def __init__(self, record: Any) -> None:
        self.record = record

    def __getitem__(self, grid: Any) -> Any:
        return self.record


def _specialised(
    gpu: str, name: str, case: str, config: Config | None, arguments: dict[str, Any]
) -> Launch:
    function: Any = getattr(kernels, name)
    backend = make_backend(target_of(gpu))
    bind = create_function_from_signature(function.signature, function.params, backend)
    bound, kinds, options = bind(**arguments)
    options, signature, constants, attributes = function._pack_args(
        backend, options, bound, kinds, options
    )
    by_name = {name: arguments[name] for name, kind in signature.items() if kind == "constexpr"}
    source = ASTSource(function, signature, constants, attributes)
    return Launch(name, case, config, by_name, source, options.__dict__)


def _key(one: Launch) -> str:
    source = one.source
    return repr((one.kernel, source.signature, source.constants, source.attrs, one.options))
