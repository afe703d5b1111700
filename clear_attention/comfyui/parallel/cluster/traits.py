"""What a MODEL is, in plain values: two machines must have made the same one."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterator, Mapping
from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor, nn

from ..one_device import WATCHED

Traits = dict[str, str]
"""A part of a MODEL, in words -> what it is."""

ABOUT = "cluster:"
"""How the report's line of our node begins."""

OURS = "clear_cluster"
"""How the keys begin that CLEAR Cluster itself leaves in a model's options."""


def traits(model: ModelPatcher) -> Traits:
    """Return what decides a MODEL's numbers, beyond the bytes of its weights.

    What acts outside of the model's calls is no part of it: the machine that samples does that.

    Args:
        model: Before a run.
    """
    network = model.get_model_object("diffusion_model")
    options = model.model_options.get("transformer_options", {})
    found: Traits = {
        "its class": f"{type(model.model).__name__} of {type(network).__name__}",
        "its size": _size(network),
        "the type of its weights": str(model.model.get_dtype()),
        "the type that it computes in": str(model.model.manual_cast_dtype),
    }
    for name, patches in model.patches.items():
        strengths = [f"{one[0]:g}" for one in patches]
        found[f"the patches of {name}"] = f"at strengths {', '.join(strengths)}"
    for name, patch in model.object_patches.items():
        found[f"the patch of {name}"] = _kind(patch)
    for name, value in options.items():
        if name not in ("wrappers", "callbacks") and not name.startswith(OURS):
            found.update(_flat(f"its option {name}", value))
    for kind in WATCHED:
        for wrappers in (options.get("wrappers", {}), model.wrappers):
            found.update(_wrappers(kind, wrappers))
    for name in model.injections:
        found[f"what a node added under {name}"] = "there"
    return found


def _size(network: nn.Module) -> str:
    tensors = network.state_dict(keep_vars=True).values()
    return f"{len(tensors)} tensors of {sum(one.numel() for one in tensors)} numbers"


def _wrappers(kind: WrappersMP | str, wrappers: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, functions in wrappers.get(kind, {}).items():
        if functions and not str(key).startswith(OURS):
            yield f"the wrapper {key} of {kind}", ", ".join(_kind(one) for one in functions)


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield the plain values within a value, by their place in it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        yield name, f"of {len(value)} parts"
        for key, one in value.items():
            yield from _flat(f"{name}.{key}", one)
    elif isinstance(value, (list, tuple)):
        yield name, f"of {len(value)} parts"
        for index, one in enumerate(value):
            yield from _flat(f"{name}.{index}", one)
    elif isinstance(value, (set, frozenset)):
        yield name, f"{sorted(map(str, value))}"
    else:
        yield name, _kind(value)


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        total = value.detach().double().sum().item() if value.device.type != "meta" else 0.0
        return f"{list(value.shape)} of {value.dtype}, sum {total:.6g}"
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    if isinstance(value, (types.FunctionType, types.MethodType, types.BuiltinFunctionType)):
        return value.__qualname__
    return type(value).__qualname__


def first_difference(here: Mapping[str, str], there: Mapping[str, str]) -> str | None:
    """Return the part of a MODEL in which another differs, or None.

    Args:
        here: Traits.
        there: Traits of what should be the same.
    """
    for name in {**here, **there}:
        if here.get(name) != there.get(name):
            return f"{name} is {there.get(name, 'missing')} (here {here.get(name, 'missing')})"
    return None
