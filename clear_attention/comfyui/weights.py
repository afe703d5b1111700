"""CLEAR checkpoints as native patches of a model's weights."""

from __future__ import annotations

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

from ..weights import checkpoint, low_rank
from ..weights.checkpoint import Checkpoint
from ..weights.errors import CheckpointError, some
from ..weights.table import Block, BlockKind, HostSlice, NameTable, Size

FOLDER = "clear"
SUFFIX = ".safetensors"
PREFIX = "diffusion_model."


def register_model_folder() -> None:
    """Make ``models/clear`` known to the host, after the user's own paths; safe to call again."""
    folder = os.path.join(folder_paths.models_dir, FOLDER)
    folder_paths.add_model_folder_path(FOLDER, folder)
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


def apply_clear(model: ModelPatcher, clear: ClearWeights, strength: float = 1.0) -> ModelPatcher:
    """Return a clone of a model whose weights are W_base + strength (W_clear - W_base).

    A checkpoint of low rank holds the difference. Earlier CLEAR weights on the model are replaced,
    whatever their form: the last wins. Strength 0 leaves no patch of ours, 1 is the file, others
    interpolate or extrapolate. LoRAs stay on top, whether they were added before or will be after.

    Args:
        model: A MODEL, left as it is.
        clear: The checkpoint to apply.
        strength: Share of the distilled weights.

    Raises:
        CheckpointError: The checkpoint is made for another model, or the strength is not finite.
    """
    if not math.isfinite(strength):
        raise CheckpointError(f"The strength must be a finite number, got {strength}.")
    check_fits(model, clear.checkpoint)
    model = model.clone()
    replaced = _remove_clear(model)
    patches = clear.patches if strength else {}
    if replaced or patches:  # else it keeps the identity by which the host knows loaded weights
        kept = 1.0 if clear.checkpoint.rank else 1.0 - strength
        added = model.add_patches(patches, strength_patch=strength, strength_model=kept)
        if len(added) != len(patches):
            lacking = sorted({rows.key for rows in patches.keys() - set(added)})
            raise CheckpointError(
                f"{clear.checkpoint.path.name}: the model took {len(added)} of {len(patches)} "
                f"weights, it lacks {some(lacking)}."
            )
    for key in {rows.key for rows in patches}:
        model.patches[key] = _base_first(model.patches[key])
    return model


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


def _makes_base(entry: Any) -> bool:
    _, value, strength_model, *_ = entry
    is_set = isinstance(value, tuple) and len(value) == 2 and value[0] == "set"
    return is_set or strength_model != 1.0


def check_fits(model: ModelPatcher, found: Checkpoint) -> None:
    """Check by names and shapes, without reading weights, that a checkpoint belongs to a model.

    Raises:
        CheckpointError: The model is of another family, or has other blocks or another width.
    """
    name, size = found.path.name, found.size
    plain = model.model.diffusion_model
    names = {key.removeprefix(PREFIX) for key in model.model_state_dict(PREFIX)}
    blocks = {kind.name: _count_blocks(names, kind) for kind in found.table.kinds}
    # The module knows its width; the tensors' shapes may be those of packed, quantised ones.
    width = getattr(plain, "hidden_size", None)
    if width is None or not all(blocks[kind.name] or kind.optional for kind in found.table.kinds):
        raise CheckpointError(
            f"{name} is made for {found.table.title}, the model is {type(plain).__name__}."
        )
    left_out = {kind: 0 for kind in blocks if not size.blocks[kind]}
    if (width, {**blocks, **left_out}) != (size.hidden, size.blocks):
        model_size = Size(width, blocks, 0)
        raise CheckpointError(f"{name} is made for a model of {size}, this one has {model_size}.")
    slices = low_rank.slices if found.rank else NameTable.slices
    lacking = {rows.key for rows in slices(found.table, size).values()} - names
    if lacking:
        raise CheckpointError(
            f"{name} is made for {found.table.title}, the model ({type(plain).__name__}) "
            f"lacks {some(sorted(lacking))}."
        )


def _count_blocks(names: Collection[str], kind: BlockKind) -> int:
    before, _, behind = f"{kind.layers[0].host}.weight".partition("{}")
    return sum(name.startswith(before) and name.endswith(behind) for name in names)


def table_and_size(model: ModelPatcher) -> tuple[NameTable, Size]:
    """Return a model's names of its attention projections, its width and its number of blocks.

    Raises:
        CheckpointError: No table has its names.
    """
    names = {key.removeprefix(PREFIX) for key in model.model_state_dict(PREFIX)}
    for table in checkpoint.TABLES:
        blocks = {kind.name: _count_blocks(names, kind) for kind in table.kinds}
        if all(blocks[kind.name] or kind.optional for kind in table.kinds):
            return table, Size(model.model.diffusion_model.hidden_size, blocks, 0)
    known = " and ".join(table.title for table in checkpoint.TABLES)
    raise CheckpointError(
        f"CLEAR weights are known for {known}, the model is "
        f"{type(model.model.diffusion_model).__name__}."
    )
