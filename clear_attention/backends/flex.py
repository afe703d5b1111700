"""FlexAttention over tile-ordered tokens: exact, one fused kernel, compiled once for all sizes.

The grid is reordered tile by tile, so that every block of 128 tokens is a compact patch of the
picture and a block of queries meets few blocks of keys; text, extra and pooled keys follow in
blocks of their own. Positions, limits, scale and block lists are tensors: no size is compiled into
the kernel.

On CUDA and ROCm torch compiles the kernel on first use, forward and backward. On the CPU the
compiled kernel has neither gradients nor a log-sum-exp, so the same operator runs uncompiled
there: dense, for checking.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..layout import TokenLayout
from ..partial import Part
from ..precision import accumulation_dtype
from .blocks import BLOCK, Plan, from_tiles, plan_blocks, to_tiles
from .call import Call
from .everyone import attend_everywhere, shared_keys


def why_not(q: Tensor, call: Call) -> str | None:
    if call.mask is not None:
        return "it takes no attention mask"
    if q.device.type not in ("cpu", "cuda"):
        return f"FlexAttention does not run on {q.device.type}"
    if not _torch_is_recent():
        return f"torch {torch.__version__} is too old, its FlexAttention came with 2.9"
    return None if q.device.type == "cpu" else _why_not_compiled(q)


def why_not_auto(q: Tensor, call: Call) -> str | None:
    if q.device.type == "cpu":
        return "FlexAttention is dense on the CPU"
    return "it compiles on first use, and the tiled backend needs no compiler"


def attend(q: Tensor, k: Tensor, v: Tensor, call: Call) -> Part:
    layout = call.layout
    shared_k, shared_v = shared_keys(k, call), shared_keys(v, call)
    plan = plan_blocks(
        TokenLayout(0, layout.height, layout.width, extra=shared_k.shape[2]),
        call.window,
        backward=torch.is_grad_enabled(),
        device=q.device,
    )
    run = _uncompiled if q.device.type == "cpu" else _compiled
    out, lse = run(
        to_tiles(q[:, :, layout.image_slice], layout),
        _keys(k, shared_k, call),
        _keys(v, shared_v, call),
        torch.full((), call.scale, dtype=accumulation_dtype(q.dtype), device=q.device),
        plan,
    )
    text, extra = attend_everywhere(q, k, v, call)
    return Part(
        torch.cat((text.out, from_tiles(out, layout), extra.out), 2),
        torch.cat((text.lse, from_tiles(lse, layout), extra.lse), 2).detach(),
    )


def _torch_is_recent() -> bool:
    """Tell whether FlexAttention returns the log-sum-exp and takes block lists of any length."""
    if importlib.util.find_spec("torch.nn.attention.flex_attention") is None:
        return False
    return hasattr(importlib.import_module("torch.nn.attention.flex_attention"), "AuxRequest")


def _why_not_compiled(q: Tensor) -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "Triton, which compiles FlexAttention, is not installed"
    if q.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        return f"its kernel does not take {q.dtype}"
    if q.shape[-1] < 16:
        return f"its kernel wants a head_dim of at least 16, not {q.shape[-1]}"
    return None


def _keys(tokens: Tensor, shared: Tensor, call: Call) -> Tensor:
    """Return keys or values in tile order with the shared ones behind, ``[B, H, blocks*BLOCK, D]``."""
    grid = to_tiles(tokens[:, :, call.layout.image_slice], call.layout)
    fill = max(BLOCK - shared.shape[2], -shared.shape[2] % BLOCK)
    return torch.cat((grid, F.pad(shared, (0, 0, 0, fill))), 2)


def _uncompiled(
    q: Tensor, k: Tensor, v: Tensor, scale: Tensor, plan: Plan
) -> tuple[Tensor, Tensor]:
    """Run the operator itself: the public function refuses gradients on the CPU."""
    from torch._higher_order_ops.flex_attention import flex_attention

    score_mod, block_mask = _modifications(q, k, scale, plan)
    wide = (x.to(scale.dtype) for x in (q, k, v))
    out, log2_sum, *_ = flex_attention(*wide, score_mod, block_mask.as_tuple(), 1.0, {})
    return out.to(q.dtype), log2_sum * math.log(2)


def _compiled(
    q: Tensor, k: Tensor, v: Tensor, scale: Tensor, plan: Plan
) -> tuple[Tensor, Tensor]:
    """Run the compiled kernel, and let every length vary independently of all others."""
    q, k, v = (x.unflatten(2, (-1, BLOCK)) for x in (q, k, v))
    for tensor, dims in ((q, 2), (k, 2), (v, 2), (plan.y, 0), (plan.x, 0), (plan.limit, 0)):
        torch._dynamo.maybe_mark_dynamic(tensor, dims)
    ...
