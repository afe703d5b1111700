"""CLEAR checkpoints as files: what one holds, which window it is for, and how to write one.

The published files have no metadata: their names tell the radius. Ours say it themselves, under the
metadata keys ``clear.family``, ``clear.radius``, ``clear.pool_factor`` and ``clear.base``, and name
the blocks that have another radius under ``clear.radii`` ("double 0-3: 8, single 0: 32"). They hold
whole weights like the published ones, or changes of low rank, see `low_rank`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..atomic_files import written_whole
from ..families import FAMILIES
from ..families.block_text import format_radii
from ..families.names import PARAMETERS, HostSlice, ModelSize, NameTable
from ..weights import wrong_files
from .errors import CheckpointError, quoted, some
from .header import TensorInfo, read_header
from .metadata import (
    BASE,
    FAMILY,
    POOL_FACTOR,
    RADII,
    RADIUS,
    RANK,
    Radii,
    check_pool_factor,
    check_radius,
    check_rank,
    find_radii,
    find_radius,
)
from .model_size import measure
from .rows import rows_of

TABLES: tuple[NameTable, ...] = tuple(each.names for each in FAMILIES if each.names)
"""The model families whose checkpoints are read.

Their names overlap. A file that does not name its family is taken for the first family that has
published ones and whose blocks are all there.
"""

FLOATS = ("BF16", "F16", "F32", "F64", "F8_E4M3", "F8_E5M2")


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds; its tensors are still in the file.

    Attributes:
        path: The file.
        tensors: Shape and dtype of each tensor, by its name in the file.
        radius: Radius of the window in tokens.
        radii: Radius of the blocks that have another one.
        pool_factor: Edge of a pooled cell in tokens; 0 without a pooled branch.
        base: What the weights were distilled from, as the file says; None if it does not.
        table: The names of the model family that it is for.
        size: Width and number of blocks of the model that it is for.
        metadata: All of the file's metadata.
    """

    path: Path
    tensors: Mapping[str, TensorInfo]
    radius: int
    radii: Radii
    pool_factor: int
    base: str | None
    table: NameTable
    size: ModelSize
    metadata: Mapping[str, str]

    @property
    def family(self) -> str:
        """The model family that it is for, such as ``flux``."""
        return self.table.family

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor, by its name in the file."""
        return {name: info.shape for name, info in self.tensors.items()}

    @cached_property
    def rows(self) -> Mapping[str, HostSlice]:
        """The host's rows that the file becomes, by its names, pooling apart; see `rows_of`."""
        return rows_of(self.table, self.size, self.shapes)

    @property
    def has_metadata(self) -> bool:
        """Whether the file says itself what it is for; published files do not."""
        return RADIUS in self.metadata

    @property
    def rank(self) -> int:
        """Rank of the changes of weights that the file holds; 0 if it holds whole weights."""
        return self.size.rank


def read(path: str | os.PathLike[str], radius: int | None = None) -> Checkpoint:
    """Read what a checkpoint holds from its header, without loading tensors.

    Args:
        path: A .safetensors file.
        radius: Of the windows of all blocks in tokens, in place of what the file or its name says.

    Raises:
        CheckpointError: The file is not a usable CLEAR checkpoint, or its radius is not known.
    """
    path = Path(path)
    header = read_header(path)
    names = header.tensors.keys()
    mistake = _mistake(names, header.metadata)
    if mistake:
        raise CheckpointError(f"{path.name} {mistake}.")
    names_of = _table_for(names, path.name, header.metadata.get(FAMILY))
    for name, info in header.tensors.items():
        if info.dtype not in FLOATS:
            raise CheckpointError(
                f"{path.name}: {quoted(name)} must hold floating-point numbers "
                f"({', '.join(FLOATS)}), got {quoted(info.dtype)}."
            )
    shapes = {name: info.shape for name, info in header.tensors.items()}
    size = measure(names_of, shapes, path.name)
    check_pool_factor(size.pool_factor, header.metadata, path.name)
    check_rank(size.rank, header.metadata, path.name)
    return Checkpoint(
        path=path,
        tensors=header.tensors,
        radius=find_radius(radius, header.metadata, path.name),
        radii=find_radii(header.metadata, size.blocks, path.name) if radius is None else {},
        pool_factor=size.pool_factor,
        base=header.metadata.get(BASE),
        table=names_of,
        size=size,
        metadata=header.metadata,
    )


def load(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Load a checkpoint's tensors onto the CPU, in the file's dtype, and check them.

    Raises:
        CheckpointError: A tensor has NaN or infinite values, or the file changed since `read`.
    """
    try:
        tensors = load_file(checkpoint.path, device="cpu")
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"{checkpoint.path.name} cannot be loaded: {error}") from error
    check_loaded(checkpoint, tensors)
    return tensors


def check_loaded(checkpoint: Checkpoint, tensors: Mapping[str, Tensor]) -> None:
    """Check tensors that were loaded for a checkpoint: all there, of the same shapes, finite.

    Costs one pass over the values, a third of a second for 3.6 GB.

    Raises:
        CheckpointError: They are not.
    """
    if checkpoint.shapes != {name: tuple(tensor.shape) for name, tensor in tensors.items()}:
        raise CheckpointError(f"{checkpoint.path.name} was replaced while it was read: try again.")
    damaged = f"the file is damaged; {wrong_files.DOWNLOAD_AGAIN}"
    _check_finite(tensors, checkpoint.path.name, damaged)


def save(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    *,
    radius: int,
    radii: Radii | None = None,
    pool_factor: int | None = None,
    base: str | None = None,
    family: str | None = None,
) -> None:
    """Write a checkpoint with metadata; `read` understands whatever this writes.

    The file is there as a whole or not at all.

    Args:
        path: The file to write; one that is there is replaced.
        tensors: Every tensor of a checkpoint, by its published name; or the low-rank form.
        radius: Radius of the window in tokens.
        radii: Radius of the blocks that have another one.
        pool_factor: Edge of a pooled cell in tokens, 0 for no pooling; must agree with the pooling
            weights, from which None takes it.
        base: What the weights were distilled from.
        family: Key of the model family; None takes the first published one with these names.

    Raises:
        CheckpointError: The tensors are no whole checkpoint, or have NaN or infinite values; or
            radii are of blocks that are not there.
        OSError: The file cannot be written.
    """
    path = Path(path)
    names_of = _table_for(tensors.keys(), path.name, family)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    size = measure(names_of, shapes, path.name)
    metadata = {"format": "pt", FAMILY: names_of.family}
    metadata[RADIUS] = str(check_radius(radius, path.name))
    if radii:
        metadata[RADII] = format_radii(radii)
        find_radii(metadata, size.blocks, path.name)
    if size.rank:
        metadata[RANK] = str(size.rank)
    if base is not None:
        metadata[BASE] = base
    if pool_factor is not None:
        metadata[POOL_FACTOR] = str(pool_factor)
        check_pool_factor(size.pool_factor, metadata, path.name)
    metadata[POOL_FACTOR] = str(size.pool_factor)
    _check_finite(tensors, path.name, "nothing was written")
    with written_whole(path) as part:
        # The format wants each tensor by itself; slices of a fused tensor are not.
        save_file({name: _alone(tensor) for name, tensor in tensors.items()}, part, metadata)


def _mistake(names: Collection[str], metadata: Mapping[str, str]) -> str | None:
    """Return what a file is instead of a checkpoint; some families name layers as models do."""
    if RANK in metadata:  # without it, a low-rank checkpoint is a LoRA like any other
        return None
    table = next((each for each in TABLES if each.family == metadata.get(FAMILY)), None)
    others = names if table is None else [name for name in names if not _is_own(table, name)]
    return wrong_files.by_tensor_names(others)


def _is_own(table: NameTable, name: str) -> bool:
    place = table.place(name)
    return place is not None and (place.layer is None or place.parameter in PARAMETERS)


def _table_for(names: Collection[str], source: str, family: str | None = None) -> NameTable:
    """Return the names of a family: of the one that the metadata says, else by the tensors."""
    if not names:
        raise CheckpointError(f"{source} holds no tensors: {wrong_files.DOWNLOAD_AGAIN}.")
    if family is not None:
        return _table_of(family, source)
    for names_of in (table for table in TABLES if table.published):
        kinds = {place.kind for place in map(names_of.place, names) if place}
        if all(kind in kinds or kind.optional for kind in names_of.kinds):
            return names_of
    raise CheckpointError(
        f"{source} is not a CLEAR checkpoint: its tensors are named {some(names)}."
    )


def _table_of(family: str, source: str) -> NameTable:
    known = {table.family: table for table in TABLES}
    if family in known:
        return known[family]
    raise CheckpointError(
        f"{source} is made for a model of the family {quoted(family)}, "
        f"supported are {', '.join(known)}: update CLEAR Attention."
    )


def _check_finite(tensors: Mapping[str, Tensor], source: str, consequence: str) -> None:
    for name, tensor in tensors.items():
        # 8-bit floats have no arithmetic. aminmax hands NaN on, ten times faster than isfinite.
        values = tensor.float() if tensor.element_size() == 1 else tensor
        if not all(math.isfinite(float(extreme)) for extreme in torch.aminmax(values)):
            raise CheckpointError(
                f"{source}: {quoted(name)} holds NaN or infinite values, {consequence}."
            )


def _alone(tensor: Tensor) -> Tensor:
    """Return a contiguous tensor that owns its memory."""
    whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor.detach().contiguous() if whole else tensor.detach().clone()
