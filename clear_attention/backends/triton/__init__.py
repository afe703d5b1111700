"""A fused Triton kernel made for the disc: tiles of the grid against exactly the keys they see.

Forward and backward, on CUDA and ROCm. Nothing is reordered: the kernels read q, k and v as they
lie and write the output as transformers go on with it.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ...partial import Part
from ...window import Window
from .. import groups
from ..call import About, Call, Footprint, wants_gradients, why_not_mask
from ..global_tokens import attend_everywhere, shared_keys
from ..sizes import hidden_bytes, output_bytes, shared_bytes, shared_pairs, window_pairs
from . import configs, lists
from .grid import Grid

__all__ = ["ABOUT", "attend", "footprint", "is_trained", "why_not", "why_not_auto"]


ABOUT = About("needs an NVIDIA or AMD card with Triton", linear=True)

# Triton's own switch: its interpreter takes tensors on the CPU.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICES = ("cuda", "cpu") if INTERPRETED else ("cuda",)


def _constant(function: Callable[..., str | None]) -> Callable[..., str | None]:
    """Let torch.compile take the result as it is.

    What `torch.compiler.assume_constant_result` does, which loads the compiler with the library.
    """
    setattr(function, "_dynamo_marked_constant", True)  # noqa: B010 - not declared
    return function


def why_not(q: Tensor, call: Call, rounded: bool = False) -> str | None:
    objection = why_not_mask(call) or _why_not_bias(call) or _why_not_queries(call, rounded)
    if objection:
        return objection
    if q.device.type not in DEVICES:
        return f"Triton's kernels do not run on {q.device.type}"
    objection = _why_not_installed() or _why_not_shape(q, call)
    if objection is None and q.device.type == "cuda":
        objection = _why_not_gpu(q.device, q.dtype, q.shape[-1], is_trained(q, call), rounded)
    return objection


def why_not_auto(q: Tensor, call: Call) -> str | None:
    return "interpreted, it is for checking" if q.device.type == "cpu" else None


def footprint(q: Tensor, call: Call, rounded: bool = False) -> Footprint:
    return groups.footprint(lambda q, call: _footprint(q, call, rounded), q, call)


def _footprint(q: Tensor, call: Call, rounded: bool) -> Footprint:
    # Of q, k and v one at a time is copied if the kernels cannot read it as it lies.
    tokens = call.layout.tokens
    copied = hidden_bytes(q, max(q.shape[2], tokens))
    memory = output_bytes(q) + shared_bytes(q, call) + copied
    if _others_apart(call):  # rows of text and image side by side, before they are joined
        memory += output_bytes(q)
    if rounded:  # the keys without their mean, and queries and keys as 8-bit integers
        integers = hidden_bytes(q, q.shape[2] + tokens) // q.dtype.itemsize
        memory += hidden_bytes(q, tokens) + integers
    tile = (configs.WIDE.rows, configs.WIDE.columns)
    return Footprint(window_pairs(call), memory, True, shared_pairs(call), tile, token_major=True)


def attend(q: Tensor, k: Tensor, v: Tensor, call: Call, rounded: bool = False) -> Part:
    if not _others_apart(call):
        return _attend(q, k, v, call, rounded)
    image = q[:, :, call.queries.image_slice(call.layout)]
    of_image = replace(call, queries=replace(call.queries, text=False, extra=False))
    text, extra = attend_everywhere(q, k, v, call)
    parts = text, _attend(image, k, v, of_image, rounded), extra
    # In memory [B, L, H, D], which is what transformers go on with.
    out = torch.cat([part.out.transpose(1, 2) for part in parts], 1).transpose(1, 2)
    return Part(out, torch.cat([part.lse for part in parts], 2))


def _attend(q: Tensor, k: Tensor, v: Tensor, call: Call, rounded: bool) -> Part:
    from .operators import attend

    shared = shared_keys(k, call), shared_keys(v, call)
    return Part(*attend(q, k, v, shared, call, rounded))


def _others_apart(call: Call) -> bool:
    """Tell whether text and extra queries have a mask, which the kernel does not know."""
    return call.mask is not None and call.mask.others is not None


def _why_not_bias(call: Call) -> str | None:
    if call.mask is None or call.mask.bias is None:
        return None
    return "of masks over text it takes those only that hide the same tokens from all sequences"


def _why_not_queries(call: Call, rounded: bool) -> str | None:
    rows = len(call.queries.band(call.layout))
    if rounded and rows < call.layout.height:
        return "its queries are all rows of the picture, not some of them"
    return None if rows else "its queries are rows of the picture, with or without text, not none"


@_constant
def _why_not_installed() -> str | None:
    if importlib.util.find_spec("triton") is not None:
        if hasattr(torch.library, "custom_op"):
            return None
        return f"torch {torch.__version__} is too old, its custom operators came with 2.4"
    package = "triton-windows" if sys.platform == "win32" else "triton"
    return f"Triton is not installed: python -m pip install {package}"


def _why_not_shape(q: Tensor, call: Call) -> str | None:
    layout = call.layout
    window = lists.within(call.window, layout.height, layout.width)
    if q.dtype not in configs.DTYPES[q.device.type]:
        return f"its kernel takes float16 and bfloat16, not {q.dtype}"
    if q.shape[-1] not in configs.HEAD_DIMS[q.device.type]:
        dims = " or ".join(map(str, configs.HEAD_DIMS[q.device.type]))
        return f"its kernel takes a head_dim of {dims}, not {q.shape[-1]}"
    if call.scale <= 0:
        return f"the scale must be positive, not {call.scale}"
    if window.radius > lists.LARGEST_RADIUS:
        return f"above a radius of {lists.LARGEST_RADIUS} its arithmetic would not be exact"
    seen = window.radius, window.wrap_height, window.wrap_width
    band = call.queries.band(layout)
    return _why_not_listed(layout.height, layout.width, *seen, band.start, band.stop)


@_constant
def _why_not_listed(
    height: int,
    width: int,
    radius: int,
    wrap_height: bool,
    wrap_width: bool,
    first_row: int,
    stop_row: int,
) -> str | None:
    window = Window(radius, wrap_height, wrap_width)
    grid = Grid(height, width, window, range(first_row, stop_row), range(height))
    size = max(lists.table_bytes(one, configs.WIDE) for one in (grid, grid.exchanged))
    if size > lists.LARGEST_TABLE:
        return f"its lists of keys would take {size / 2**20:.0f} MiB at radius {radius}"
    return lists.why_not(window, height, width)


@_constant
def _why_not_gpu(
    device: torch.device, dtype: torch.dtype, head_dim: int, trained: bool, rounded: bool
) -> str | None:
    """Say why a GPU is not up to it: found out once, by a small call that is checked."""
    from .proof import why_not

    missing = configs.why_not(device, head_dim, trained)
    return missing or why_not(device, dtype, head_dim, rounded)


def is_trained(q: Tensor, call: Call) -> bool:
    """Return whether gradients are wanted, as far as q and the call know."""
    return call.trained or wants_gradients(call.pooling, q)
