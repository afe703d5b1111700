"""Grouped-query attention: query heads that share a key head, without copies of the keys.

A sequence's key heads take the place of the batch, and the query heads of each the place of the
heads. Keys and values are then views whose heads all lie at the same place in memory, which every
backend can read; what a backend makes of them (pooled keys, bands of rows) it makes once per group
where it can.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ..partial import Part
from .call import Backend, Call, Footprint
from .sizes import output_bytes


def attend(backend: Backend, q: Tensor, k: Tensor, v: Tensor, call: Call) -> Part:
    """Let a backend compute a call whose keys have ``call.groups`` times fewer heads."""
    if call.groups == 1:
        return backend.attend(q, k, v, call)
    parts = [_of_sample(backend, q[b], k[b], v[b], call, b) for b in range(q.shape[0])]
    # In memory [B, L, H, D], which is what transformers go on with: [Hkv, G, L, D] lies otherwise.
    outs = torch.stack([part.out.permute(2, 0, 1, 3) for part in parts])
    lses = torch.stack([part.lse for part in parts])
    return Part(outs.flatten(2, 3).transpose(1, 2), lses.flatten(1, 2))


def footprint(of: Callable[[Tensor, Call], Footprint], q: Tensor, call: Call) -> Footprint:
    """Return what a call takes, from what a backend takes for one without groups.

    Sequences are computed one after the other, and their outputs then put together.
    """
    if call.groups == 1:
        return of(q, call)
    one = of(q[:1], call)
    whole, rest = output_bytes(q), output_bytes(q[1:])
    return replace(one, memory=max(one.memory + rest, 2 * whole), token_major=True)


def once_per_group(call: Call, make: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """Make something of tensors ``[B, H, ...]``: of one head, if all heads are the same."""
    if call.groups == 1:
        return make(*tensors)
    one = make(*(x[:, :1] for x in tensors))
    return one.expand(-1, call.groups, *one.shape[2:])


def _of_sample(backend: Backend, q: Tensor, k: Tensor, v: Tensor, call: Call, sample: int) -> Part:
    """Compute one sequence, ``[H, L, D]``; return ``[Hkv, G, L, D]``."""
    groups = call.groups
    k, v = (x.unsqueeze(1).expand(-1, groups, -1, -1) for x in (k, v))
    mask = None if call.mask is None else call.mask.sample(sample, groups)
    return backend.attend(q.unflatten(0, (-1, groups)), k, v, replace(call, mask=mask))
