"""Copies of a MODEL for further devices: weights of their own, the patches of the original."""

from __future__ import annotations

import copy
import weakref
from typing import Any

import comfy.model_management
import comfy.sampler_helpers
import torch
from comfy.model_patcher import ModelPatcher
from torch import nn

from ...units import gib

OWN_CONTAINERS = {
    "backup": dict,
    "backup_buffers": dict,
    "object_patches_backup": dict,
    "hook_backup": dict,
    "pinned": set,
}
"""What a patcher keeps about its model's weights: a clone shares it, a copy must not."""

FOLLOWED = (
    "patches",
    "patches_uuid",
    "weight_wrapper_patches",
    "model_options",
    "attachments",
    "callbacks",
    "wrappers",
    "injections",
    "force_cast_weights",
    "hook_mode",
)
"""What a copy takes over from the original for each run; the original's clone holds it."""


class Copies:
    """The copies of each model that was shared, for as long as the model lives."""

    def __init__(self) -> None:
        self._by_model: weakref.WeakKeyDictionary[nn.Module, list[ModelPatcher]] = (
            weakref.WeakKeyDictionary()
        )

    def of(self, model: ModelPatcher, devices: list[torch.device]) -> list[ModelPatcher]:
        """Return patchers of the copies for one run, with the patches that the original has now.

        Args:
            model: The original, on the first device.
            devices: Of the copies; one that stands there twice has two.

        Raises:
            ValueError: There is too little memory for a further copy.
        """
        known = self._by_model.setdefault(model.model, [])
        unused = list(known)
        chosen: list[ModelPatcher] = []
        for device in devices:
            base = next((one for one in unused if one.load_device == device), None)
            if base is None:
                base = _copied(model, device)
                known.append(base)
            else:
                unused.remove(base)
            chosen.append(_for_a_run(base, model))
        return chosen


COPIES = Copies()


def _copied(model: ModelPatcher, device: torch.device) -> ModelPatcher:
    """Copy a model, unloaded, so that no LoRA is baked into the copy's weights."""
    made: Any = None
    if getattr(model, "cached_patcher_init", None) is not None:
        # Of newer hosts: the loader reads the file once more.
        made = model.deepclone_multigpu(new_load_device=device)
    else:
        _require_memory(model)
        _unload(model)
        made = model.clone()
        # Of newer hosts, a configuration cannot be copied; nothing changes it.
        config: Any = getattr(model.model, "model_config", None)
        made.model = copy.deepcopy(model.model, {id(config): config})
        made.load_device = device
        if hasattr(made, "register_load_device"):
            made.register_load_device(device)
    for name, kind in OWN_CONTAINERS.items():
        if hasattr(made, name):
            setattr(made, name, kind())
    made.parent = None
    made.additional_models = {}
    return made


def _for_a_run(base: ModelPatcher, model: ModelPatcher) -> ModelPatcher:
    now, followed = base.clone(), model.clone()
    for name in FOLLOWED:
        setattr(now, name, getattr(followed, name))
    # A module that two threads run must not be one: hooks and grids are a rank's own.
    now.object_patches = {
        path: copy.deepcopy(patch) if isinstance(patch, nn.Module) else patch
        for path, patch in model.object_patches.items()
    }
    now.additional_models = {}
    now.hook_patches = {}
    now.hook_patches_backup = None
    now.cached_hook_patches = {}
    now.current_hooks = None
    now.forced_hooks = None
    return now


def _require_memory(model: ModelPatcher) -> None:
    needed = model.model_size()
    free = comfy.model_management.get_free_memory(torch.device("cpu"))
    if free < needed:
        raise ValueError(
            f"CLEAR Parallel must copy the model for each further device and needs {gib(needed)} "
            f"of main memory for that, {gib(int(free))} are free. Use fewer devices, a smaller "
            "dtype of the weights, or a newer ComfyUI, which reads the file again instead."
        )


def _unload(model: ModelPatcher) -> None:
    management: Any = comfy.model_management
    if hasattr(management, "unload_model_and_clones"):
        management.unload_model_and_clones(model)
        return
    for loaded in list(management.current_loaded_models):
        if loaded.model is not None and loaded.model.is_clone(model):
            loaded.model_unload()
            management.current_loaded_models.remove(loaded)


def register_hooks(copies: list[ModelPatcher], conds: Any, model_options: dict[str, Any]) -> None:
    """Register the hooks of conditionings on copies, as the host did on the original.

    Args:
        copies: Of one run.
        conds: Of the run.
        model_options: Of the run; left as they are.
    """
    for one in copies:
        options = {**model_options, "transformer_options": {}, "to_load_options": {}}
        options.pop("registered_hooks", None)
        comfy.sampler_helpers.prepare_model_patcher(one, conds, options)


def follow_hooks(one: ModelPatcher, original: ModelPatcher) -> None:
    """Apply to a copy the hooks that the original has now, at the strengths of their keyframes.

    Args:
        one: A copy.
        original: Whose hooks are applied already.
    """
    hooks = original.current_hooks
    strengths = None if hooks is None else tuple(hook.strength for hook in hooks.hooks)
    known = getattr(one, "clear_hook_strengths", None)
    if one.current_hooks == hooks and known == strengths:
        return
    one.cached_hook_patches.clear()
    one.apply_hooks(hooks, force_apply=True)
    setattr(one, "clear_hook_strengths", strengths)  # noqa: B010 - not an attribute of the host's
