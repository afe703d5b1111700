"""Finished stages of a cascade, kept in memory while the model that painted them is."""

from __future__ import annotations

import hashlib
import weakref
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

MAX_BYTES = 2 << 30
"""What finished stages may hold; one of 8192 x 8192 with its latent is 0.9 GB."""


@dataclass(frozen=True, eq=False)
class Finished:
    """What a stage gives.

    Attributes:
        image: ``[B, H, W, 3]``.
        latent: Of the image before decoding; None where the stage only enlarged it.
    """

    image: Tensor
    latent: Tensor | None = None

    @property
    def bytes(self) -> int:
        """Memory that it holds."""
        return sum(tensor.nbytes for tensor in (self.image, self.latent) if tensor is not None)


class StageCache:
    """The stages that were used last, at most so many bytes of them, but always the newest."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        self._stages: OrderedDict[Hashable, Finished] = OrderedDict()

    def __len__(self) -> int:
        return len(self._stages)

    def get(self, key: Hashable) -> Finished | None:
        """Return a stage, and count it as used."""
        if key in self._stages:
            self._stages.move_to_end(key)
        return self._stages.get(key)

    def put(self, key: Hashable, stage: Finished, owner: object) -> None:
        """Keep a stage until its owner, the model, is forgotten."""
        self._stages[key] = stage
        self._stages.move_to_end(key)
        weakref.finalize(owner, self._stages.pop, key, None).atexit = False
        while len(self) > 1 and sum(kept.bytes for kept in self._stages.values()) > self.max_bytes:
            self._stages.popitem(last=False)


def fingerprint(value: Any) -> Hashable:
    """Return a key that two values share only if they are alike: tensors by their numbers.

    Objects such as models and ControlNets are alike if they are the same. They are not kept alive.
    """
    if isinstance(value, Tensor):
        return tuple(value.shape), str(value.dtype), _digest(value)
    if isinstance(value, Mapping):
        return tuple((fingerprint(key), fingerprint(entry)) for key, entry in value.items())
    if isinstance(value, (list, tuple)):
        return type(value).__name__, *map(fingerprint, value)
    if value is None or isinstance(value, (str, bytes, int, float, bool)):
        return type(value).__name__, value
    try:
        reference = weakref.ref(value)
        hash(reference)  # kept by the reference, and needed when the object is gone
    except TypeError:
        return _Unlike()
    return reference


class _Unlike:
    """Never equal to another key: values that cannot be fingerprinted are not cached."""


def _digest(tensor: Tensor) -> str:
    """Return a checksum of a tensor's numbers."""
    plain = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.blake2b(plain.numpy().data, digest_size=16).hexdigest()
