"""Small PTX programs for tests: a body between an input and an output."""

from __future__ import annotations

import torch
from ptx.library import Library, Memory, Options, Run
from torch import Tensor

# %r1 is the thread. %rd0 and %rd1 are the tensors; %rd10, %rd11 and %r2 are places of 4 bytes per
# thread in them and in shared memory.
START = """
ld.param.b64 %rd0, [k_param_0];
ld.param.b64 %rd1, [k_param_1];
mov.u32 %r1, %tid.x;
mad.wide.u32 %rd10, %r1, 4, %rd0;
mad.wide.u32 %rd11, %r1, 4, %rd1;
shl.b32 %r2, %r1, 2;
add.s32 %r2, %r2, global_smem;
"""
SHARED_BYTES = 1024
PLAINLY = Options()


class Bench:
    """Runs bodies of programs."""

    def __init__(self, library: Library) -> None:
        self._library = library

    def __call__(
        self, body: str, source: Tensor, out: Tensor, threads: int = 32, options: Options = PLAINLY
    ) -> Run:
        """Run a body on an input and an output."""
        text = (
            ".visible .entry k(\n\t.param .u64 k_param_0,\n\t.param .u64 k_param_1\n)\n"
            f".reqntid {threads}\n{{\n{START}{body}\nret;\n}}\n"
        )
        memory = [Memory(0, source, False, True), Memory(1, out, True, False)]
        addresses = [one.address for one in memory]
        program = self._library.program(text)
        return program.run((1, 1, 1), SHARED_BYTES, addresses, memory, options)


def kinds(run: Run) -> list[str]:
    return [finding.kind for finding in run.findings]


def floats(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float32)
