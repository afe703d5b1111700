"""Tile sizes, warps and stages per class of GPU: a short table, no search at the first step.

Each kernel has a first choice and smaller ones to step down to, where a GPU has less shared memory
than its class. Every row was read off compiled code: it fits the registers without spilling inside
the loop, and the shared memory of its class (`tests/backends/test_triton_compiled.py`).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .lists import Shape

KERNELS = ("forward", "backward_queries", "backward_keys")
# By type of device; "cpu" is for Triton's interpreter, whose bfloat16 products are wrong.
HEAD_DIMS = {
    "cuda": (64, 72, 80, 96, 120, 128),
    "cpu": (16, 24, 32, 64, 72, 80, 96, 120, 128),
}
DTYPES = {"cuda": (torch.float16, torch.bfloat16), "cpu": (torch.float16, torch.float32)}


class Config(NamedTuple):
    """How a kernel is compiled.

    Attributes:
        shape: Of its tiles and blocks.
        warps: Warps per program.
        stages: Blocks of the other side in flight, the one in use included.
        registers: Most registers per thread; None leaves that to the compiler.
    """

    shape: Shape
    warps: int
    stages: int
    registers: int | None = None


class GPU(NamedTuple):
    """A class of GPUs.

    Attributes:
        name: CUDA's sm number, or AMD's gfx name.
        shared_bytes: Shared memory that one program may have.
    """

    name: str
    shared_bytes: int


KIB = 1024
GPUS = {
    gpu.name: gpu
    for gpu in (
        GPU("sm_80", 163 * KIB),  # A100
        GPU("sm_86", 99 * KIB),  # RTX 30, A40
        GPU("sm_89", 99 * KIB),  # RTX 40, L40
        GPU("sm_90", 227 * KIB),  # H100, H200
        GPU("sm_100", 227 * KIB),  # B200
        GPU("sm_120", 99 * KIB),  # RTX 50
        GPU("gfx942", 64 * KIB),  # MI300
        GPU("gfx1100", 64 * KIB),  # RX 7900
    )
}
SAME_CLASS = {
    "sm_87": "sm_86",
    "sm_103": "sm_100",
    "sm_121": "sm_120",
    "gfx1101": "gfx1100",
    "gfx1102": "gfx1100",
}

WIDE, NARROW = Shape(8, 16, 64), Shape(8, 16, 32)
SMALL, SMALLEST = Shape(8, 8, 32), Shape(8, 8, 16)

_SMALLER = (Config(NARROW, 8, 2), Config(SMALL, 4, 2))
# With three stages, rows are on their way while the block before is computed; with two, tensor
# cores wait for them.
_AHEAD = (Config(NARROW, 8, 3), Config(SMALL, 4, 2))
# Left alone, the compiler takes all 255 registers of an sm_80 and still spills inside the loop.
_FEWER = Config(WIDE, 8, 3, registers=224)
_AMPERE = {
    ("forward", 128): (_FEWER, *_AHEAD),
    ("forward", 64): (Config(WIDE, 8, 3), *_AHEAD),
    ("backward_queries", 128): _AHEAD,
    ("backward_queries", 64): (Config(WIDE, 8, 3), *_SMALLER),
    ("backward_keys", 128): (Config(SMALL, 4, 3), Config(SMALLEST, 4, 2)),
    ("backward_keys", 64): (_FEWER, *_AHEAD),
}
# With less shared memory, a block ahead of 128 numbers per token fits in narrow blocks only.
_GEFORCE = {
    **_AMPERE,
    ("forward", 128): (*_AHEAD, Config(SMALLEST, 4, 2)),
    ("backward_queries", 128): _SMALLER,
    ("backward_keys", 64): _AHEAD,
}
_BLACKWELL = {
    (kernel, head_dim): (Config(WIDE, 8, 3), *_AHEAD)
    for kernel in KERNELS
    for head_dim in (64, 128)
}
_HOPPER = {**_BLACKWELL, ("backward_keys", 128): _AHEAD}
CONFIGS = {
    "sm_80": _AMPERE,
    "sm_86": _GEFORCE,
    "sm_89": _GEFORCE,
    "sm_90": _HOPPER,
    "sm_100": _BLACKWELL,
    "sm_120": _GEFORCE,
    "gfx942": {
        **{key: (Config(NARROW, 8, 1), Config(SMALL, 4, 1)) for key in _AMPERE},
        ("backward_keys", 128): (Config(SMALL, 4, 1),),
    },
    # The gradients of 128 numbers per token do not fit its registers.
    "gfx1100": {
        ("forward", 128): (Config(SMALLEST, 8, 1),),
        ("forward", 64): (Config(SMALL, 8, 1), Config(SMALLEST, 8, 1)),
        ("backward_queries", 64): (Config(SMALL, 8, 1), Config(SMALLEST, 8, 1)),
        ("backward_keys", 64): (Config(SMALLEST, 8, 1),),
    },
}

INTERPRETED = Config(WIDE, warps=1, stages=1)


def why_not(device: torch.device, head_dim: int, trained: bool) -> str | None:
    """Say why there is no configuration for a GPU, or None.

    Args:
        device: The GPU.
        head_dim: Of the call.
        trained: Whether gradients are wanted.
    """
    name = gpu_name(device)
    if name in GPUS:
        table, width = CONFIGS[name], width_of(head_dim)
        if ("forward", width) not in table:
            return f"a head_dim of {head_dim} does not fit the registers of {name}"
        if trained and ("backward_keys", width) not in table:
            return f"its gradients for a head_dim of {head_dim} do not fit the registers of {name}"
        return None
    if name.startswith("sm_") and int(name[3:]) < 80:
        return f"Triton has no tensor-core products for {name}; sm_80 (RTX 30, A100) is the oldest"
    return f"it has no configuration for {name} yet"


@functools.cache
def gpu_name(device: torch.device) -> str:
    """Return the class of a GPU, as `GPUS` has it where it is known."""
    properties = torch.cuda.get_device_properties(device)
    if torch.version.hip:
        name = properties.gcnArchName.split(":")[0]
    else:
        name = f"sm_{properties.major}{properties.minor}"
    return SAME_CLASS.get(name, name)


def configs_for(kernel: str, own: Tensor) -> Sequence[Config]:
    """Return what to compile a kernel with, the first choice first.

    Args:
        kernel: One of `KERNELS`.
        own: ``[B, H, L, D]``, the side that is cut into tiles.
    """
    if own.device.type == "cpu":
        return (INTERPRETED,)
    return CONFIGS[gpu_name(own.device)][kernel, width_of(own.shape[-1])]


def width_of(head_dim: int) -> int:
    """Return how many numbers per row are computed with: the next power of two."""
    return 1 << (head_dim - 1).bit_length()
