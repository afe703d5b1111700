"""attention(): check the call once, choose a backend, run it."""

from __future__ import annotations

import torch
from torch import Tensor

from .backends import Call, choose
from .backends.call import wants_gradients
from .layout import TokenLayout
from .pooling import Pooling
from .precision import unrounded
from .window import Window


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layout: TokenLayout,
    window: Window,
    *,
    pooling: Pooling | None = None,
    scale: float | None = None,
    mask: Tensor | None = None,
    backend: str = "auto",
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Compute CLEAR attention (arXiv 2412.16112, section 3) over text, image and extra tokens.

    Text and extra queries see every token, never the pooled ones. Image queries see all text, all
    extra and all pooled tokens, and the image tokens inside the window.

    Args:
        q: ``[B, H, L, D]`` after qk-norm and RoPE, any strides, L = layout.tokens.
        k: ``[B, H, L, D]``, likewise.
        v: ``[B, H, L, D]``, likewise.
        layout: Where text, grid and extra tokens lie in L.
        window: The disc of image tokens that an image token sees.
        pooling: The pooled branch, or None.
        scale: Factor on the scores; None is ``D ** -0.5``.
        mask: What the caller hides on top: boolean (True is seen) or additive, broadcastable to
            ``[B, H, L, L]``. A pooled cell is seen as far as its most hidden token is.
        backend: "auto", or one of `clear_attention.backends.BACKENDS` by name.
        return_lse: Also return the log-sum-exp of the scores. No gradient flows through it.

    Returns:
        ``[B, H, L, D]`` in the dtype of `q`; with `return_lse` also ``[B, H, L]`` in float32
        (float64 for float64), natural log.

    Raises:
        ValueError: The tensors do not fit each other or the layout, or the named backend cannot
            take the call; the message says why.
    """
    _check(q, k, v, layout, mask)
    call = Call(
        layout=layout,
        window=window,
        pooling=pooling,
        scale=q.shape[-1] ** -0.5 if scale is None else float(scale),
        mask=_additive(mask, q),
        trained=wants_gradients(pooling, q, k, v),
    )
    # Torch's fused attention reads a strided last dimension as if it were dense, without a word.
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    with unrounded(q.device):
        part = choose(q, call, backend).attend(q, k, v, call)
    return (part.out, part.lse.detach()) if return_lse else part.out


def _check(q: Tensor, k: Tensor, v: Tensor, layout: TokenLayout, mask: Tensor | None) -> None:
    if q.ndim != 4:
        raise ValueError(f"q must be [B, H, L, D], got the shape {list(q.shape)}.")
    for name, tensor in (("k", k), ("v", v)):
        if (tensor.shape, tensor.dtype, tensor.device) != (q.shape, q.dtype, q.device):
            raise ValueError(
                f"{name} must have the shape, dtype and device of q, {list(q.shape)} {q.dtype} on "
                f"{q.device}, got {list(tensor.shape)} {tensor.dtype} on {tensor.device}."
            )
    if not q.is_floating_point():
        raise ValueError(f"q, k and v must be floating point, got {q.dtype}.")
    if q.shape[2] != layout.tokens:
        raise ValueError(
            f"The layout has {layout.tokens} tokens ({layout.text} text + {layout.height} x "
            f"{layout.width} image + {layout.extra} extra), but q has {q.shape[2]}."
        )
    if mask is not None:
        _check_mask(mask, (*q.shape[:3], q.shape[2]))


def _check_mask(mask: Tensor, scores: tuple[int, ...]) -> None:
    fits = all(
        size in (1, full) for size, full in zip(mask.shape[::-1], scores[::-1], strict=False)
    )
    if mask.ndim > len(scores) or not fits:
        raise ValueError(f"mask must broadcast to {list(scores)}, got {list(mask.shape)}.")
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise ValueError(f"mask must be boolean or floating point, got {mask.dtype}.")


def _additive(mask: Tensor | None, q: Tensor) -> Tensor | None:
    """Return the mask as ``[B or 1, H or 1, L, L]`` to be added to the scores."""
    if mask is None:
        return None
    mask = mask.reshape((1,) * (4 - mask.ndim) + mask.shape)
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=q.dtype).masked_fill_(~mask, -torch.inf)
    # Expanded last: a mask over the keys alone stays as small as it is.
    return mask.to(q.dtype).expand(-1, -1, q.shape[2], q.shape[2])
