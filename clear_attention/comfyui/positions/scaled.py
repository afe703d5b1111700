"""Rotary base of an embedder that another node has installed, multiplied at each call."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import torch
from torch import Tensor, nn

READ_BY_OTHERS = ("dim", "axes_dim")


class ScaledEmbedder(nn.Module):
    """Another node's embedder with a larger base: it is asked anew at each call, never kept.

    Such nodes go on writing to their own object, as DyPE does with the noise level of each step. So
    each call makes a view that has the object's attributes of that moment and a base of its own.
    The object itself is not changed: parts of a batch may run side by side on it.

    Attributes:
        clear_unscaled: The other node's embedder.
        factor: On its base.
    """

    clear_unscaled: nn.Module

    def __init__(self, unscaled: nn.Module, factor: float) -> None:
        super().__init__()
        # Past torch's registry of submodules, which would list the unscaled one as a child.
        object.__setattr__(self, "clear_unscaled", unscaled)
        self.factor = factor
        self.theta = scaled_theta(unscaled, factor)  # for those who read it
        for name in READ_BY_OTHERS:
            if hasattr(unscaled, name):
                object.__setattr__(self, name, getattr(unscaled, name))

    def forward(self, ids: Tensor) -> Tensor:
        """Embed positions ``[B, L, axes]`` as the other embedder would with the larger base."""
        return _rotations(self.clear_unscaled, self.factor, ids)


def _ask(unscaled: nn.Module, factor: float, ids: Tensor) -> Tensor:
    before = dict(vars(unscaled))
    view = _view(unscaled, factor)
    rotations: Tensor = view(ids)
    for name, value in vars(view).items():  # what the embedder remembers of a call
        if name != "theta" and before.get(name) is not value:
            setattr(unscaled, name, value)
    return rotations


_rotations: Any = torch.compiler.disable(_ask)


def scaled_theta(embedder: Any, factor: float) -> Any:
    """Return an embedder's base times a factor; some nodes keep one base per axis."""
    theta = embedder.theta
    if isinstance(theta, (list, tuple)):
        return type(theta)(base * factor for base in theta)
    return theta * factor


def uses_theta(embedder: nn.Module, axes: int) -> bool:
    """Return whether an embedder's rotations follow from its `theta` when it is called.

    Some compute their frequencies once and keep `theta` only as a record. A copy is tried, so that
    the embedder remembers nothing of it.

    Args:
        embedder: Of another node.
        axes: Of the ids that it takes.
    """
    tensor = next(itertools.chain(embedder.parameters(), embedder.buffers()), None)
    device = None if tensor is None else tensor.device
    ids = torch.arange(3.0, device=device)[None, :, None].expand(1, 3, axes)
    rotations = []
    for factor in (1.0, 2.0):
        view = _view(embedder, factor)
        for name, value in vars(view).items():
            if isinstance(value, (dict, list, set)):
                vars(view)[name] = copy.copy(value)
        rotations.append(view(ids))
    return not torch.equal(*rotations)


def _view(embedder: nn.Module, factor: float) -> nn.Module:
    view = copy.copy(embedder)
    object.__setattr__(view, "theta", scaled_theta(embedder, factor))
    return view
