"""A guard that keeps what autograd has saved as it was when the host then writes over it."""

from __future__ import annotations

import functools
import weakref
from collections import defaultdict
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode


@contextmanager
def saved_tensors_kept() -> Generator[None]:
    """Copy a saved tensor just before an operation such as ``x += y`` writes into its memory.

    Forward and backward pass both belong into the ``with``. Torch's own
    ``allow_mutation_on_saved_tensors`` (2.11) goes on to know a tensor by its address after it has
    copied it, when the address may belong to another one: then a layer's gradient is made of
    another layer's input.
    """
    guard = _Guard()
    with saved_tensors_hooks(guard.pack, _Saved.unpack), guard:
        yield


class _Saved:
    """A tensor that autograd has saved, or its copy."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def unpack(self) -> Tensor:
        """Return it as it was when it was saved."""
        return self.tensor


class _Guard(TorchDispatchMode):
    """Sees each write, and knows what is saved of each memory.

    A saved tensor keeps its memory alive until it is copied, and leaves `of_memory` then: no
    number in it can belong to memory that is no more.
    """

    def __init__(self) -> None:
        super().__init__()
        self.of_memory: defaultdict[int, list[weakref.ref[_Saved]]] = defaultdict(list)

    def pack(self, tensor: Tensor) -> _Saved:
        """Keep a tensor for the backward pass."""
        saved = _Saved(tensor)
        self.of_memory[_memory(tensor)].append(weakref.ref(saved))
        return saved

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operation."""
        for tensor in _written(func, args, kwargs or {}):
            for reference in self.of_memory.pop(_memory(tensor), ()):
                if (saved := reference()) is not None:
                    saved.tensor = saved.tensor.clone()
        return func(*args, **(kwargs or {}))


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _written(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[Tensor]:
    """Yield the tensors into which an operation writes."""
    for index, name in _written_arguments(func):
        value = args[index] if index < len(args) else kwargs.get(name)
        for tensor in value if isinstance(value, list | tuple) else (value,):
            if isinstance(tensor, torch.Tensor):
                yield tensor


@functools.cache
def _written_arguments(func: Any) -> tuple[tuple[int, str], ...]:
    """Return place and name of the arguments into which an operation writes; most have none."""
    return tuple(
        (index, argument.name)
        for index, argument in enumerate(func._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    )
