"""Rows of the host's tensors that a checkpoint's tensors become, as whole weights or changes."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ..families.names import BIAS_CHANGE, HOST_PREFIX, HostSlice, ModelSize, NameTable

WEIGHT = ".weight"


def rows_of(
    table: NameTable, size: ModelSize, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, HostSlice]:
    """Map all that a checkpoint holds, pooling apart, to the host's rows that it becomes.

    Args:
        table: Names of the model family.
        size: Of the model; its rank says whether the file holds whole weights or changes.
        shapes: Shape of every tensor in the file.

    Returns:
        Rows by the names in the file; a change B A, of two tensors, has the name of its layer.
    """
    if not size.rank:
        return table.slices(size)
    return {**change_rows(table, size), **bias_rows(shapes)}


def change_rows(table: NameTable, size: ModelSize) -> dict[str, HostSlice]:
    """Map every change to the rows of the host's weight that it changes.

    Changes are named as a LoRA's layers are: ``transformer.transformer_blocks.0.attn.to_q``.
    """
    return {
        table.lora_prefix + name.removesuffix(WEIGHT): rows
        for name, rows in table.slices(size).items()
        if name.endswith(WEIGHT)
    }


def bias_rows(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, HostSlice]:
    """Map the changes of biases among a checkpoint's tensors to the host's biases.

    Args:
        shapes: Shape of every tensor in the checkpoint.
    """
    return {
        name: HostSlice(
            f"{name.removeprefix(HOST_PREFIX).removesuffix(BIAS_CHANGE)}bias", (0, 0, shape[0])
        )
        for name, shape in shapes.items()
        if name.endswith(f".{BIAS_CHANGE}")
    }


def cut(state: Mapping[str, Tensor], rows: HostSlice) -> Tensor:
    """Return the rows of one of the host's tensors, as a view."""
    return state[rows.key].narrow(*rows.offset)
