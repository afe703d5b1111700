"""Exact positions for a ControlNet, which the host computes in its dtype, during a call.

A forward hook, which is gone when the call is over: the network is shared with every other
CONTROL_NET that was made from it.
"""

from __future__ import annotations

import copy
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..core.exact_positions import exact_ids
from ..core.geometry import Geometry
from ..families import Embedder, family_of
from ..positions.periodic import repeated


def theta_of(network: Any) -> float | None:
    """Return the rotary base of a network of a family that CLEAR knows, or None."""
    family = family_of(network)
    if family is None or family.embedder is None:
        return None
    try:
        return getattr(family.embedder.of(network), "theta", None)
    except ValueError:  # such a network has no positions of its own
        return None


@contextmanager
def rotary_positions(
    network: nn.Module,
    where: Embedder,
    geometry: Geometry,
    theta: float,
    *,
    wrap_height: bool = False,
    wrap_width: bool = False,
) -> Generator[None]:
    """Give a network exact rotary positions at any size, from a rotary base.

    The host's ControlNets compute the ids of positions in the network's dtype, where in bfloat16
    integers above 256 collide: that is 4096 pixels.

    Args:
        network: Of a ControlNet.
        where: Its rotary positions are made.
        geometry: Of the call.
        theta: The rotary base; the network's own changes nothing.
        wrap_height: Whether the last row lies beside the first one.
        wrap_width: Whether the last column lies beside the first one.
    """
    embedder: Any = where.of(network)
    scaled = copy.copy(embedder)
    scaled.theta = theta
    wraps = (wrap_height, wrap_width)

    def embed(_: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        ids = args[0]
        inexact = ids.dtype.itemsize < torch.float32.itemsize
        if inexact:
            ids = exact_ids(ids, geometry, where.axes)
        if inexact or theta != embedder.theta:
            out = scaled.forward(ids)  # past its hooks, which it has copied
        layout = geometry.layout(ids.shape[1])
        if layout is None or not any(wraps):
            return out
        return repeated(out, ids, layout, where.axes, wraps, geometry.text(layout))

    handle = embedder.register_forward_hook(embed)
    try:
        yield
    finally:
        handle.remove()
