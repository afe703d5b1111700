"""A fingerprint of the teacher: its own weights, and what was put on top of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...distill.identity import fingerprint
from ...families.names import HOST_PREFIX
from ..core.patch import settings_of
from ..weights.base import unpatched

PLAIN = (str, int, float, bool, type(None))


def fingerprint_of(model: ModelPatcher) -> str:
    """Return a short checksum of a MODEL, the same whether and how it is loaded.

    It covers the weights, their patches such as LoRAs, the numbers in objects that were replaced
    (noise schedule, positions), and what CLEAR's nodes ask for. Functions of other nodes are not
    covered.
    """
    state = model.model_state_dict(HOST_PREFIX)
    tensors = {key: _stored(unpatched(model, key, tensor)) for key, tensor in state.items()}
    settings = settings_of(model)
    facts = [str((settings.proportional, settings.wrap_height, settings.wrap_width))]
    sigmas = getattr(model.get_model_object("model_sampling"), "sigmas", None)
    for name, value in (
        ("sigmas", sigmas),
        ("patches", model.patches),
        ("objects", {key: _numbers(value) for key, value in model.object_patches.items()}),
    ):
        for place, leaf in _leaves(value, name):
            if isinstance(leaf, Tensor):
                tensors[place] = _stored(leaf)
            else:
                facts.append(f"{place} {leaf!r}")
    return fingerprint(tensors, facts)


def _stored(tensor: Tensor) -> Tensor:
    """Return a tensor of a plain kind: of a quantised one, its packed numbers."""
    packed = getattr(tensor, "_qdata", None)  # the host's; it has no storage of its own
    return packed if isinstance(packed, Tensor) else tensor.as_subclass(Tensor)


def _numbers(replaced: Any) -> dict[str, Any]:
    """Return the plain values of an object, such as a schedule's shift."""
    values = getattr(replaced, "__dict__", {})
    plain = {
        name: value
        for name, value in sorted(values.items())
        if isinstance(value, PLAIN)
        or (isinstance(value, (list, tuple)) and all(isinstance(each, PLAIN) for each in value))
    }
    return {"class": type(replaced).__name__, **plain}


def _leaves(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """List tensors and plain values of nested patches by their place; adapters by their weights."""
    if isinstance(value, (Tensor, *PLAIN)):
        yield place, value
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            yield from _leaves(value[key], f"{place}/{key}")
    elif isinstance(value, (list, tuple)):
        for index, entry in enumerate(value):
            yield from _leaves(entry, f"{place}/{index}")
    elif hasattr(value, "weights"):
        yield from _leaves(value.weights, f"{place}/{type(value).__name__}")
    else:
        yield place, type(value).__name__
