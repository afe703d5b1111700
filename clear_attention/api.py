"""attention(): check the call once, choose a backend, run it."""

from __future__ import annotations

import torch
from torch import Tensor

from .backends import Call, choose, groups
from .backends.call import wants_gradients
from .layout import TokenLayout
from .masks import Mask, read_mask
from .pooling import Pooling
from .precision import unrounded
from .queries import ALL, Queries
from .window import Window


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layout: TokenLayout,
    window: Window,
    *,
    queries: Queries = ALL,
    pooling: Pooling | None = None,
    scale: float | None = None,
    mask: Tensor | Mask | None = None,
    backend: str = "auto",
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Compute CLEAR attention (arXiv 2412.16112, section 3) over text, image and extra tokens.

    Text and extra queries see every token, never the pooled ones. Image queries see all text, all
    extra and all pooled tokens, and the image tokens inside the window.

    Args:
        q: ``[B, H, M, D]`` after qk-norm and RoPE, any strides. M = layout.tokens, or what
            `queries` names.
        k: ``[B, Hkv, L, D]``, likewise, L = layout.tokens. Hkv is H or a divisor of it: query
            head h then uses key head h // (H / Hkv), and no key is copied for that.
        v: ``[B, Hkv, L, D]``, likewise.
        layout: Where text, grid and extra tokens lie in L.
        window: The disc of image tokens that an image token sees.
        queries: Which tokens of the layout `q` holds, in the layout's order.
        pooling: The pooled branch, or None.
        scale: Factor on the scores; None is ``D ** -0.5``.
        mask: What the caller hides on top: boolean (True is seen) or additive, broadcastable to
            ``[B, H, M, L]`` from the right, so that three dimensions are ``[H, M, L]``. A pooled
            cell is seen as far as its most hidden token is. A tensor is looked into, which waits
            for the device: for many calls with one mask, give them what `read_mask` returns.
            Masks that concern text and extra keys only, equally for all image queries, are cheap.
        backend: "auto", or one of `clear_attention.backends.BACKENDS` by name.
        return_lse: Also return the log-sum-exp of the scores. No gradient flows through it.

    Returns:
        ``[B, H, M, D]`` in the dtype of `q`; with `return_lse` also ``[B, H, M]`` in float32
        (float64 for float64), natural log.

    Raises:
        ValueError: The tensors do not fit each other or the layout, or the named backend cannot
            take the call; the message says why.
    """
    _check(q, k, v, layout, queries, mask)
    if isinstance(mask, Tensor):
        mask = read_mask(mask, layout, queries)
    call = Call(
        layout=layout,
        window=window,
        pooling=pooling,
        scale=q.shape[-1] ** -0.5 if scale is None else float(scale),
        mask=None if mask is None else mask.to(q.dtype),
        trained=wants_gradients(pooling, q, k, v),
        queries=queries,
        groups=q.shape[1] // k.shape[1],
    )
    # Torch's fused attention reads a strided last dimension as if it were dense, without a word.
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    with unrounded(q.device):
        part = groups.attend(choose(q, call, backend), q, k, v, call)
    return (part.out, part.lse.detach()) if return_lse else part.out


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layout: TokenLayout,
    queries: Queries,
    mask: Tensor | Mask | None,
) -> None:
    if q.ndim != 4:
        raise ValueError(f"q must be [B, H, L, D], got the shape {list(q.shape)}.")
    if not q.is_floating_point():
        raise ValueError(f"q, k and v must be floating point, got {q.dtype}.")
    if q.shape[2] != queries.tokens(layout):
        text, rows = queries.text_slice(layout).stop, len(queries.band(layout))
        extra = queries.others(layout) - text
        what = "tokens" if queries.are_all(layout) else "queries"
        raise ValueError(
            f"The layout has {queries.tokens(layout)} {what} ({text} text + {rows} x "
            f"{layout.width} image + {extra} extra), but q has {q.shape[2]}."
        )
    _check_keys(q, k, v, layout)
    if isinstance(mask, Mask):
        _check_read_mask(mask, layout, queries)
    elif mask is not None:
        _check_mask(mask, (*q.shape[:3], layout.tokens))


def _check_keys(q: Tensor, k: Tensor, v: Tensor, layout: TokenLayout) -> None:
    batch, heads, _, depth = q.shape
    groups = heads // k.shape[1] if k.ndim == 4 and k.shape[1] and not heads % k.shape[1] else 1
    expected = (batch, heads // groups, layout.tokens, depth)
    for name, tensor in (("k", k), ("v", v)):
        if (tensor.shape, tensor.dtype, tensor.device) != (expected, q.dtype, q.device):
            raise ValueError(
                f"{name} must have the shape {list(expected)} and be {q.dtype} on {q.device} as q "
                f"is, got {list(tensor.shape)} {tensor.dtype} on {tensor.device}. Only heads of k "
                f"and v may be fewer than those of q, {heads}: a divisor."
            )


def _check_read_mask(mask: Mask, layout: TokenLayout, queries: Queries) -> None:
    if mask.layout != layout or mask.queries.positions(layout) != queries.positions(layout):
        raise ValueError(
            f"mask must be read for the call's layout and queries, {layout} and {queries}, "
            f"got {mask.layout} and {mask.queries}."
        )


def _check_mask(mask: Tensor, scores: tuple[int, ...]) -> None:
    fits = all(
        size in (1, full) for size, full in zip(mask.shape[::-1], scores[::-1], strict=False)
    )
    if mask.ndim > len(scores) or not fits:
        raise ValueError(f"mask must broadcast to {list(scores)}, got {list(mask.shape)}.")
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise ValueError(f"mask must be boolean or floating point, got {mask.dtype}.")
