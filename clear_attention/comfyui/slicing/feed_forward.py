"""MLPs of any block computed slice by slice: they compute each token for itself."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...plan.slices import slice_size, slices
from .linear import PLAIN, HeldLinear, hold


@dataclass(frozen=True, eq=False)
class MLPCall:
    """What an MLP needs to know of a model call.

    Attributes:
        slice_tokens: Tokens of a slice, 0 for the automatic choice.
        pictures: In the call.
        rows: Of the MLP's input for one token: more than 1 where it takes each pixel of a token.
        told: Is told how the MLP was computed, in words.
    """

    slice_tokens: int
    pictures: int
    rows: int
    told: Callable[[str], None]


@contextmanager
def in_slices(module: nn.Module, call: MLPCall) -> Generator[None]:
    """Compute an MLP, from ``[..., C]`` to ``[..., D]``, in slices as long as the context lasts."""
    if "forward" in vars(module):
        call.told("whole: another node changed them")
        yield
        return
    mlp = _MLPS.setdefault(module, _MLP(module))
    mlp.call = call
    with _own_forward(module, mlp.forward):
        yield
    mlp.call = None


class _MLP:
    """A module's forward in slices; always the same, because torch.compile asks for that."""

    def __init__(self, module: nn.Module) -> None:
        self.module = weakref.ref(module)
        self.call: MLPCall | None = None
        self.forward: Any = torch.compiler.disable(self.run)

    def run(self, x: Tensor) -> Tensor:
        """Return what the module's class makes of its input."""
        module, call = self.module(), self.call
        assert module is not None and call is not None

        def forward(x: Tensor) -> Tensor:
            return type(module).forward(module, x)

        tokens = x.shape[:-1].numel() // (call.pictures * call.rows)
        size = slice_size(tokens, call.slice_tokens)
        if torch.is_grad_enabled():
            call.told("whole: gradients are computed")
            return forward(x)
        if tokens <= size:
            call.told(f"whole: {tokens} tokens are one slice")
            return forward(x)
        call.told(f"in slices of {size} tokens")
        with _weights_held(module, x):
            return _computed(forward, x, size * call.rows, call.pictures)


_MLPS: weakref.WeakKeyDictionary[nn.Module, _MLP] = weakref.WeakKeyDictionary()


def _computed(forward: Callable[[Tensor], Tensor], x: Tensor, size: int, pictures: int) -> Tensor:
    """Return ``forward(x)``, computed for so many rows of each picture at a time."""
    shape = x.shape
    if x.ndim != 3 or len(x) != pictures:
        x, size = x.reshape(1, -1, shape[-1]), size * pictures
    out: Tensor | None = None
    for part in slices(x.shape[1], size):
        some = forward(x[:, part].contiguous())
        if out is None:
            out = some.new_empty((*x.shape[:2], some.shape[-1]))
        out[:, part] = some
    assert out is not None
    return out.view(*shape[:-1], out.shape[-1])


@contextmanager
def _weights_held(module: nn.Module, like: Tensor) -> Generator[None]:
    """Keep a module's weights on the device, where each slice needs them."""
    with ExitStack() as held:
        for layer in module.modules():
            projection = hold(layer, like) if type(layer) in PLAIN else None
            if isinstance(projection, HeldLinear):
                held.enter_context(_own_forward(layer, projection))
        yield


@contextmanager
def _own_forward(module: nn.Module, forward: Any) -> Generator[None]:
    """Give a module a method of its own in place of its class's."""
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
