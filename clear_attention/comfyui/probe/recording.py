"""Measure the attention calls of a model where they pass, and change them where that is wanted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...families.names import Block
from ...layout import TokenLayout
from ...locality.choose import Cost
from ...locality.errors import ErrorSum, WindowErrors, candidate_radii
from ...locality.measure import Locality, covering_radius, measure_locality
from ..core import host
from ..core.blocks import BLOCK_KEY, RunningBlock, is_pictures, running_block
from ..core.calls.host_call import HostCall, read_call
from ..core.calls.model_call import CALL_KEY, ModelCall, Override
from ..core.geometry import Geometry
from .response import Change, tokens_of_block

ENOUGH = 256
"""Queries whose errors are measured, unless all are wanted: a probe of the demo's model at 1024
pixels then takes 2.7 to 2.9 of its steps, and is as exact as one picture is typical of others."""


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured of a block's attention.

    Attributes:
        locality: Where its queries look.
        errors: Of windows.
        layout: Where its tokens lie.
        width: Of all its heads together.
        change: What windows do to its output, at some tokens; None in an average.
    """

    locality: Locality
    errors: WindowErrors
    layout: TokenLayout
    width: int
    change: Change | None = None

    @property
    def cost(self) -> Cost:
        """What windows cost here."""
        return Cost(self.errors, self.layout, self.width)

    def with_gain(self, gain: float | None) -> Measured:
        """Return the same with the response of the model."""
        return replace(self, errors=replace(self.errors, gain=gain), change=None)

    @staticmethod
    def mean(found: Sequence[Measured]) -> Measured:
        """Average several measurements of one block, whose grids may differ."""
        largest = max(found, key=lambda each: each.layout.tokens)
        return Measured(
            Locality.mean([each.locality for each in found]),
            WindowErrors.mean([each.errors for each in found]),
            largest.layout,
            largest.width,
        )


Add = Callable[[Block, Measured], None]
Applied = dict[Block, Change]


def recording(
    add: Add, previous: Override | None, queries: int | None, seed: int, numbers: Sequence[Block]
) -> Override:
    """Return an override that measures a call and hands it on unchanged.

    CLEAR's own override calls it with the options that hold the geometry, and with a query that
    carries the scale of proportional attention.

    Args:
        add: Takes what was measured.
        previous: Another node's override, or None.
        queries: Image tokens that are measured, None for all.
        seed: Of their choice.
        numbers: All blocks, in any order.
    """

    def record(func: Override, *args: Any, **kwargs: Any) -> Tensor:
        with host.outside_recording():
            call = _pictures_call(args, kwargs)
            if call is not None:
                add(call.block, _measured(call, queries, seed, numbers))
        return func(*args, **kwargs) if previous is None else previous(func, *args, **kwargs)

    untraced: Any = torch.compiler.disable(record)
    return untraced


def changing(
    changes: Mapping[Block, Change], previous: Override | None
) -> tuple[Override, Applied]:
    """Return an override that changes the output of each block's first call, and what it did.

    Args:
        changes: By block.
        previous: Another node's override, or None.
    """
    applied: Applied = {}

    def change(func: Override, *args: Any, **kwargs: Any) -> Tensor:
        call = _pictures_call(args, kwargs)
        out = func(*args, **kwargs) if previous is None else previous(func, *args, **kwargs)
        if call is None or call.block in applied or call.block not in changes:
            return out
        with host.outside_recording():
            heads_first = kwargs.get("skip_output_reshape")
            flat = out.transpose(1, 2).flatten(2) if heads_first else out  # [B, L, H D]
            flat, applied[call.block] = changes[call.block].applied(flat)
            return flat.unflatten(2, (out.shape[1], -1)).transpose(1, 2) if heads_first else flat

    untraced: Any = torch.compiler.disable(change)
    return untraced, applied


class _Call(NamedTuple):
    """A call that is the picture's own."""

    block: Block
    layout: TokenLayout
    first: int
    """Row of the first image token among the call's queries."""
    q: Tensor
    k: Tensor
    v: Tensor
    mask: Tensor | None
    scale: float | None


def _pictures_call(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> _Call | None:
    """Read a call, None if it is not the picture's own."""
    options = kwargs["transformer_options"]
    model_call: ModelCall = options[CALL_KEY]
    if not _is_pictures(options, model_call):
        return None
    call, geometry = read_call(*args, **kwargs), model_call.geometry
    layout = geometry.layout(call.k.shape[2])
    block = running_block(options, model_call.family, layout)
    whole = None if layout is None else _whole(call, geometry, layout)
    asked = None if layout is None else geometry.queries(layout, call.q.shape[2])
    if layout is None or block is None or whole is None or asked is None:
        return None
    q, k, mask = whole
    v = _for_each_head(call.v, q.shape[1])
    return _Call(block, layout, layout.text - asked.first_text, q, k, v, mask, call.scale)


def _measured(call: _Call, queries: int | None, seed: int, numbers: Sequence[Block]) -> Measured:
    layout, (_, heads, _, depth) = call.layout, call.q.shape
    every = 1 if queries is None else max(1, min(queries, layout.image) // ENOUGH)
    errors = ErrorSum(call.v, layout, candidate_radii(covering_radius(layout)), every)
    locality = measure_locality(
        call.q,
        call.k,
        layout,
        scale=call.scale,
        mask=call.mask,
        queries=queries,
        seed=seed,
        watcher=errors,
    )
    tokens, values = errors.changes()
    own = tokens_of_block(tokens, layout.image, numbers.index(call.block), len(numbers))
    grid = (layout.height, layout.width)
    change = Change(grid, tokens[own], call.first, values[:, own.to(values.device)])
    return Measured(locality, errors.errors(), layout, heads * depth, change)


def _is_pictures(options: Mapping[str, Any], model_call: ModelCall) -> bool:
    """Return whether an attention call is the picture's; CLEAR's own override has counted it."""
    running: RunningBlock | None = options.get(BLOCK_KEY)
    if running is not None and model_call.acts:
        return running.attention is not None
    return is_pictures(options, model_call.family)


def _whole(
    call: HostCall, geometry: Geometry, layout: TokenLayout
) -> tuple[Tensor, Tensor, Tensor | None] | None:
    """Return queries, keys and mask of a layout, or None where they are no joint self-attention.

    Only the picture's queries are measured: in place of others that are missing stand zeros. Keys
    that several heads share are repeated.
    """
    (_, heads, rows, _), k, mask = call.q.shape, call.k, call.mask
    asked = geometry.queries(layout, rows)
    if not geometry.are_own(k.shape[2]) or asked is None or not call.fits:
        return None
    missing = layout.tokens - rows
    front, behind = (0, missing) if asked.first_text == 0 else (missing, 0)
    if mask is not None and mask.shape[-2] == rows:
        mask = F.pad(mask, (0, 0, front, behind))
    q = F.pad(call.q, (0, 0, front, behind))
    return q, _for_each_head(k, heads), mask


def _for_each_head(keys: Tensor, heads: int) -> Tensor:
    """Return keys or values for each head of the queries, repeated where several share one."""
    return keys.repeat_interleave(heads // keys.shape[1], dim=1)
