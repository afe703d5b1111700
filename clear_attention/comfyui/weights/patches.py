"""CLEAR checkpoints as native patches of a model's weights."""

from __future__ import annotations

import logging
import math
import os
import weakref
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import comfy.lora
import comfy.utils
import folder_paths
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...families.names import HOST_PREFIX as PREFIX
from ...families.names import Block, HostSlice
from ...weights import checkpoint, low_rank
from ...weights.checkpoint import Checkpoint
from ...weights.errors import CheckpointError, some
from .base import check_fits, plain_weights
from .lora_hooks import restore_hooks

logger = logging.getLogger(__name__)

FOLDER = "clear"
SUFFIX = ".safetensors"


def register_model_folder() -> None:
    """Make ``models/clear`` known to the host, after the user's own paths; safe to call again.

    ``models/loras/clear`` too, where extracted LoRAs are: LoRA loaders list them as ``clear/...``.
    """
    folder_paths.add_model_folder_path(FOLDER, os.path.join(folder_paths.models_dir, FOLDER))
    for folder in folder_paths.get_folder_paths("loras"):
        folder_paths.add_model_folder_path(FOLDER, os.path.join(folder, FOLDER))
    paths, _ = folder_paths.folder_names_and_paths[FOLDER]
    # A folder that only extra_model_paths.yaml names has no suffixes, which lists every file.
    folder_paths.folder_names_and_paths[FOLDER] = (paths, {SUFFIX})


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
        return self._changes() if self.checkpoint.rank else self._whole_weights()

    def _whole_weights(self) -> dict[HostSlice, ClearPatch]:
        table, size = self.checkpoint.table, self.checkpoint.size
        return {
            _in_model(rows): ClearPatch.of((tensor,), self.tensors)
            for rows, tensor in table.to_host(self.tensors.by_name, size).items()
        }

    def _changes(self) -> dict[HostSlice, Any]:
        """Return the host's own LoRA adapters: newer hosts make others of their class from them."""
        slices = low_rank.slices(self.checkpoint.table, self.checkpoint.size)
        rows = {name: _in_model(rows) for name, rows in slices.items()}
        # Pooling weights are not the host's business, which it would log.
        adapters = comfy.lora.load_lora(self.tensors.by_name, rows, log_missing=False)
        for adapter in adapters.values():
            adapter.weights = ClearPatch.of(adapter.weights, self.tensors)
        biases = {
            _in_model(rows): ClearPatch.of((self.tensors.by_name[name],), self.tensors)
            for name, rows in low_rank.bias_slices(self.checkpoint.shapes).items()
        }
        return {**adapters, **biases}


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


def _in_model(rows: HostSlice) -> HostSlice:
    """Name rows of the diffusion model's as rows of the MODEL's."""
    return HostSlice(PREFIX + rows.key, rows.offset)


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
    path = folder_paths.get_full_path(FOLDER, name)
    if path is None:
        raise CheckpointError(_not_found(name))
    if not path.lower().endswith(SUFFIX):
        raise CheckpointError(f"A CLEAR checkpoint must be a {SUFFIX} file, got {name}.")
    found = checkpoint.read(path, radius)
    return ClearWeights(found, _tensors(found))


def _not_found(name: str) -> str:
    there = folder_paths.get_filename_list(FOLDER)
    return f"{name} is not in {' or '.join(folder_paths.get_folder_paths(FOLDER))}. " + (
        f"There: {some(there, 10)}." if there else "Put CLEAR checkpoints there."
    )


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
    state = plain_weights(reference, clear.checkpoint, "reference_model")
    owner = Tensors({})
    patches: dict[HostSlice, ClearPatch] = {}
    for rows in clear.checkpoint.table.slices(clear.checkpoint.size).values():
        weight = state[rows.key].narrow(*rows.offset)
        # Views of what is on a graphics card would hold its memory after the host has unloaded it.
        patches[_in_model(rows)] = ClearPatch.of((weight.to(reference.offload_device),), owner)
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
