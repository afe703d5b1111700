"""A CLEAR checkpoint with its tensors, loaded once, and the host's patches that they become."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import comfy.lora
import comfy.utils
from torch import Tensor

from ...families.names import HOST_PREFIX, Block, HostSlice
from ...weights import checkpoint
from ...weights.checkpoint import Checkpoint
from ...weights.errors import CheckpointError
from ...weights.metadata import Radii
from .folder import path_of


@dataclass(frozen=True, eq=False)
class Tensors:
    """A file's tensors by their names in it; one object per file, shared by whoever uses it."""

    by_name: Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class ClearWeights:
    """A checkpoint with its tensors, in the file's dtype."""

    checkpoint: Checkpoint
    tensors: Tensors

    @property
    def radius(self) -> int:
        """Radius of the window in tokens."""
        return self.checkpoint.radius

    @property
    def radii(self) -> Radii:
        """Radius of the blocks that have another one."""
        return self.checkpoint.radii

    @property
    def pool_factor(self) -> int:
        """Edge of a pooled cell in tokens; 0 without a pooled branch."""
        return self.checkpoint.pool_factor

    @cached_property
    def pooling_weights(self) -> dict[Block, Tensor]:
        """Weights ``w[dy, dx]``, ``[factor, factor]``, of each block, such as ``("double", 0)``."""
        return self.checkpoint.table.pooling_weights(self.tensors.by_name)

    @property
    def patches(self) -> dict[HostSlice, Any]:
        """The values of the host's weight patches, by its keys and rows."""
        by_name = self.tensors.by_name
        rows = {name: in_model(rows) for name, rows in self.checkpoint.rows.items()}
        values = {
            place: ClearPatch.of((by_name[name],), self.tensors)
            for name, place in rows.items()
            if name in by_name
        }
        layers = {name: place for name, place in rows.items() if name not in by_name}
        return {**self._adapters(layers), **values}

    def _adapters(self, rows: Mapping[str, HostSlice]) -> dict[HostSlice, Any]:
        """Return the host's own LoRA adapters: newer hosts make others of their class from them."""
        if not rows:
            return {}
        # Pooling weights are not the host's business, which it would log.
        adapters = comfy.lora.load_lora(self.tensors.by_name, rows, log_missing=False)
        for adapter in adapters.values():
            adapter.weights = ClearPatch.of(adapter.weights, self.tensors)
        return adapters


class ClearPatch(tuple[Any, ...]):
    """What a weight patch from a CLEAR checkpoint holds, recognisable: the host sees its own tuple.

    It is the patch's value, ``(tensor,)``, or the weights of the adapter that is. It keeps the
    file's tensors alive, and nothing else does: they go with the last patched model.
    """

    tensors: Tensors

    @classmethod
    def of(cls, values: tuple[Any, ...], tensors: Tensors) -> ClearPatch:
        """Mark values that belong to a file's tensors."""
        patch = cls(values)
        patch.tensors = tensors
        return patch


def in_model(rows: HostSlice) -> HostSlice:
    """Name rows of the diffusion model's as rows of the MODEL's."""
    return HostSlice(HOST_PREFIX + rows.key, rows.offset)


_loaded: weakref.WeakValueDictionary[tuple[str, int, int], Tensors] = weakref.WeakValueDictionary()


def load_clear(name: str, radius: int | None = None) -> ClearWeights:
    """Load a checkpoint from the folder ``models/clear``.

    A full file holds 3.6 GB; as long as anybody uses it, loading it again costs nothing.

    Args:
        name: File name, as the folder's list has it.
        radius: Radius of the window in tokens; None takes the file's own.

    Raises:
        CheckpointError: There is no such file, or it is not usable.
    """
    found = checkpoint.read(path_of(name), radius)
    return ClearWeights(found, _tensors(found))


def _tensors(found: Checkpoint) -> Tensors:
    """Return the file's tensors, from whoever has loaded them already."""
    status = os.stat(found.path)
    key = (os.path.realpath(found.path), status.st_mtime_ns, status.st_size)
    tensors = _loaded.get(key)
    if tensors is None:
        tensors = _loaded[key] = Tensors(_read_tensors(found))
    return tensors


def _read_tensors(found: Checkpoint) -> dict[str, Tensor]:
    # The host's loader follows its options, such as --disable-mmap, and lets newer hosts stream.
    try:
        tensors: dict[str, Tensor] = comfy.utils.load_torch_file(str(found.path), safe_load=True)
    except Exception as error:
        raise CheckpointError(f"{found.path.name} cannot be loaded: {error}") from error
    checkpoint.check_loaded(found, tensors)
    return tensors
