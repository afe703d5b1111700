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
import importlib
import importlib.util
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..layout import TokenLayout
from ..partial import Part
from ..precision import accumulation_dtype
from . import groups
from .call import About, Call, Footprint, why_not_mask
from .global_tokens import attend_everywhere, shared_bias, shared_keys
from .lasting import first_use
from .sizes import hidden_bytes, output_bytes, shared_pairs, shared_tokens, window_pairs
from .tile_order import (
    BLOCK,
    TILE_COLUMNS,
    TILE_ROWS,
    TileOrder,
    from_tiles,
    plan_blocks,
    query_tiles,
    tiles,
    to_tiles,
)

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask


ABOUT = About("needs an NVIDIA or AMD card with Triton", linear=True)


def why_not(q: Tensor, call: Call) -> str | None:
    if objection := why_not_mask(call):
        return objection
    if q.device.type not in ("cpu", "cuda"):
        return f"FlexAttention does not run on {q.device.type}"
    if not _torch_is_recent():
        return f"torch {torch.__version__} is too old, its FlexAttention came with 2.9"
    return None if q.device.type == "cpu" else _why_not_compiled(q)


def why_not_auto(q: Tensor, call: Call) -> str | None:
    if q.device.type == "cpu":
        return "FlexAttention is dense on the CPU"
    return "it compiles on first use, and the tiled backend needs no compiler"


def footprint(q: Tensor, call: Call) -> Footprint:
    return groups.footprint(_footprint, q, call)


def _footprint(q: Tensor, call: Call) -> Footprint:
    layout, (rows, columns) = call.layout, tiles(call.layout)
    queries = len(query_tiles(layout, call.queries.band(layout))) * columns * BLOCK
    keys = rows * columns * BLOCK + max(BLOCK, -(-shared_tokens(call) // BLOCK) * BLOCK)
    # Queries, keys and values in tile order, and the output there.
    ordered = hidden_bytes(q, 2 * queries) + hidden_bytes(q, 2 * keys) // call.groups
    tile = (TILE_ROWS, TILE_COLUMNS)
    if q.device.type != "cpu":
        memory = ordered + hidden_bytes(q, queries) + output_bytes(q)
        return Footprint(window_pairs(call), memory, True, shared_pairs(call), tile)
    # Uncompiled it holds the scores three times, and a boolean for each.
    scores = q.shape[0] * q.shape[1] * queries * keys
    memory = ordered + scores * (3 * accumulation_dtype(q.dtype).itemsize + 1) + output_bytes(q)
    rest = call.queries.others(layout)
    return Footprint(queries * keys + rest * layout.tokens, memory, linear=False, tile=tile)


def attend(q: Tensor, k: Tensor, v: Tensor, call: Call) -> Part:
    # The plan is not for a caller's own torch.compile to trace. Not a decorator, which would load
    # all of torch's compiler with the library.
    untraced: Any = torch.compiler.disable(_attend)
    return untraced(q, k, v, call)


def _attend(q: Tensor, k: Tensor, v: Tensor, call: Call) -> Part:
    grid = [_attend_grid(q, k, v, call)] if call.queries.band(call.layout) else []
    text, extra = attend_everywhere(q, k, v, call)
    parts = text, *grid, extra
    return Part(
        torch.cat([part.out for part in parts], 2), torch.cat([part.lse for part in parts], 2)
    )


def _attend_grid(q: Tensor, k: Tensor, v: Tensor, call: Call) -> Part:
    """Compute the rows of the image queries."""
    layout, band = call.layout, call.queries.band(call.layout)
    band = None if len(band) == layout.height else band
    shared_k, shared_v = shared_keys(k, call), shared_keys(v, call)
    trained = any(x.requires_grad for x in (q, k, v, shared_k))
    plan = plan_blocks(
        TokenLayout(0, layout.height, layout.width, extra=shared_k.shape[2]),
        call.window,
        band,
        backward=torch.is_grad_enabled() and trained,
        device=q.device,
    )
    keys = _keys(k, shared_k, call)
    run = _uncompiled if q.device.type == "cpu" else _compiled
    out, lse = run(
        to_tiles(q[:, :, call.queries.image_slice(layout)], layout, band),
        keys,
        _keys(v, shared_v, call),
        torch.full((), call.scale, dtype=accumulation_dtype(q.dtype), device=q.device),
        plan,
        _bias(call, keys),
    )
    return Part(from_tiles(out, layout, band), from_tiles(lse, layout, band))


def _torch_is_recent() -> bool:
    """Tell whether FlexAttention returns the log-sum-exp and takes block lists of any length."""
    try:
        flex = importlib.import_module("torch.nn.attention.flex_attention")
    except ImportError:
        return False
    return hasattr(flex, "AuxRequest")


def _why_not_compiled(q: Tensor) -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "Triton, which compiles FlexAttention, is not installed"
    if q.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        return f"its kernel does not take {q.dtype}"
    if q.shape[-1] < 16:
        return f"its kernel wants a head_dim of at least 16, not {q.shape[-1]}"
    return None


def _keys(tokens: Tensor, shared: Tensor, call: Call) -> Tensor:
    """Return keys or values in tile order, the shared ones behind, ``[B, H, blocks*BLOCK, D]``."""
    layout = call.layout
    fill = max(BLOCK - shared.shape[2], -shared.shape[2] % BLOCK)

    def ordered(tokens: Tensor, shared: Tensor) -> Tensor:
        grid = to_tiles(tokens[:, :, layout.image_slice], layout)
        return torch.cat((grid, F.pad(shared, (0, 0, 0, fill))), 2)

    return groups.once_per_group(call, ordered, tokens, shared)


def _bias(call: Call, keys: Tensor) -> Tensor | None:
    """Return what is added to the scores of keys in tile order, ``[B, H, blocks*BLOCK]``."""
    bias = shared_bias(call)
    if bias is None:
        return None
    grid = math.prod(tiles(call.layout)) * BLOCK
    whole = F.pad(bias[:, :, 0], (grid, keys.shape[2] - grid - bias.shape[3]))
    return whole.expand(*keys.shape[:2], -1)


def _uncompiled(
    q: Tensor, k: Tensor, v: Tensor, scale: Tensor, plan: TileOrder, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Call the operator itself: the public function refuses gradients on the CPU."""
    from torch._higher_order_ops.flex_attention import flex_attention

    mask = _block_mask(plan, q.shape[2], k.shape[2]).as_tuple()
    out, log2_sum, *_ = flex_attention(q, k, v, _scores(scale, bias), mask, 1.0, {})
    return out, log2_sum * math.log(2)


def _compiled(
    q: Tensor, k: Tensor, v: Tensor, scale: Tensor, plan: TileOrder, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    from torch._dynamo import maybe_mark_dynamic

    # Whole blocks as a dimension of their own: the kernel need not check for a ragged end.
    q, k, v = (x.unflatten(2, (-1, BLOCK)) for x in (q, k, v))
    # Torch would take lengths that happen to be equal once for one length, and compile again.
    for x in (q, k, v, *plan.keys, *(plan.queries or ())):
        maybe_mark_dynamic(x, tuple(range(2, min(x.ndim, 4))))
    for x in (plan.y, plan.x, plan.limit):
        maybe_mark_dynamic(x, 0)
    if bias is not None:
        maybe_mark_dynamic(bias, 2)
    trained = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v))
    depends = (q.device, q.dtype, q.shape[-1], plan.turns is None, bias is None, trained)
    with first_use("flex", *depends):
        return _kernel()(q, k, v, scale, plan, bias)


@functools.cache
def _kernel() -> Callable[..., tuple[Tensor, Tensor]]:
    return torch.compile(_blockwise, dynamic=True, fullgraph=True)


def _blockwise(
    q: Tensor, k: Tensor, v: Tensor, scale: Tensor, plan: TileOrder, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Attend from ``[B, H, blocks, BLOCK, D]``; return ``[B, H, blocks*BLOCK, D]``."""
    from torch.nn.attention.flex_attention import AuxRequest, flex_attention

    q, k, v = (x.flatten(2, 3) for x in (q, k, v))
    mask = _block_mask(plan, q.shape[2], k.shape[2])
    request = AuxRequest(lse=True)
    score_mod = _scores(scale, bias)
    result: Any = flex_attention(q, k, v, score_mod, mask, scale=1.0, return_aux=request)
    return result[0], result[1].lse


def _scores(scale: Tensor, bias: Tensor | None) -> Callable[..., Tensor]:
    """Return scale and bias as a function of the score: a number would be compiled in."""

    def scaled(score: Tensor, b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return score * scale

    def biased(score: Tensor, b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        assert bias is not None
        return score * scale + bias[b, h, key]

    return scaled if bias is None else biased


def _block_mask(plan: TileOrder, queries: int, keys: int) -> BlockMask:
    from torch.nn.attention.flex_attention import BlockMask

    y, x, limit, turns = plan.y.flatten(), plan.x.flatten(), plan.limit.flatten(), plan.turns

    def mask_mod(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        query = query if plan.first is None else query + plan.first
        dy, dx = y[query] - y[key], x[query] - x[key]
        if turns is not None:
            dy = dy.abs().minimum((turns[0] - dy.abs()).abs())
            dx = dx.abs().minimum((turns[1] - dx.abs()).abs())
        return dy * dy + dx * dx < limit[key]

    rows, columns = plan.keys, plan.queries
    return BlockMask(
        seq_lengths=(queries, keys),
        kv_num_blocks=rows.partial_count,
        kv_indices=rows.partial,
        full_kv_num_blocks=rows.full_count,
        full_kv_indices=rows.full,
        q_num_blocks=columns.partial_count if columns else None,
        q_indices=columns.partial if columns else None,
        full_q_num_blocks=columns.full_count if columns else None,
        full_q_indices=columns.full if columns else None,
        BLOCK_SIZE=(BLOCK, BLOCK),
        mask_mod=mask_mod,
    )
