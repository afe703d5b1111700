"""Read a model's unpatched attention weights, and check that a checkpoint fits them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import comfy.utils
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn
from torch.nn import Parameter

from ...families.names import BIAS_CHANGE, HostSlice, ModelSize, NameTable
from ...families.names import HOST_PREFIX as PREFIX
from ...families.projections import BlockKind, Widths
from ...weights import checkpoint
from ...weights.checkpoint import Checkpoint
from ...weights.errors import CheckpointError, some
from ..families import family_of, plain_module, require_family


def plain_weights(
    model: ModelPatcher, places: Iterable[HostSlice], title: str, otherwise: str = ""
) -> dict[str, Tensor]:
    """Return a model's own weights that a checkpoint is about, without patches, not copied.

    Args:
        model: A MODEL, loaded or not.
        places: The rows that the checkpoint's tensors become, `Checkpoint.rows`.
        title: What to call the model in an error.
        otherwise: What else the user can do about it, the end of the error's sentence.

    Returns:
        The host's fused tensors by their names in the diffusion model.

    Raises:
        CheckpointError: They are of less than 16 bits, or quantised.
    """
    tensors: dict[str, Tensor] = {}
    for name in dict.fromkeys(rows.key for rows in places):
        tensor = unpatched(model, PREFIX + name)
        _check_plain(tensor, name, title, otherwise)
        tensors[name] = tensor.detach()
    return tensors


def unpatched(model: ModelPatcher, key: str, there: Tensor | None = None) -> Tensor:
    """Return one of a model's own weights, without the patches of a loaded model.

    Args:
        model: A MODEL, loaded or not.
        key: Name of the weight in the model.
        there: What the model has under this name; None looks it up.
    """
    # The host's get_key_patches reads all keys; quantised models have ones that are no attributes.
    if key in model.backup:
        return model.backup[key].weight
    if key in model.hook_backup:  # without patches, for those would have made a backup first
        return model.hook_backup[key][0]
    return comfy.utils.get_attr(model.model, key) if there is None else there


def _check_plain(tensor: Tensor, name: str, title: str, otherwise: str) -> None:
    # Rounded to 8 bits, weights are off by as much as distilling changes them; packed ones have
    # shapes and scales of their own.
    kind = type(tensor)
    plain = kind in (Tensor, Parameter)
    if not plain or not tensor.dtype.is_floating_point or tensor.element_size() < 2:
        # Quantised tensors tell the dtype that they are computed in.
        got = str(tensor.dtype).removeprefix("torch.") if plain else kind.__name__
        raise CheckpointError(
            f"{title} must hold its weights in bf16, fp16 or float32, got {got} in {name}: load "
            f"its 16-bit file, with weight_dtype default{otherwise}."
        )


def check_fits(model: ModelPatcher, found: Checkpoint, title: str = "the model") -> None:
    """Check by names and shapes, without reading weights, that a checkpoint belongs to a model.

    Raises:
        CheckpointError: The model is of another family, or has other blocks or another width.
    """
    name, size = found.path.name, found.size
    plain = plain_module(model.model.diffusion_model)
    state = model.model_state_dict(PREFIX)
    names = {key.removeprefix(PREFIX) for key in state}
    blocks = {kind.name: _count_blocks(names, kind) for kind in found.table.kinds}
    family = family_of(plain)
    has_all = all(blocks[kind.name] or kind.optional for kind in found.table.kinds)
    if family is None or family.data.names != found.table or not has_all:
        kind = type(plain).__name__ if family is None else family.title
        other = family is not None and family.data.names not in (None, found.table)
        choose = f"Choose a CLEAR file for {kind}, or connect" if other else "Connect"
        raise CheckpointError(
            f"{name} is made for {found.table.title}, {title} is {kind}. "
            f"{choose} a model of {found.table.title}."
        )
    own = _size(found.table, plain, blocks)
    left_out = {kind: 0 for kind in blocks if not size.blocks[kind]}
    fits = (own.hidden, own.own_widths) == (size.hidden, size.own_widths)
    if not fits or {**blocks, **left_out} != size.blocks:
        raise CheckpointError(f"{name} is made for a model of {size}, {title} has {own}.")
    lacking = {rows.key for rows in found.rows.values()} - names
    if lacking:
        raise CheckpointError(
            f"{name} is made for {found.table.title}, {title} ({type(plain).__name__}) "
            f"lacks {some(sorted(lacking))}."
        )
    biases = (rows for of, rows in found.rows.items() if of.endswith(f".{BIAS_CHANGE}"))
    for key, (_, _, rows) in biases:
        there = state[PREFIX + key].shape[0]
        if rows != there:
            raise CheckpointError(
                f"{name} is made for a model with {rows} rows in {key}, {title} has {there}."
            )


def _count_blocks(names: Collection[str], kind: BlockKind) -> int:
    before, _, behind = f"{kind.layers[0].host}.weight".partition("{}")
    return sum(name.startswith(before) and name.endswith(behind) for name in names)


def _size(table: NameTable, network: nn.Module, blocks: Mapping[str, int]) -> ModelSize:
    """Return a model's size by its layers; tensors may have shapes of packed, quantised ones."""
    hidden = _layer(network, table.kinds[0], 0).in_features
    widths = {kind.name: _widths(network, kind) for kind in table.kinds if kind.own_widths}
    own = {name: widths for name, widths in widths.items() if widths != Widths.square(hidden)}
    return ModelSize(hidden, blocks, 0, own_widths=own)


def _widths(network: nn.Module, kind: BlockKind) -> Widths:
    queries, keys = _layer(network, kind, 0), _layer(network, kind, 1)
    query, key = queries.out_features, keys.out_features
    if queries is keys:
        query = _layer(network, kind, 3).in_features
        key = (queries.out_features - query) // 2
    return Widths(queries.in_features, query, key)


def _layer(network: nn.Module, kind: BlockKind, number: int) -> Any:
    return network.get_submodule(kind.layers[number].host.format(0))


def table_and_size(model: ModelPatcher) -> tuple[NameTable, ModelSize]:
    """Return a model's names of its attention projections, its width and its number of blocks.

    Raises:
        ValueError: CLEAR does not know the model's architecture.
        CheckpointError: Its family has no such names, or the model does not have them.
    """
    names = {key.removeprefix(PREFIX) for key in model.model_state_dict(PREFIX)}
    family, plain = require_family(model), plain_module(model.model.diffusion_model)
    table = family.data.names
    if table is not None:
        blocks = {kind.name: _count_blocks(names, kind) for kind in table.kinds}
        if all(blocks[kind.name] or kind.optional for kind in table.kinds):
            return table, _size(table, plain, blocks)
    kind = family.title if table is None else type(plain).__name__
    known = ", ".join(table.title for table in checkpoint.TABLES)
    raise CheckpointError(f"CLEAR weights are known for {known}, the model is {kind}.")
