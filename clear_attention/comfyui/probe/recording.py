"""Measure the attention calls of a model where they pass: an override that changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

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
from .response import Attended, Responses, with_changes


@dataclass(eq=False)
class Measured:
    """What was measured of a block's attention.

    Attributes:
        locality: Where its queries look.
        errors: Of windows.
        layout: Where its tokens lie.
        width: Of all its heads together.
    """

    locality: Locality
    errors: WindowErrors
    layout: TokenLayout
    width: int

    def respond(self, gain: float) -> None:
        """Take the response of the block, which comes when the block has ended."""
        self.errors = replace(self.errors, gain=gain)

    @property
    def cost(self) -> Cost:
        """What windows cost here."""
        return Cost(self.errors, self.layout, self.width)

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


def recording(
    add: Add,
    previous: Override | None,
    queries: int | None,
    seed: int,
    responses: Responses | None = None,
) -> Override:
    """Return an override that measures a call and hands it on unchanged.

    CLEAR's own override calls it with the options that hold the geometry, and with a query that
    carries the scale of proportional attention.
    """
    watched = responses or Responses(host.outside_recording)

    def record(func: Override, *args: Any, **kwargs: Any) -> Tensor:
        if watched.runs_again:
            return watched.attend_again()
        with host.outside_recording():
            found = _measured(args, kwargs, queries, seed)
        attend = func if previous is None else partial(previous, func)
        out = attend(*args, **kwargs)
        if found is None:
            watched.add(Attended(out))
            return out
        block, measured, rows, changes = found
        if watched.wants:
            with host.outside_recording():
                changed = _changed(out, rows, changes, kwargs)
            watched.add(Attended(out, changed, measured.respond))
        add(block, measured)
        return out

    untraced: Any = torch.compiler.disable(record)
    return untraced


def _measured(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], queries: int | None, seed: int
) -> tuple[Block, Measured, Tensor, Tensor] | None:
    """Measure a call, None if it is not the picture's own.

    Returns:
        The block, what was measured, and changes of the output by windows: which rows, and by what.
    """
    options = kwargs["transformer_options"]
    model_call: ModelCall = options[CALL_KEY]
    if not _is_pictures(options, model_call):
        return None
    call, geometry = read_call(*args, **kwargs), model_call.geometry
    layout = geometry.layout(call.k.shape[2])
    block = running_block(options, model_call.family, layout)
    whole = None if layout is None else _whole(call, geometry, layout)
    if layout is None or block is None or whole is None:
        return None
    q, k, mask = whole
    radii = candidate_radii(covering_radius(layout))
    errors = ErrorSum(_for_each_head(call.v, q.shape[1]), layout, radii)
    locality = measure_locality(
        q, k, layout, scale=call.scale, mask=mask, queries=queries, seed=seed, watcher=errors
    )
    tokens, changes = errors.changes()
    asked = geometry.queries(layout, call.q.shape[2])
    first = layout.text - (0 if asked is None else asked.first_text)
    width = q.shape[1] * q.shape[3]
    return block, Measured(locality, errors.errors(), layout, width), tokens + first, changes


def _changed(out: Tensor, rows: Tensor, changes: Tensor, kwargs: Mapping[str, Any]) -> Tensor:
    """Return an attention's output, as the host has it, with changes of some rows."""
    if not kwargs.get("skip_output_reshape"):
        return with_changes(out, rows, changes)
    flat = out.transpose(1, 2).flatten(2)  # [B, H, L, D]
    return with_changes(flat, rows, changes).unflatten(2, (out.shape[1], -1)).transpose(1, 2)


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
