"""CLEAR attention as operators that torch.compile and CUDA graphs take as they are.

Triton is loaded when one of them first runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...layout import TokenLayout
from ...queries import ALL, Queries
from ...window import Window
from ..call import Call
from .lists import within
from .registry import registered

TENSORS = "Tensor q, Tensor k, Tensor v, Tensor shared_k, Tensor shared_v"
NUMBERS = "SymInt[] geometry, float scale"


def _register_attend(name: str) -> Any:
    schema = f"({TENSORS}, {NUMBERS}) -> (Tensor, Tensor)"
    operator = _operator(name, "attend", schema, empty_outputs)
    operator.register_autograd(_backward, setup_context=_remember)
    return operator


def _register_gradients(name: str) -> Any:
    results = ", ".join(["Tensor"] * 5)
    schema = f"(Tensor grad, Tensor out, Tensor lse, {TENSORS}, {NUMBERS}) -> ({results})"
    return _operator(name, "gradients", schema, _empty_gradients)


def _register_rounded(name: str) -> Any:
    schema = f"({TENSORS}, {NUMBERS}) -> (Tensor, Tensor)"
    return _operator(name, "attend_rounded", schema, empty_outputs)


def _operator(name: str, function: str, schema: str, fake: Callable[..., Any]) -> Any:
    """Make an operator of a function of `sequence`."""

    def compute(*arguments: Any) -> Any:
        from . import sequence

        *tensors, geometry, scale = arguments
        return getattr(sequence, function)(*tensors, sequence.SequenceShape(*geometry), scale)

    operator = torch.library.custom_op(name, compute, mutates_args=(), schema=schema)
    operator.register_fake(fake)
    return operator


def empty_outputs(q: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    """Return an output and a log-sum-exp to be written, for queries ``[B, H, L, D]``."""
    batch, heads, tokens, depth = q.shape
    # In memory [B, L, H, D], which is what transformers go on with.
    out = q.new_empty(batch, tokens, heads, depth).transpose(1, 2)
    return out, q.new_empty((batch, heads, tokens), dtype=torch.float32)


def _empty_gradients(grad: Tensor, out: Tensor, lse: Tensor, *others: Any) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(x) for x in others[:5])


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*output, *inputs[:5])
    ctx.numbers = inputs[5:]
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    grads = tiles_backward(grad, *ctx.saved_tensors, *ctx.numbers)
    return *grads, *(None for _ in ctx.numbers)


tiles = registered("tiles", _register_attend)
tiles_backward = registered("tiles_backward", _register_gradients)
tiles_int8 = registered("tiles_int8", _register_rounded)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    shared: tuple[Tensor, Tensor],
    call: Call,
    rounded: bool = False,
) -> tuple[Tensor, Tensor]:
    """Call `tiles`, or `tiles_int8`."""
    operator = tiles_int8 if rounded else tiles
    geometry = geometry_of(call.layout, call.window, call.queries)
    return operator(q, k, v, *shared, geometry, call.scale)


def geometry_of(layout: TokenLayout, window: Window, queries: Queries = ALL) -> Sequence[int]:
    """Return what `sequence.SequenceShape` holds, as numbers."""
    window = within(window, layout.height, layout.width)
    wraps = int(window.wrap_height), int(window.wrap_width)
    asked, band = queries.text_slice(layout).stop, queries.band(layout)
    size = layout.text, layout.height, layout.width
    return [*size, window.radius, *wraps, asked, band.start, len(band)]
