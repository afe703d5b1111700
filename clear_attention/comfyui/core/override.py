"""The attention override: one host call in, CLEAR attention or the host's own out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from ...api import attention
from ...backends import BACKENDS, Call, choose_name, why_not_triton
from ...backends.call import wants_gradients
from ...families.family import Family
from ...layout import TokenLayout
from ...masks import general_mask
from ...pairs import all_pairs, visible_pairs
from ...pooling import Pooling
from ...scale import proportional_scale
from ...window import Window
from .blocks import running_block
from .geometry import Geometry
from .report import ComputedPath, RunReport
from .settings import Block, Settings

CALL_KEY = "clear_attention_call"
"""Where a model call's `ModelCall` lies in transformer_options."""

RECORDER_KEY = "clear_attention_recorder"
"""Key of the optional recorder that receives each block's attention output."""

UNNAMED = (
    "another node does not say which block is running, so that none is kept dense, "
    "and pooling takes the mean"
)

UNNAMED_OWN = (
    "another node does not say which block is running, so that calls that stay dense leave out the "
    "checkpoint's own attention"
)

Override = Callable[..., Tensor]


class OutputRecorder(Protocol):
    """Receives the attention output of each block."""

    def add(self, block: Block | None, output: Tensor) -> None:
        """Take an output, ``[B, L, H D]`` as the host's attention gives it."""
        ...


@dataclass(frozen=True, eq=False)
class ModelCall:
    """What the attention of one model call needs to know.

    Attributes:
        family: Of the model.
        settings: What the nodes ask for, as far as it holds for this call.
        geometry: The grid of this call.
        why_dense: Why the whole call keeps full attention, or None.
        previous: The override that was in the slot before, or None.
        report: Collects what happened, or None outside a sampling run.
        recorder: Is given each block's attention output, or None.
        asked: What the nodes ask for, or None where all of it holds.
        own_attention: The attention that the checkpoint brings for a block.
        attended: The block of each attention so far, None where nobody names it.
    """

    family: Family
    settings: Settings
    geometry: Geometry
    why_dense: str | None
    previous: Override | None
    report: RunReport | None
    recorder: OutputRecorder | None = None
    asked: Settings | None = None
    own_attention: Mapping[Block, Override] = field(default_factory=dict)
    attended: list[Block | None] = field(default_factory=list)

    @property
    def acts(self) -> bool:
        """Whether the attention of this call is anything but the host's own.

        The slot of a call that is not keeps what others have put there: hosts leave a checkpoint's
        own attention out as soon as there is any override.
        """
        return self.why_dense is None or self.settings.proportional or self.recorder is not None

    @property
    def needs_block(self) -> bool:
        """Whether the attention must know which block is running."""
        asked = self.settings.local
        window = self.why_dense is None and asked is not None and asked.needs_block
        own = bool(self.own_attention)
        return self.settings.name_blocks or window or own or self.recorder is not None


class Observer(Protocol):
    """A plain function that follows each model call before it runs, without changing it."""

    def __call__(self, call: ModelCall, latent: Tensor, diffusion_model: Any, /) -> None: ...


@dataclass(frozen=True, eq=False)
class HostCall:
    """The arguments of one host attention call, in one form for all host versions.

    Attributes:
        q: ``[B, H, L, D]``.
        k: ``[B, H, N, D]``.
        v: ``[B, H, N, D]``.
        mask: As the host gives it, broadcastable to ``[B, H, L, N]``, or None.
        scale: Factor on the scores, None for the default.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    mask: Tensor | None
    scale: float | None


@torch.compiler.disable
def override(func: Override, *args: Any, **kwargs: Any) -> Tensor:
    """Compute one attention call of the host, see `optimized_attention_override`.

    A plain function without state: cloning a model copies its options deeply, and torch.compile
    guards on the identity of what lies in them.
    """
    model_call: ModelCall = kwargs["transformer_options"][CALL_KEY]
    host_call = read_call(*args, **kwargs)
    layout = model_call.geometry.layout(host_call.q.shape[2])
    block = running_block(kwargs["transformer_options"], model_call.family, layout)
    if block is not None or layout is not None:
        model_call.attended.append(block)
    why_dense = _why_dense(model_call, host_call, layout, block)
    if why_dense is None and layout is not None:
        out = _local(model_call, host_call, layout, block)
        # [B, H, L, D] -> what the caller wants
        out = out if kwargs.get("skip_output_reshape") else out.transpose(1, 2).flatten(2)
    else:
        if model_call.report is not None and model_call.settings.local is not None:
            model_call.report.add(_dense_path(layout, why_dense or ""))
        func = _own_or(func, model_call, block)
        out = _dense(model_call, host_call, layout, func, args, kwargs)
    if model_call.recorder is not None:
        model_call.recorder.add(block, out)
    return out


def read_call(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: int,
    mask: Tensor | None = None,
    attn_precision: torch.dtype | None = None,
    skip_reshape: bool = False,
    skip_output_reshape: bool = False,
    *,
    scale: float | None = None,
    **_: object,
) -> HostCall:
    """Read the arguments that a host gives to an override."""

    def split(x: Tensor) -> Tensor:
        return x if skip_reshape else x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)

    return HostCall(split(q), split(k), split(v), _four_dimensional(mask), scale)


def _four_dimensional(mask: Tensor | None) -> Tensor | None:
    """Return ``[B or 1, H or 1, L, N]``: the host's 3-D masks are per batch, not per head."""
    if mask is None:
        return None
    if mask.ndim == 3:
        return mask.unsqueeze(1)
    return mask.reshape((1,) * (4 - mask.ndim) + mask.shape)


def _why_dense(
    model_call: ModelCall,
    host_call: HostCall,
    layout: TokenLayout | None,
    block: tuple[str, int] | None,
) -> str | None:
    if model_call.why_dense is not None:
        return model_call.why_dense
    if host_call.k.shape != host_call.q.shape or host_call.v.shape != host_call.q.shape:
        return (
            f"keys {list(host_call.k.shape)} and queries {list(host_call.q.shape)} differ: "
            "no joint self-attention"
        )
    if layout is None:
        return f"{host_call.q.shape[2]} tokens cannot hold the picture's grid"
    local = model_call.settings.local
    if block is not None and local is not None and block in local.dense_blocks:
        return f"block {block[0]} {block[1]} is kept dense"
    return None


def _local(
    model_call: ModelCall, host_call: HostCall, layout: TokenLayout, block: Block | None
) -> Tensor:
    local, window, q = model_call.settings.local, model_call.settings.window, host_call.q
    assert local is not None and window is not None
    pooling = local.pooling(block)
    scale = _scale(model_call, host_call, layout, pooled=pooling is not None)
    trained = wants_gradients(pooling, q, host_call.k, host_call.v)
    mask = None if host_call.mask is None else general_mask(host_call.mask, layout)
    call = Call(layout, window, pooling, scale, mask, trained)
    backend, why = _backend(q, call, local.backend)
    if block is None and local.needs_block:
        why = "; ".join(filter(None, (UNNAMED, why)))
    if model_call.report is not None:
        model_call.report.add(_local_path(backend, layout, window, pooling, why))
    out = attention(
        q,
        host_call.k,
        host_call.v,
        layout,
        window,
        pooling=pooling,
        scale=scale,
        mask=mask,
        backend=backend,
    )
    assert isinstance(out, Tensor)
    return out


def _backend(q: Tensor, call: Call, asked: str) -> tuple[str, str]:
    """Return a backend's name, and why it is not the one that was asked for."""
    auto = choose_name(q, call)
    if asked == "auto":
        if call.mask is not None:
            return auto, "an attention mask costs more than a window alone"
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
    backend: str, layout: TokenLayout, window: Window, pooling: Pooling | None, why: str
) -> ComputedPath:
    return ComputedPath(
        backend,
        layout,
        window.radius,
        pooling.factor if pooling else 0,
        visible_pairs(layout, window, pooling),
        all_pairs(layout),
        why,
        wrapped=window.wraps,
    )
