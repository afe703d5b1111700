"""CLEAR checkpoints as native patches of a model's weights."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping
from typing import Any

from comfy.model_patcher import ModelPatcher

from ...families.names import HostSlice
from ...weights.errors import CheckpointError, some
from ...weights.rows import cut
from .base import check_fits, plain_weights
from .loaded import ClearPatch, ClearWeights, Tensors, in_model
from .lora_hooks import restore_hooks

logger = logging.getLogger(__name__)


def apply_clear(
    model: ModelPatcher,
    clear: ClearWeights,
    strength: float = 1.0,
    reference: ModelPatcher | None = None,
) -> ModelPatcher:
    """Return a clone of a model whose weights are W + strength (W_clear - W_reference).

    The reference is the model itself unless another is given, and a checkpoint of low rank holds
    the difference. Earlier CLEAR weights on the model are replaced, whatever their form: the last
    wins. Strength 0 leaves no patch of ours, 1 without a reference is the file, others interpolate
    or extrapolate. LoRAs stay on top, whether they were added before or will be after.

    Args:
        model: A MODEL, left as it is.
        clear: The checkpoint to apply.
        strength: Share of the distilled weights.
        reference: The MODEL that the checkpoint was distilled from, without its LoRAs.

    Raises:
        CheckpointError: The checkpoint is made for another model or reference, the reference is
            quantised, or the strength is not finite.
    """
    if not math.isfinite(strength):
        raise CheckpointError(f"The strength must be a finite number, got {strength}.")
    check_fits(model, clear.checkpoint)
    taken_away = _reference_patches(model, clear, reference) if strength else {}
    model = model.clone()
    replaced = _remove_clear(model)
    patches = clear.patches if strength else {}
    name = clear.checkpoint.path.name
    if taken_away:
        # First: where W is W_reference, nothing remains, and the file's values come in exactly.
        _add(model, taken_away, name, -strength, 1.0)
    if replaced or patches:  # else it keeps the identity by which the host knows loaded weights
        adds = clear.checkpoint.rank or taken_away
        _add(model, patches, name, strength, 1.0 if adds else 1.0 - strength)
    for key in {rows.key for rows in patches}:
        model.patches[key] = _base_first(model.patches[key])
    if patches:
        restore_hooks(model, _lost)
    return model


def _lost(entries: Collection[Any]) -> list[tuple[Any, float]]:
    """Tell on which rows our entries replace what was there, and to which share."""
    ours = (entry for entry in entries if _is_ours(entry))
    return [(rows, 1.0 - kept) for _, _, kept, rows, *_ in ours if kept != 1.0]


def _add(
    model: ModelPatcher, patches: Mapping[HostSlice, Any], name: str, strength: float, kept: float
) -> None:
    """Add patches to a clone, all of them or none that anybody will see."""
    added = model.add_patches(patches, strength_patch=strength, strength_model=kept)
    if len(added) != len(patches):
        lacking = sorted({rows.key for rows in patches.keys() - set(added)})
        raise CheckpointError(
            f"{name}: the model took {len(added)} of {len(patches)} weights, "
            f"it lacks {some(lacking)}."
        )


def _reference_patches(
    model: ModelPatcher, clear: ClearWeights, reference: ModelPatcher | None
) -> dict[HostSlice, ClearPatch]:
    """Return the reference's weights as patches; none where there is nothing to take away."""
    if reference is None:
        return {}
    if clear.checkpoint.rank:
        logger.warning(
            "CLEAR: reference_model has no effect on %s, which holds changes already.",
            clear.checkpoint.path.name,
        )
        return {}
    if reference.is_clone(model) and not _is_merged(model):  # W_reference is W
        return {}
    check_fits(reference, clear.checkpoint, "reference_model")
    places = clear.checkpoint.rows.values()
    state = plain_weights(reference, places, "reference_model")
    owner = Tensors({})
    patches: dict[HostSlice, ClearPatch] = {}
    for rows in places:
        # Views of what is on a graphics card would hold its memory after the host has unloaded it.
        weight = cut(state, rows).to(reference.offload_device)
        patches[in_model(rows)] = ClearPatch.of((weight,), owner)
    return patches


def _remove_clear(model: ModelPatcher) -> bool:
    """Take CLEAR patches off a clone, in lists of its own; tell whether there were any."""
    ours = {key for key, entries in model.patches.items() if any(map(_is_ours, entries))}
    for key in ours:
        model.patches[key] = [entry for entry in model.patches[key] if not _is_ours(entry)]
        if not model.patches[key]:
            del model.patches[key]
    return bool(ours)


def _base_first(entries: list[Any]) -> list[Any]:
    """Put our entries behind the last one that makes a base of its own, in front of all additions.

    An entry that scales what was there (a merge of two models) or sets it makes a base, which CLEAR
    replaces. Additions (LoRAs) stay on top, and so commute with us.
    """
    ours = [entry for entry in entries if _is_ours(entry)]
    others = [entry for entry in entries if not _is_ours(entry)]
    base = max((index + 1 for index, entry in enumerate(others) if _makes_base(entry)), default=0)
    return [*others[:base], *ours, *others[base:]]


def _is_ours(entry: Any) -> bool:
    value = entry[1]
    return isinstance(getattr(value, "weights", value), ClearPatch)


def _is_merged(model: ModelPatcher) -> bool:
    """Tell whether a model's base is not its own weights alone."""
    return any(
        _makes_base(entry)
        for entries in model.patches.values()
        for entry in entries
        if not _is_ours(entry)
    )


def _makes_base(entry: Any) -> bool:
    _, value, strength_model, *_ = entry
    is_set = isinstance(value, tuple) and len(value) == 2 and value[0] == "set"
    return is_set or strength_model != 1.0
