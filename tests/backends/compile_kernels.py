"""Compile the Triton kernels for a class of GPU that need not be there, and read what came out.

    python3 tests/backends/compile_kernels.py sm_90

Prints one line of JSON per kernel: shared memory, registers, spilled registers inside loops, and
how many tensor-core instructions there are.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

import triton
import triton.backends.nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from clear_attention.backends.triton import kernels
from clear_attention.backends.triton.configs import CONFIGS, Config

NVIDIA_TOOLS = Path(triton.backends.nvidia.__file__).parent / "bin"
INTEGERS = ("first", "blocks", "offsets", "places")
FLOATS = ("lse", "delta", "shared_lse", "shared_delta", "q_steps", "k_steps", "shared_k_steps")
PRODUCTS = {"cuda": r"wgmma\.mma_async|mma\.sync|tcgen05\.mma", "hip": r"v_mfma|v_wmma"}


def target_of(gpu: str) -> GPUTarget:
    """Return the compiler's name for a class of GPU."""
    if gpu.startswith("sm_"):
        return GPUTarget("cuda", int(gpu[3:]), 32)
    return GPUTarget("hip", gpu, 64 if gpu.startswith("gfx9") else 32)


def compiled(
    gpu: str, kernel: str, config: Config, head_dim: int, window: bool, rounded: bool = False
) -> dict[str, Any]:
    """Compile a kernel for bfloat16, or with rounded queries and keys, and describe it."""
    function = getattr(kernels, kernel)
    constants = dict(
        D=head_dim,
        ROWS=config.shape.rows,
        COLUMNS=config.shape.columns,
        BLOCK=config.shape.block,
        WINDOW=window,
        **(dict(ROUNDED=rounded) if kernel == "forward" else {}),
    )
    types = {name: _type_of(name, constants) for name in function.arg_names}
    names = list(types)
    source = ASTSource(
        function,
        types,
        {(names.index(name),): value for name, value in constants.items()},
        {
            (index,): [["tt.divisibility", 16]]
            for index, kind in enumerate(types.values())
            if kind.startswith("*")
        },
    )
    target = target_of(gpu)
    options = dict(num_warps=config.warps, num_stages=config.stages)
    result = triton.compile(source, target=target, options=options)
    assembly = result.asm["ptx" if target.backend == "cuda" else "amdgcn"]
    read = _read_nvidia if target.backend == "cuda" else _read_amd
    return {
        "shared_bytes": result.metadata.shared,
        "products": len(re.findall(PRODUCTS[target.backend], assembly)),
        **read(assembly, target),
    }


def _type_of(name: str, constants: dict[str, Any]) -> str:
    if name in constants:
        return "constexpr"
    if name in INTEGERS:
        return "*i32"
    if name in FLOATS:
        return "*fp32"
    if name == "scale":
        return "fp32"
    if re.search(r"_[bh]$", name):
        return "i64"
    whole = name.endswith("_l") or name in kernels.SIZES
    if whole:
        return "i32"
    return "*i8" if constants.get("ROUNDED") and name in ("q", "k", "shared_k") else "*bf16"


def _read_nvidia(assembly: str, target: GPUTarget) -> dict[str, int]:
    with tempfile.TemporaryDirectory() as folder:
        source, binary = Path(folder) / "kernel.ptx", Path(folder) / "kernel.cubin"
        source.write_text(assembly, encoding="utf-8")
        arch = re.search(r"^\.target (\w+)", assembly, re.MULTILINE)
        assert arch is not None
        said = _run(
            "ptxas-blackwell" if target.arch >= 100 else "ptxas",
            "-v",
            f"-arch={arch[1]}",
            source,
            "-o",
            binary,
        )
        listing = _run("nvdisasm", "-c", binary)
    registers = re.search(r"Used (\d+) registers", said)
    assert registers is not None
    return {"registers": int(registers[1]), "spills": max(_spills_in_loops(listing), default=0)}


def _run(tool: str, *arguments: object) -> str:
    command = [str(NVIDIA_TOOLS / tool), *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout + done.stderr


def _spills_in_loops(listing: str) -> Iterator[int]:
    """Count the accesses to spilled registers in each loop with tensor-core instructions."""
    labels: dict[str, int] = {}
    lines: list[str] = []
    for line in listing.splitlines():
        label = re.match(r"\s*(\.L_x_\d+):", line)
        if label:
            labels[label[1]] = len(lines)
        elif re.match(r"\s+/\*[0-9a-f]{4,}\*/", line):
            lines.append(line)
    for end, line in enumerate(lines):
        jump = re.search(r"BRA.*`\((\.L_x_\d+)\)", line)
        start = labels.get(jump[1], end) if jump else end
        body = lines[start:end]
        if any("MMA" in line for line in body):
            yield sum("LDL" in line or "STL" in line for line in body)


def _read_amd(assembly: str, target: GPUTarget) -> dict[str, int]:
    registers, spills = (
        int(re.search(rf"\.{name}:\s*(\d+)", assembly)[1])  # pyright: ignore[reportOptionalSubscript]
        for name in ("vgpr_count", "vgpr_spill_count")
    )
    return {"registers": registers, "spills": spills}


def main(gpu: str) -> None:
    """Compile all that the table has for a class of GPU."""
    for (kernel, head_dim), configs in CONFIGS[gpu].items():
        variants = [(config, True, False) for config in configs]
        variants.append((configs[0], False, False))
        if kernel == "forward":
            variants.append((configs[0], True, True))
        for config, window, rounded in variants:
            found = compiled(gpu, kernel, config, head_dim, window, rounded)
            facts = dict(kernel=kernel, head_dim=head_dim, window=window, rounded=rounded)
            print(json.dumps({**facts, "config": config, **found}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
