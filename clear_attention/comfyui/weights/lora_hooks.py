"""LoRA hooks (Create Hook LoRA, schedules, masks) on a model that is streamed from main memory.

The host adds a hook's change to the stored weight. At each use it applies the model's own patches
to a copy of that weight. CLEAR's patches replace the copied rows, and so remove the hook's change.
This module adds the removed share again, in the host's weight wrappers, which run behind the
patches.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP
from torch import Tensor

logger = logging.getLogger(__name__)

KEY = "clear_attention"
Loss = tuple[tuple[int, int, int] | None, float]
"""Rows of a weight, and the share of a hook's change that is lost on them."""
Losses = Callable[[Collection[Any]], list[Loss]]
"""Reads the lost rows and shares off the patches of a key."""


def restore_hooks(model: ModelPatcher, losses: Losses) -> None:
    """Keep the full effect of hooks on a clone, whichever way the host loads its weights.

    Args:
        model: The clone.
        losses: Returns what the patches of one key remove from a hook's change.
    """

    def registered(patcher: ModelPatcher, *_: Any, **__: Any) -> None:
        _wrap_hooked(patcher, losses)

    callbacks = {
        CallbacksMP.ON_REGISTER_ALL_HOOK_PATCHES: registered,
        CallbacksMP.ON_APPLY_HOOKS: _put_behind_patches,
    }
    for when, callback in callbacks.items():
        model.remove_callbacks_with_key(when, KEY)
        model.add_callback_with_key(when, KEY, callback)


def _wrap_hooked(patcher: ModelPatcher, losses: Losses) -> None:
    """Wrap the weights that hooks change. The host loads the model anew after it asked."""
    hooked = {key for keys in patcher.hook_patches.values() for key in keys}
    for key, wrappers in list(patcher.weight_wrapper_patches.items()):
        others = [wrapper for wrapper in wrappers if not isinstance(wrapper, _Restored)]
        patcher.weight_wrapper_patches[key] = others
    warned: list[str] = []
    for key in sorted(hooked & patcher.patches.keys()):
        lost = losses(patcher.patches[key])
        if lost:
            patcher.add_weight_wrapper(key, _Restored(patcher, key, lost, warned))


def _put_behind_patches(patcher: ModelPatcher, hooks: Any) -> None:
    """Move our wrappers behind patches that the host has appended, and apply the hooks anew.

    It does so where it unloads a part of the model during a run. The hooked weights that it has
    cached before have the patches in them, which are now applied again to what lies there.
    """
    behind = [functions for functions in _wrapped(patcher) if _sort(functions) != functions]
    for functions in behind:
        functions[:] = _sort(functions)
    if behind:
        patcher.clear_cached_hook_weights()
        patcher.patch_hooks(hooks)


def _wrapped(patcher: ModelPatcher) -> Iterator[list[Any]]:
    """Give the lists of functions of the layers that have wrappers of ours."""
    for key, wrappers in patcher.weight_wrapper_patches.items():
        if any(isinstance(wrapper, _Restored) for wrapper in wrappers):
            layer, _, parameter = key.rpartition(".")
            yield getattr(patcher.model.get_submodule(layer), f"{parameter}_function")


def _sort(functions: list[Any]) -> list[Any]:
    return sorted(functions, key=lambda function: isinstance(function, _Restored))


class _Restored:
    """Adds to a streamed weight what its patches have taken of a hook's change."""

    def __init__(
        self, patcher: ModelPatcher, key: str, lost: list[Loss], warned: list[str]
    ) -> None:
        self.model, self.key, self.lost, self.warned = patcher.model, key, lost, warned
        # The host's own dictionaries, which all clones share: no clone is kept alive.
        self.patched: Mapping[str, Any] = patcher.backup
        self.unhooked: Mapping[str, tuple[Tensor, Any]] = patcher.hook_backup

    def __call__(self, weight: Tensor) -> Tensor:
        own = self.unhooked.get(self.key)
        # Weights that were loaded whole are patched first and hooked on top: nothing is lost.
        if own is None or self.key in self.patched:
            return weight
        hooked = comfy.utils.get_attr(self.model, self.key)
        if hooked.shape != weight.shape or own[0].shape != weight.shape:
            self._warn()
            return weight
        for rows, share in self.lost:
            parts = (weight, hooked, own[0])
            mine, with_hook, without = parts if rows is None else (p.narrow(*rows) for p in parts)
            change = _on(with_hook, weight) - _on(without, weight)
            mine.add_((share * change).to(weight.dtype))
        return weight

    def _warn(self) -> None:
        if not self.warned:  # one list for all weights
            self.warned.append(self.key)
            logger.warning(
                "CLEAR: a LoRA hook loses its effect on attention weights (%s and others), for "
                "they are quantised and streamed from main memory: load the model in 16 bits or "
                "fp8, or give Load CLEAR Attention a reference_model.",
                self.key,
            )


def _on(tensor: Tensor, like: Tensor) -> Tensor:
    return tensor.detach().to(like.device).to(torch.float32)
