"""Linear attention from plain torch: tiles of queries against overlapping views of their windows.

Column by column of tiles: keys and values of the strip and its halo are copied once, so that the
window of each tile is a view into the copy, shifted by one tile height. One fused call attends to
all windows of the strip, one to the keys that every query sees, and the two merge exactly by
log-sum-exp. Memory beyond the output is that of one strip.

The backward pass uses that attention over a union of keys has, for each part, the gradient of
plain softmax attention with the union's output and log-sum-exp.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..partial import Part, attend_part, merge_parts, part_gradients
from ..precision import accumulation_dtype
from . import groups
from .call import About, Call, Footprint, why_not_mask
from .global_tokens import attend_everywhere, shared_bias, shared_keys
from .sizes import hidden_bytes, output_bytes, shared_bytes, shared_pairs, window_pairs
from .strips import Strip, strips, tile_size

ABOUT = About("runs everywhere", linear=True)


def why_not(q: Tensor, call: Call) -> str | None:
    return why_not_mask(call)


def why_not_auto(q: Tensor, call: Call) -> str | None:
    return None


def footprint(q: Tensor, call: Call) -> Footprint:
    return groups.footprint(_footprint, q, call)


def _footprint(q: Tensor, call: Call) -> Footprint:
    memory = output_bytes(q) + shared_bytes(q, call) + _strip_bytes(q, call)
    return Footprint(
        pairs=window_pairs(call),
        memory=memory,
        linear=True,
        shared_pairs=shared_pairs(call),
        tile=tile_size(call.window, q.device),
        token_major=True,
    )


def _strip_bytes(q: Tensor, call: Call) -> int:
    """Return the bytes that one strip needs at its peak, beside the output."""
    layout, window, size = call.layout, call.window, q.dtype.itemsize
    band = call.queries.band(layout)
    rows, columns = tile_size(window, q.device)
    strip = Strip(layout, window, rows, 0, min(columns, layout.width), band)
    key_columns = min(columns + 2 * window.reach, layout.width * (2 if window.wrap_width else 1))
    key_rows = strip.tiles * rows + 2 * strip.halo_rows
    tokens = strip.tiles * rows * (strip.right - strip.left)
    queries, halo = hidden_bytes(q, tokens), hidden_bytes(q, key_rows * key_columns)
    masked = tokens * (rows + 2 * strip.halo_rows) * key_columns
    bias = masked * size
    # The next strip's mask, first as booleans, is made beside the one before and its strip.
    masking = 2 * halo + 2 * queries + bias + masked + (bias if layout.width > columns else 0)
    # Its keys and values likewise; a merge has three tensors in the dtype of sums.
    moving = 4 * halo + 2 * queries + bias
    merging = 2 * halo + (4 + 3 * accumulation_dtype(q.dtype).itemsize // size) * queries + bias
    return max(masking, moving, merging)


def attend(q: Tensor, k: Tensor, v: Tensor, call: Call) -> Part:
    shared_k, shared_v = shared_keys(k, call), shared_keys(v, call)
    out, lse = _Tiled.apply(q, k, v, shared_k, shared_v, call)
    return Part(out, lse)


class _Tiled(torch.autograd.Function):
    """Attention and its gradients, strip by strip."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, shared_k: Tensor, shared_v: Tensor, call: Call
    ) -> tuple[Tensor, Tensor]:
        out, lse = _forward(q, k, v, shared_k, shared_v, call)
        ctx.save_for_backward(q, k, v, shared_k, shared_v, out, lse)
        ctx.call = call
        ctx.mark_non_differentiable(lse)
        return out, lse

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - the decorator's types
        ctx: Any, *grad_outputs: Any
    ) -> Any:
        q, k, v, shared_k, shared_v, out, lse = ctx.saved_tensors
        grad_out = grad_outputs[0]
        delta = (grad_out.to(lse.dtype) * out).sum(-1)
        rows = Rows(q, grad_out, lse, delta)
        whole = _whole_gradients(rows, k, v, ctx.call)
        shared = _image_gradients(rows, k, v, shared_k, shared_v, ctx.call, whole)
        return (*(grad.to(q.dtype) for grad in (*whole, *shared)), None)


def _forward(
    q: Tensor, k: Tensor, v: Tensor, shared_k: Tensor, shared_v: Tensor, call: Call
) -> Part:
    batch, heads, tokens, depth = q.shape
    # In memory [B, L, H, D], which is what transformers go on with.
    out = q.new_empty(batch, tokens, heads, depth).transpose(1, 2)
    text, extra = attend_everywhere(q, k, v, call)
    lse = torch.empty(q.shape[:3], dtype=text.lse.dtype, device=q.device)
    layout, asked = call.layout, call.queries
    for rows, part in ((asked.text_slice(layout), text), (asked.extra_slice(layout), extra)):
        out[:, :, rows], lse[:, :, rows] = part
    image_q, image_out, image_lse = (x[:, :, asked.image_slice(layout)] for x in (q, out, lse))
    image_k, image_v = (x[:, :, layout.image_slice] for x in (k, v))
    for strip, bias in strips(layout, call.window, asked.band(layout), q):
        queries = strip.queries(image_q)
        windows = strip.windows(image_k), strip.windows(image_v)
        part = attend_part(queries, *windows, scale=call.scale, bias=bias)
        if shared_k.shape[2]:
            part = merge_parts(_shared_part(queries, shared_k, shared_v, call), part)
        strip.write_queries(image_out, part.out)
        strip.write_queries(image_lse, part.lse)
    return Part(out, lse)


def _shared_part(queries: Tensor, shared_k: Tensor, shared_v: Tensor, call: Call) -> Part:
    """Attend from ``[tiles, B*H, M, D]`` to the keys that everyone sees."""
    tiles, _, rows, depth = queries.shape
    flat = queries.transpose(0, 1).reshape(*shared_k.shape[:2], tiles * rows, depth)
    part = attend_part(flat, shared_k, shared_v, scale=call.scale, bias=shared_bias(call))
    return Part(
        part.out.reshape(-1, tiles, rows, depth).transpose(0, 1),
        part.lse.reshape(-1, tiles, rows).transpose(0, 1),
    )


class Rows(NamedTuple):
    """What the backward pass needs of some queries.

    Attributes:
        q: ``[B, H, M, D]``.
        grad_out: ``[B, H, M, D]``.
        lse: ``[B, H, M]``.
        delta: ``[B, H, M]``, sum of grad_out * out over D.
    """

    q: Tensor
    grad_out: Tensor
    lse: Tensor
    delta: Tensor

    def of(self, rows: slice) -> Rows:
        """Select queries by their positions."""
        return Rows(*(x[:, :, rows] for x in self))

    def tiled(self, strip: Strip) -> Rows:
        """Select a strip's queries in tile order; rows outside the grid have no gradient."""
        return Rows(*(strip.queries(x) for x in self))

    def gradients(
        self, k: Tensor, v: Tensor, scale: float, bias: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return what these keys contribute to the gradients of q, k and v."""
        return part_gradients(
            self.q, k, v, self.grad_out, self.lse, self.delta, scale=scale, bias=bias
        )


def _whole_gradients(rows: Rows, k: Tensor, v: Tensor, call: Call) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k and v through the queries that see every token."""
    grad_q, grad_k, grad_v = (
        torch.zeros(x.shape, dtype=rows.lse.dtype, device=x.device) for x in (rows.q, k, v)
    )
    text, extra = call.queries.text_slice(call.layout), call.queries.extra_slice(call.layout)
    for everywhere, is_text in ((text, True), (extra, False)):
        bias = None if call.mask is None else call.mask.rows(is_text)
        dq, dk, dv = rows.of(everywhere).gradients(k, v, call.scale, bias)
        grad_q[:, :, everywhere] = dq
        grad_k += dk
        grad_v += dv
    return grad_q, grad_k, grad_v


def _image_gradients(
    rows: Rows,
    k: Tensor,
    v: Tensor,
    shared_k: Tensor,
    shared_v: Tensor,
    call: Call,
    whole: tuple[Tensor, Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    """Add the image queries' gradients to those of q, k and v; return those of the shared keys."""
    layout, band = call.layout, call.queries.band(call.layout)
    asked, image = call.queries.image_slice(layout), layout.image_slice
    rows = rows.of(asked)
    grad_q, grad_k, grad_v = whole[0][:, :, asked], whole[1][:, :, image], whole[2][:, :, image]
    image_k, image_v = k[:, :, image], v[:, :, image]
    for strip, bias in strips(layout, call.window, band, k):
        dq, dk, dv = rows.tiled(strip).gradients(
            strip.windows(image_k), strip.windows(image_v), call.scale, bias
        )
        strip.write_queries(grad_q, dq)
        strip.add_windows(grad_k, dk)
        strip.add_windows(grad_v, dv)
    shared_dq, shared_dk, shared_dv = rows.gradients(
        shared_k, shared_v, call.scale, shared_bias(call)
    )
    grad_q += shared_dq
    return shared_dk, shared_dv
