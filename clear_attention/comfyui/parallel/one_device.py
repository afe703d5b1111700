"""Why a picture cannot be shared: what one device must compute, so that it stays right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import nn

from ..core.blocks import runs_foreign
from ..core.calls.attached import attached_networks
from ..core.calls.model_call import OVERRIDE_KEY, RECORDER_KEY
from ..core.calls.shared_nets import SharedResiduals
from ..core.override import override
from ..families import HostFamily, family_of, plain_module

OURS = "clear_"
"""How the keys of our wrappers begin."""

WATCHED = (WrappersMP.APPLY_MODEL, WrappersMP.DIFFUSION_MODEL)


def why_one_device(model: ModelPatcher, options: Mapping[str, Any]) -> str | None:
    """Return why one device must compute a whole run, or None.

    Args:
        model: The MODEL that is sampled.
        options: Its transformer_options in this run.
    """
    network = model.get_model_object("diffusion_model")
    family = family_of(network)
    if family is None or family.cut is None:
        name = type(plain_module(network)).__name__ if family is None else family.title
        return f"where {name} models mix tokens is not known"
    return (
        _why_not_network(family, network)
        or _why_not_patches(model)
        or _why_not_options(options)
        or _why_not_wrappers(options)
    )


def _why_not_network(family: HostFamily, network: nn.Module) -> str | None:
    if runs_foreign(family, network) or not family.runs_own_lists(plain_module(network)):
        return "another node runs the blocks (TeaCache, PuLID, a block cache)"
    if type(network) is not type(plain_module(network)):
        return "the model is compiled"
    return None


def _why_not_patches(model: ModelPatcher) -> str | None:
    if model.get_additional_models_with_key("multigpu"):
        return "ComfyUI's own MultiGPU node has shared out the prompts already. Remove that node"
    if model.injections:
        return "another node puts modules of its own into the model"
    for path, patch in model.object_patches.items():
        if isinstance(patch, nn.Module) and any(True for _ in patch.parameters()):
            return f"another node has replaced {path} with weights of its own"
    return None


def _why_not_options(options: Mapping[str, Any]) -> str | None:
    if options.get(OVERRIDE_KEY) not in (None, override):
        return "another node has its own attention in this model"
    if options.get(RECORDER_KEY) is not None:
        return "the attention's outputs are recorded"
    if "post_input" in options.get("patches", {}):
        return "another node adds tokens to the picture"
    if any(True for _ in attached_networks(options)):
        return "a ControlNet is a patch of this model"
    return None


def _why_not_wrappers(options: Mapping[str, Any]) -> str | None:
    for kind in WATCHED:
        for key, wrappers in options.get("wrappers", {}).get(kind, {}).items():
            if wrappers and not str(key).startswith(OURS):
                return f"another node wraps each model call ({key})"
    return None


def why_not_call(
    family: HostFamily,
    arguments: Mapping[str, Any],
    control: Mapping[str, Any] | None,
    tokens: int,
) -> str | None:
    """Return why one device must compute a model call, or None.

    Args:
        family: Of the model.
        arguments: Of the call.
        control: Residuals of ControlNets.
        tokens: Of the picture.
    """
    if torch.is_grad_enabled():
        return "gradients are computed"
    if arguments.get("attention_mask") is not None:
        return "the prompt comes with an attention mask"
    # What ranks hold already is not put together to be looked at.
    looked_at = {} if isinstance(control, SharedResiduals) else control or {}
    for residuals in looked_at.values():
        for one in residuals:
            if one is not None and (one.ndim != 3 or one.shape[1] != tokens):
                return f"a ControlNet gives {list(one.shape)} for {tokens} image tokens"
    return family.why_declined(arguments)
