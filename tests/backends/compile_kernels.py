"""Compile the Triton kernels for a class of GPU that need not be there, and read what came out.

    python3 tests/backends/compile_kernels.py sm_90 gfx942

Prints one line of JSON per kernel: shared memory, registers, accesses to spilled registers inside
loops, tensor-core instructions, and, for NVIDIA, what its loops are made of. `--first` leaves out
all but the first rows of the tables, and loops where no register is spilled. With another Triton:

    python3 -m pip install --target FOLDER --no-deps triton==3.7.0
    PYTHONPATH=FOLDER python3 tests/backends/compile_kernels.py gfx942
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
from launches import Launch, launches, target_of

from clear_attention.backends.triton.configs import CONFIGS

NVIDIA_TOOLS = Path(triton.backends.nvidia.__file__).parent / "bin"
PRODUCTS = {"cuda": r"wgmma\.mma_async|mma\.sync|tcgen05\.mma", "hip": r"v_mfma|v_wmma"}


def compiled(gpu: str, launch: Launch, every: bool) -> dict[str, Any]:
    """Compile a kernel and describe it, its loops only if all kernels are compiled."""
    target = target_of(gpu)
    result = triton.compile(launch.source, target=target, options=launch.options)
    assembly = result.asm["ptx" if target.backend == "cuda" else "amdgcn"]
    if target.backend == "cuda":
        read = _read_nvidia(result.asm["cubin"], every)
    else:
        read = _read_amd(assembly)
    return {
        "shared_bytes": result.metadata.shared,
        "products": len(re.findall(PRODUCTS[target.backend], assembly)),
        **read,
    }


def _read_nvidia(cubin: bytes, every: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / "kernel.cubin"
        binary.write_bytes(cubin)
        usage = _run("cuobjdump", "--dump-resource-usage", binary)
        used = re.search(r"\bREG:(\d+) STACK:(\d+)", usage)
        assert used is not None
        registers, stack = map(int, used.groups())
        # What is spilled lies on the stack.
        listing = _run("nvdisasm", "-c", binary) if every or stack else ""
    loops = list(_loops(listing))
    return {
        "registers": registers,
        "spills": max((loop["spills"] for loop in loops), default=0),
        "loops": loops,
    }


def _run(tool: str, *arguments: object) -> str:
    command = [str(NVIDIA_TOOLS / tool), *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout + done.stderr


def _loops(listing: str) -> Iterator[dict[str, int]]:
    """Describe each loop with tensor-core instructions: first shared tokens', then the lists'.

    `pending` counts groups of copies that may still be under way when a block begins.
    """
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
        body = [line for line in lines[start:end] if "NOP" not in line]
        products = sum("MMA" in line for line in body)
        waits = [int(n, 16) for n in re.findall(r"DEPBAR\.LE SB0, (0x\w+)", "\n".join(body))]
        # Waits that are tried again jump back from behind the end: these are no loops.
        if products and not any("EXIT" in line for line in body):
            yield {
                "instructions": len(body) + 1,
                "products": products,
                "barriers": sum("BAR.SYNC" in line for line in body),
                "pending": min(waits, default=-1),
                "spills": sum("LDL" in line or "STL" in line for line in body),
            }


def _read_amd(assembly: str) -> dict[str, Any]:
    registers, spills = (
        int(re.search(rf"\.{name}:\s*(\d+)", assembly)[1])  # pyright: ignore[reportOptionalSubscript]
        for name in ("vgpr_count", "vgpr_spill_count")
    )
    return {"registers": registers, "spills": spills, "loops": []}


def widest(gpu: str) -> int:
    """Return the largest head_dim for which a class of GPU has all kernels."""
    dims = [dim for kernel, dim in CONFIGS[gpu] if kernel == "backward_keys"]
    return max(dims)


def show(gpu: str, every: bool) -> None:
    """Compile all that a class of GPU may run, or the first rows for one head_dim."""
    # Of the head_dims between, only the number in a comparison differs.
    for head_dim in (64, 72, 128) if every else (widest(gpu),):
        for launch in launches(gpu, head_dim, every):
            constants = launch.constants
            facts = dict(
                gpu=gpu,
                kernel=launch.kernel,
                head_dim=constants["D"],
                window=constants.get("WINDOW", False),
                rounded=constants.get("ROUNDED", False),
                case=launch.case,
                config=launch.config,
            )
            print(json.dumps({**facts, **compiled(gpu, launch, every)}), flush=True)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        if name != "--first":
            show(name, every="--first" not in sys.argv)
