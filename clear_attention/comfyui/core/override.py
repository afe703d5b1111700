"""The attention override: one host call in, CLEAR attention or the host's own out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...api import attention
from ...backends import BACKENDS, Call, choose_name, why_not_triton
from ...backends.call import wants_gradients
from ...layout import TokenLayout
from ...masks import Mask, read_mask
from ...pairs import all_pairs, visible_pairs
from ...parallel.attention import Seat, attend, call_of
from ...pooling import Pooling
from ...queries import Queries
from ...scale import proportional_scale
from ...window import Window
from .blocks import is_pictures, running_block
from .calls.host_call import HostCall, read_call
from .calls.model_call import CALL_KEY, ModelCall, Override
from .report import ComputedPath
from .settings import Block

UNNAMED = (
    "another node does not say which block is running, so that none is kept dense, all have one "
    "radius, and pooling takes the mean"
)

MASKED = (
    "Several devices cannot share an attention with a mask, which another node gives. Remove CLEAR "
    "Parallel, or that node."
)

UNNAMED_OWN = (
    "another node does not say which block is running, so that calls that stay dense leave out the "
    "checkpoint's own attention"
)


@torch.compiler.disable
def override(func: Override, *args: Any, **kwargs: Any) -> Tensor:
    """Compute one attention call of the host, see `optimized_attention_override`.

    A plain function without state: cloning a model copies its options deeply, and torch.compile
    guards on the identity of what lies in them.
    """
    options = kwargs["transformer_options"]
    model_call: ModelCall = options[CALL_KEY]
    if not is_pictures(options, model_call.family):
        # Text among itself, the picture to the text: nothing of ours, and nothing to be counted.
        block = running_block(options, model_call.family)
        return _hand_on(model_call, _own_or(func, model_call, block), args, kwargs)
    host_call = read_call(*args, **kwargs)
    if not model_call.geometry.are_own(host_call.k.shape[2]):
        return _hand_on(model_call, func, args, kwargs)
    layout = model_call.geometry.layout(host_call.k.shape[2])
    block = running_block(options, model_call.family, layout)
    if block is not None or layout is not None:
        model_call.attended.append(block)
    why_dense = _why_dense(model_call, host_call, layout, block)
    if why_dense is None and layout is not None:
        ours = _local(model_call, host_call, layout, block)
    else:
        if model_call.report is not None and model_call.settings.local is not None:
            model_call.report.add(_dense_path(layout, why_dense or ""))
        ours = _full_of_ranks(model_call, host_call, layout)
    if ours is None:
        func = _own_or(func, model_call, block)
        out = _dense(model_call, host_call, layout, func, args, kwargs)
    else:
        # [B, H, M, D] -> what the caller wants
        out = ours if kwargs.get("skip_output_reshape") else ours.transpose(1, 2).flatten(2)
    if model_call.recorder is not None:
        model_call.recorder.add(block, out)
    return out


def _why_dense(
    model_call: ModelCall,
    host_call: HostCall,
    layout: TokenLayout | None,
    block: tuple[str, int] | None,
) -> str | None:
    if model_call.why_dense is not None:
        return model_call.why_dense
    if layout is None:
        return f"{host_call.k.shape[2]} tokens cannot hold the picture's grid"
    if model_call.geometry.queries(layout, host_call.q.shape[2]) is None or not host_call.fits:
        return (
            f"keys {list(host_call.k.shape)} and queries {list(host_call.q.shape)} differ: "
            "no joint self-attention"
        )
    local = model_call.settings.local
    if block is not None and local is not None and block in local.dense_blocks:
        return f"block {block[0]} {block[1]} is kept dense"
    return None


def _local(
    model_call: ModelCall, host_call: HostCall, layout: TokenLayout, block: Block | None
) -> Tensor:
    local, q = model_call.settings.local, host_call.q
    window = model_call.settings.window_of(block)
    asked = model_call.geometry.queries(layout, q.shape[2])
    assert local is not None and window is not None and asked is not None
    pooling = local.pooling(block)
    scale = _scale(model_call, host_call, layout, pooled=pooling is not None)
    trained = wants_gradients(pooling, q, host_call.k, host_call.v)
    mask = _read_once(model_call, host_call.mask, layout, asked)
    groups = q.shape[1] // host_call.k.shape[1]
    call = Call(layout, window, pooling, scale, mask, trained, asked, groups)
    seat = model_call.seat
    computed = call
    if seat is not None:
        computed = call_of(q, host_call.k, seat, layout, window, pooling, scale)
    backend, why = _backend(q, computed, local.backend)
    if block is None and local.needs_block:
        why = "; ".join(filter(None, (UNNAMED, why)))
    if model_call.report is not None:
        behind = model_call.geometry.behind(layout)
        model_call.report.add(_local_path(backend, call, why, behind))
    if seat is not None:
        return _of_ranks(host_call, seat, layout, window, pooling, scale, backend)
    out = attention(
        q,
        host_call.k,
        host_call.v,
        layout,
        window,
        queries=asked,
        pooling=pooling,
        scale=scale,
        mask=mask,
        backend=backend,
    )
    assert isinstance(out, Tensor)
    return out


def _full_of_ranks(
    model_call: ModelCall, host_call: HostCall, layout: TokenLayout | None
) -> Tensor | None:
    """Return full attention of the picture's tokens, which several ranks hold; else None."""
    seat = model_call.seat
    if seat is None or layout is None or not host_call.fits:
        return None
    if model_call.geometry.queries(layout, host_call.q.shape[2]) is None:
        return None
    scale = _scale(model_call, host_call, layout, pooled=False)
    return _of_ranks(host_call, seat, layout, None, None, scale, "auto")


def _of_ranks(
    host_call: HostCall,
    seat: Seat,
    layout: TokenLayout,
    window: Window | None,
    pooling: Pooling | None,
    scale: float,
    backend: str,
) -> Tensor:
    if host_call.mask is not None:
        raise ValueError(MASKED)
    q, k, v = host_call.q, host_call.k, host_call.v
    return attend(q, k, v, seat, layout, window, pooling=pooling, scale=scale, backend=backend)


def _read_once(
    model_call: ModelCall, mask: Tensor | None, layout: TokenLayout, asked: Queries
) -> Mask | None:
    """Read a mask that the blocks of a call have in common for the first of them alone."""
    if mask is None:
        return None
    # The host may make views of one tensor for each block: what they show is the same.
    version = 0 if mask.is_inference() else mask._version
    key = (mask.data_ptr(), version, mask.dtype, mask.shape, mask.stride(), layout, asked)
    if key not in model_call.masks:
        model_call.masks.clear()
        model_call.masks[key] = mask, read_mask(mask, layout, asked)
    return model_call.masks[key][1]


def _backend(q: Tensor, call: Call, asked: str) -> tuple[str, str]:
    """Return a backend's name, and why it is not the one that was asked for."""
    auto = choose_name(q, call)
    if asked == "auto":
        if call.mask is not None and call.mask.general is not None:
            return auto, "an attention mask over pictures costs more than a window alone"
        objection = why_not_triton(q, call)
        return auto, f"not triton: {objection}" if objection else ""
    objection = BACKENDS[asked].why_not(q, call)
    return (asked, "") if objection is None else (auto, f"not {asked}: {objection}")


def _dense(
    model_call: ModelCall,
    host_call: HostCall,
    layout: TokenLayout | None,
    func: Override,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Tensor:
    """Hand the call on, to the override that was there before us or to the host's attention."""
    if model_call.settings.proportional and layout is not None:
        # Old hosts ignore a `scale` argument, so the query carries the factor.
        depth = host_call.q.shape[-1]
        default = depth**-0.5 if host_call.scale is None else host_call.scale
        factor = _scale(model_call, host_call, layout, pooled=False) / default
        args = (args[0] * factor, *args[1:])
    return _hand_on(model_call, func, args, kwargs)


def _hand_on(
    model_call: ModelCall, func: Override, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Tensor:
    if model_call.previous is not None:
        return model_call.previous(func, *args, **kwargs)
    return func(*args, **kwargs)


def _own_or(func: Override, model_call: ModelCall, block: Block | None) -> Override:
    """Return what the host would call without an override: the checkpoint's own attention first."""
    if not model_call.own_attention or model_call.previous is not None:
        return func
    if block is None and model_call.report is not None:
        model_call.report.note(UNNAMED_OWN)
    return func if block is None else model_call.own_attention.get(block, func)


def _scale(model_call: ModelCall, host_call: HostCall, layout: TokenLayout, pooled: bool) -> float:
    depth = host_call.q.shape[-1]
    scale = depth**-0.5 if host_call.scale is None else host_call.scale
    if not model_call.settings.proportional:
        return scale
    return scale * proportional_scale(layout.tokens, depth, pooled=pooled) * depth**0.5


def _dense_path(layout: TokenLayout | None, why: str) -> ComputedPath:
    pairs = 0 if layout is None else all_pairs(layout)
    return ComputedPath("dense", layout, computed=pairs, possible=pairs, why=why)


def _local_path(
    backend: str, call: Call, why: str, behind: tuple[tuple[str, int], ...]
) -> ComputedPath:
    return ComputedPath(
        backend,
        call.layout,
        call.window.radius,
        call.pooling.factor if call.pooling else 0,
        visible_pairs(call.layout, call.window, call.pooling, call.queries),
        all_pairs(call.layout, call.queries),
        why,
        wrapped=call.window.wraps,
        behind=behind,
    )
