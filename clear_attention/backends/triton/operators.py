"""CLEAR attention as operators that torch.compile and CUDA graphs take as they are.

Triton is loaded when one of them first runs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...layout import TokenLayout
from ...window import Window
from .lists import ALIGNED


@torch.library.custom_op("clear_attention::tiles", mutates_args=())
def tiles(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    shared_k: Tensor,
    shared_v: Tensor,
    text: int,
    height: int,
    width: int,
    radius: int,
    wrap_height: bool,
    wrap_width: bool,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Compute CLEAR attention.

    Args:
        q: ``[B, H, L, D]``: text, then the grid, then extra tokens.
        k: ``[B, H, L, D]``.
        v: ``[B, H, L, D]``.
        shared_k: ``[B, H, S, D]``, keys that every image query sees.
        shared_v: ``[B, H, S, D]``.
        text: Number of text tokens.
        height: Rows of the grid, in tokens.
        width: Columns of the grid, in tokens.
        radius: Of the window, in tokens.
        wrap_height: As the window has it.
        wrap_width: As the window has it.
        scale: Factor on the scores.

    Returns:
        Output ``[B, H, L, D]``, in memory ``[B, L, H, D]``, and log-sum-exp ``[B, H, L]``.
    """
    from ..triton import passes
    from .launch import Grid

    out, lse = _empty(q)
    image, everyone = _parts(q, text, height * width)
    q, k, v, shared_k, shared_v = map(_aligned, (q, k, v, shared_k, shared_v))
    grid = Grid(height, width, Window(radius, wrap_height, wrap_width))
    image_q, image_k, image_v, image_out = (x[:, :, image] for x in (q, k, v, out))
    lse[:, :, image] = passes.attend_grid(
        image_q, image_k, image_v, (shared_k, shared_v), grid, scale, image_out
    )
    for rows in everyone:
        out[:, :, rows], lse[:, :, rows] = passes.attend_all(q[:, :, rows], k, v, scale)
    return out, lse


@tiles.register_fake
def _(q: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return _empty(q)


@torch.library.custom_op("clear_attention::tiles_backward", mutates_args=())
def tiles_backward(
    grad: Tensor,
    out: Tensor,
    lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    shared_k: Tensor,
    shared_v: Tensor,
    text: int,
    height: int,
    width: int,
    radius: int,
    wrap_height: bool,
    wrap_width: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients of q, k, v and of the shared keys and values.

    Args:
        grad: ``[B, H, L, D]``, of the output.
        out: As `tiles` returned it; lse likewise.
        lse: ``[B, H, L]``.
        q: As in `tiles`; so are all the others.
        k: ``[B, H, L, D]``.
        v: ``[B, H, L, D]``.
        shared_k: ``[B, H, S, D]``.
        shared_v: ``[B, H, S, D]``.
        text: Number of text tokens.
        height: Rows of the grid, in tokens.
        width: Columns of the grid, in tokens.
        radius: Of the window, in tokens.
        wrap_height: As the window has it.
        wrap_width: As the window has it.
        scale: Factor on the scores.
    """
    from ..triton import passes
    from .launch import Grid
    from .passes import Sides

    image, everyone = _parts(q, text, height * width)
    grid = Grid(height, width, Window(radius, wrap_height, wrap_width))
    delta = (grad.float() * out.float()).sum(-1)
    grad, q, k, v, shared_k, shared_v = map(_aligned, (grad, q, k, v, shared_k, shared_v))
    all_sides = Sides(q, grad, lse, delta)

    def rows_of(rows: slice) -> Sides:
        q, grad, lse, delta = (x[:, :, rows] for x in all_sides)
        return Sides(q, grad, lse.contiguous(), delta.contiguous())

    grid_sides = rows_of(image)
    # Text and extra queries as one contiguous side: every key of the grid sees them first.
    seers = Sides(
        *(torch.cat([x[:, :, :0], *(x[:, :, rows] for rows in everyone)], 2) for x in all_sides)
    )
    q_grad, k_grad, v_grad = (torch.empty_like(x) for x in (q, k, v))
    image_k, image_v = k[:, :, image], v[:, :, image]
    q_grad[:, :, image] = passes.query_gradients_grid(
        grid_sides, image_k, image_v, (shared_k, shared_v), grid, scale
    )
    k_grad[:, :, image], v_grad[:, :, image] = passes.key_gradients_grid(
        image_k, image_v, grid_sides, seers, grid, scale
    )
    for rows in everyone:
        q_grad[:, :, rows] = passes.query_gradients_all(rows_of(rows), k, v, scale)
        k_grad[:, :, rows], v_grad[:, :, rows] = passes.key_gradients_all(
            k[:, :, rows], v[:, :, rows], seers, scale
        )
    shared = torch.zeros_like(shared_k), torch.zeros_like(shared_v)
    if shared_k.shape[2]:
        for target, found in zip(
            shared, passes.key_gradients_all(shared_k, shared_v, grid_sides, scale), strict=True
        ):
            target.copy_(found)
    return q_grad, k_grad, v_grad, *shared


@tiles_backward.register_fake
def _(grad: Tensor, out: Tensor, lse: Tensor, *tensors: Any) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(x) for x in tensors[:5])


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*output, *inputs[:5])
    ctx.numbers = inputs[5:]
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    grads = tiles_backward(grad, *ctx.saved_tensors, *ctx.numbers)
    return *grads, *(None for _ in ctx.numbers)


tiles.register_autograd(_backward, setup_context=_remember)


@torch.library.custom_op("clear_attention::tiles_int8", mutates_args=())
def tiles_int8(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    shared_k: Tensor,
    shared_v: Tensor,
    text: int,
    height: int,
    width: int,
    radius: int,
    wrap_height: bool,
    wrap_width: bool,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Compute what `tiles` does with queries and keys rounded to 8 bits; no gradients.

    Keys are rounded after their mean over the grid is taken off, which changes all scores of a
    query by the same amount, and none of its probabilities.

    Args:
        q: ``[B, H, L, D]``.
        k: ``[B, H, L, D]``.
        v: ``[B, H, L, D]``.
        shared_k: ``[B, H, S, D]``.
        shared_v: ``[B, H, S, D]``.
        text: Number of text tokens.
        height: Rows of the grid, in tokens.
        width: Columns of the grid, in tokens.
        radius: Of the window, in tokens.
        wrap_height: As the window has it.
        wrap_width: As the window has it.
        scale: Factor on the scores.

    Returns:
        As `tiles`.
    """
    from ..triton import passes
    from .launch import Grid

    out, lse = _empty(q)
    image, everyone = _parts(q, text, height * width)
    q, k, v, shared_k, shared_v = map(_aligned, (q, k, v, shared_k, shared_v))
    mean = k[:, :, image].mean(2, dtype=torch.float32)
    grid = Grid(height, width, Window(radius, wrap_height, wrap_width))
    image_q = passes.round_rows(q[:, :, image], torch.zeros_like(mean))
    image_k = passes.round_rows(k[:, :, image], mean)
    shared = passes.round_rows(shared_k, mean)
    lse[:, :, image] = passes.attend_grid(
        image_q.rows,
        image_k.rows,
        v[:, :, image],
        (shared.rows, shared_v),
        grid,
        scale,
        out[:, :, image],
        (image_q.steps, image_k.steps, shared.steps),
    )
    if everyone:
        every_k = passes.round_rows(k, mean)
        for rows in everyone:
            own = passes.round_rows(q[:, :, rows], torch.zeros_like(mean))
            steps = (own.steps, every_k.steps)
            part = passes.attend_all(own.rows, every_k.rows, v, scale, steps)
            out[:, :, rows], lse[:, :, rows] = part
    lse += scale * (q.float() @ mean.unsqueeze(-1)).squeeze(-1)
    return out, lse


@tiles_int8.register_fake
def _(q: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return _empty(q)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    shared: tuple[Tensor, Tensor],
    layout: TokenLayout,
    window: Window,
    scale: float,
    rounded: bool = False,
) -> tuple[Tensor, Tensor]:
    """Call `tiles`, or `tiles_int8`."""
    operator = tiles_int8 if rounded else tiles
    seen = window.radius, window.wrap_height, window.wrap_width
    return operator(q, k, v, *shared, layout.text, layout.height, layout.width, *seen, scale)


def _empty(q: Tensor) -> tuple[Tensor, Tensor]:
    batch, heads, tokens, depth = q.shape
    # In memory [B, L, H, D], which is what transformers go on with.
    out = q.new_empty(batch, tokens, heads, depth).transpose(1, 2)
    return out, q.new_empty((batch, heads, tokens), dtype=torch.float32)


def _parts(q: Tensor, text: int, image: int) -> tuple[slice, list[slice]]:
    """Return the grid's tokens, and those before and behind it, where there are any."""
    everyone = [slice(0, text), slice(text + image, q.shape[2])]
    return slice(text, text + image), [rows for rows in everyone if rows.stop > rows.start]


def _aligned(x: Tensor) -> Tensor:
    """Return the tensor with strides and an address that the kernels can read from."""
    strided = x.stride(-1) == 1 and not any(stride % ALIGNED for stride in x.stride()[:-1])
    near = x.stride(2) // ALIGNED * x.shape[2] < 2**31
    return x if strided and near and x.data_ptr() % 16 == 0 else x.contiguous()
