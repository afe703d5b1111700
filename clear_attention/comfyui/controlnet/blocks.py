"""Options and positions for the blocks of a ControlNet, which the host gives none, during a call.

Forward hooks, which are gone when the call is over: the network is shared with every other
CONTROL_NET that was made from it.
"""

from __future__ import annotations

import copy
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..core.blocks import options_changed
from ..core.geometry import Geometry
from ..positions.periodic import COLUMN_AXIS, ROW_AXIS, repeated

BLOCKS = ("double_blocks", "single_blocks", "joint_blocks")


def blocks_of(network: nn.Module) -> Iterator[nn.Module]:
    """List the transformer blocks of a FLUX or SD3 network."""
    for name in BLOCKS:
        yield from getattr(network, name, ())


@contextmanager
def options_for_blocks(network: nn.Module, options: Mapping[str, Any]) -> Generator[None]:
    """Add to the `transformer_options` of each block of a network, which may give it none."""
    with ExitStack() as hooks:
        for block in blocks_of(network):
            hooks.enter_context(options_changed(block, lambda given: {**given, **options}))
        yield


def theta_of(network: Any) -> float | None:
    """Return the rotary base of a FLUX network or net, or None if it has none."""
    return getattr(getattr(network, "pe_embedder", None), "theta", None)


@contextmanager
def rotary_positions(
    network: nn.Module,
    geometry: Geometry,
    theta: float,
    *,
    wrap_height: bool = False,
    wrap_width: bool = False,
) -> Generator[None]:
    """Let a FLUX network have exact positions at any size, from a rotary base.

    The host's ControlNets compute the ids of positions in the network's dtype, where in bfloat16
    integers above 256 collide: that is 4096 pixels.

    Args:
        network: With a ``pe_embedder``.
        geometry: Of the call.
        theta: The rotary base; the network's own changes nothing.
        wrap_height: Whether the last row lies beside the first one.
        wrap_width: Whether the last column lies beside the first one.
    """
    embedder: Any = network.pe_embedder
    scaled = copy.copy(embedder)
    scaled.theta = theta
    wraps = wrap_height or wrap_width

    def embed(_: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        ids = args[0]
        if theta != embedder.theta or ids.dtype != torch.float32:
            ids = exact_ids(ids, geometry)
            out = scaled.forward(ids)  # past its hooks, which it has copied
        layout = geometry.layout(ids.shape[1])
        assert layout is not None
        return repeated(out, ids, layout, wrap_height, wrap_width) if wraps else out

    handle = embedder.register_forward_hook(embed)
    try:
        yield
    finally:
        handle.remove()


def exact_ids(ids: Tensor, geometry: Geometry) -> Tensor:
    """Return the ids ``[B, L, axes]`` of text and a grid in float32, the grid's counted anew."""
    height, width = geometry.height, geometry.width
    exact = ids.to(torch.float32, copy=True)
    grid = exact[:, ids.shape[1] - height * width :].unflatten(1, (height, width))
    grid[..., ROW_AXIS] = torch.arange(height, device=ids.device).float()[:, None]
    grid[..., COLUMN_AXIS] = torch.arange(width, device=ids.device).float()
    return exact
