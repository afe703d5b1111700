"""What travels to workers with each model call: plain values, tensors in main memory."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

PLAIN = (type(None), bool, int, float, str, bytes, uuid.UUID, torch.dtype, torch.Size)


def is_plain(value: Any) -> bool:
    """Return whether a value means the same in every process."""
    if isinstance(value, (list, tuple, set, frozenset)):
        return type(value) in (list, tuple, set, frozenset) and all(map(is_plain, value))
    if isinstance(value, dict):
        return type(value) is dict and all(map(is_plain, [*value, *value.values()]))
    return type(value) in PLAIN or type(value) in (Tensor, torch.nn.Parameter)


def plain_part(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the transformer_options that the host sets for one call.

    What nodes have put there a worker has from the same nodes.

    Args:
        options: Of the call.
    """
    return {name: value for name, value in options.items() if is_plain(value)}


def packed(value: Any) -> Any:
    """Return a value with its tensors in main memory; one that is there twice stays one.

    Args:
        value: Tensors in lists, tuples and dicts.

    Raises:
        ValueError: Something has no meaning in another process.
    """
    return _packed(value, {})


def _packed(value: Any, known: dict[int, Tensor]) -> Any:
    if isinstance(value, Tensor):
        if id(value) not in known:
            known[id(value)] = value.detach().cpu()
        return known[id(value)]
    if type(value) in (list, tuple):
        return type(value)(_packed(one, known) for one in value)
    if type(value) is dict:
        return {key: _packed(one, known) for key, one in value.items()}
    if not is_plain(value):
        raise ValueError(
            f"CLEAR Cluster cannot send a {type(value).__name__} to other machines, which another "
            "node gives to the model. Remove that node, or use CLEAR Parallel."
        )
    return value
