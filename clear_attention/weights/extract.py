"""The difference of two models' attention as a low-rank checkpoint: W_clear - W_base ~ B A.

The truncated singular value decomposition is the nearest product of a given rank. torch finds it by
subspace iteration, whose cost grows with the rank instead of with the width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from ..families.names import BIAS_CHANGE, DOWN, HOST_PREFIX, UP, HostSlice, NameTable
from .errors import CheckpointError
from .rows import WEIGHT, cut

OVERSAMPLING = 16  # columns beyond the rank that the iteration carries along
ROUNDS = 4  # within 1 % of the least error even where singular values hardly fall

Progress = Callable[[int, int], None]
"""Told after each layer: how many are done, of how many."""


@dataclass(frozen=True)
class LayerError:
    """What is lost of one projection.

    Attributes:
        kind: Kind of block and projection, such as ``single to_q``.
        change: Sum of the squares of W_clear - W_base.
        lost: Sum of the squares of what B A, as it is stored, does not say of it.
    """

    kind: str
    change: float
    lost: float


@dataclass(frozen=True, eq=False)
class Extracted:
    """A low-rank checkpoint's tensors, and what they lack.

    Attributes:
        tensors: By their names in the file, for `low_rank.save`.
        rank: Rank of the changes.
        layers: What is lost of each projection.
    """

    tensors: dict[str, Tensor]
    rank: int
    layers: tuple[LayerError, ...]

    @property
    def error(self) -> float:
        """Relative error of all weights together, in the Frobenius norm."""
        return relative(self.layers)

    @property
    def by_kind(self) -> dict[str, float]:
        """Relative error of each kind of projection."""
        kinds = dict.fromkeys(layer.kind for layer in self.layers)
        return {
            kind: relative([layer for layer in self.layers if layer.kind == kind]) for kind in kinds
        }

    @property
    def size_bytes(self) -> int:
        """Size of the tensors in bytes."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())


def relative(layers: Sequence[LayerError]) -> float:
    """Return the relative error of projections together; 0 where nothing changes."""
    change = sum(layer.change for layer in layers)
    return (sum(layer.lost for layer in layers) / change) ** 0.5 if change else 0.0


def extract(
    table: NameTable,
    rows: Mapping[str, HostSlice],
    base: Mapping[str, Tensor],
    clear: Mapping[str, Tensor],
    *,
    rank: int,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    progress: Progress = lambda done, of: None,
) -> Extracted:
    """Decompose the difference between a checkpoint of whole weights and its base.

    Biases lose nothing but the rounding to ``dtype``; pooling weights are passed on as they are.

    Args:
        table: Names of the model family.
        rows: The host's rows that the checkpoint's tensors become, `Checkpoint.rows`.
        base: The base's tensors by the host's names, of a floating-point dtype, any device.
        clear: The checkpoint's tensors by their published names.
        rank: Rank of the changes, from 1 to the width of the narrowest projection.
        dtype: Of the file's changes.
        device: Where to compute, in float32.
        progress: Told after each layer.

    Raises:
        CheckpointError: The rank is too large or too small, or the base is not finite.
    """
    _check_rank(rank, rows)
    whole = {name: cut(base, place) for name, place in rows.items()}
    names = [name for name in whole if name.endswith(WEIGHT)]
    tensors: dict[str, Tensor] = {}
    layers: list[LayerError] = []
    for done, name in enumerate(names, 1):
        change = difference(clear[name], whole[name], device)
        square = _square(change)
        if not math.isfinite(square):
            raise CheckpointError(
                f"The base must have finite weights, got NaN or infinite ones for {name}."
            )
        up, down = (factor.to(dtype).contiguous() for factor in factors(change, rank))
        layer = table.lora_prefix + name.removesuffix(WEIGHT)
        tensors[f"{layer}.{DOWN}"], tensors[f"{layer}.{UP}"] = down.cpu(), up.cpu()
        lost = _square(change - up.float() @ down.float())
        layers.append(LayerError(_kind(table, name), square, lost))
        progress(done, len(names))
    biases = bias_changes(rows, base, clear, dtype)
    _check_finite(biases)
    tensors |= biases
    pooling = {name: t for name, t in clear.items() if name not in whole}
    return Extracted(tensors | pooling, rank, tuple(layers))


def _check_rank(rank: int, rows: Mapping[str, HostSlice]) -> None:
    counts = {offset[2] for _, offset in rows.values()}
    most = min(counts)
    what = "the model's width" if len(counts) == 1 else "its keys' width"
    if not 1 <= rank <= most:
        raise CheckpointError(f"The rank must be from 1 to {what} of {most}, got {rank}.")


def difference(clear: Tensor, base: Tensor, device: torch.device | str) -> Tensor:
    """Return W_clear - W_base in float32 on a device."""
    return clear.to(device, torch.float32) - base.to(device, torch.float32)


def factors(change: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return the nearest B A of a rank: ``[m, rank]`` and ``[rank, n]``, of equal norms.

    Args:
        change: ``[m, n]`` float32 or float64, on the CPU or a CUDA device.
        rank: At most the smaller of m and n.
    """
    width = min(rank + OVERSAMPLING, *change.shape)
    with _repeatable(change.device):
        left, values, right = torch.svd_lowrank(change, q=width, niter=ROUNDS)
    scale = values[:rank].sqrt()
    return left[:, :rank] * scale, scale[:, None] * right[:, :rank].mT


@contextmanager
def _repeatable(device: torch.device) -> Generator[None]:
    """Draw the same random numbers each time, and leave the process's own as they were.

    torch's function takes no generator: it starts from the default one of the device, which other
    threads must not use meanwhile.
    """
    default = torch.default_generator
    if device.type == "cuda":
        default = torch.cuda.default_generators[device.index]
    before = default.get_state()
    default.manual_seed(0)
    try:
        yield
    finally:
        default.set_state(before)


def bias_changes(
    rows: Mapping[str, HostSlice],
    base: Mapping[str, Tensor],
    clear: Mapping[str, Tensor],
    dtype: torch.dtype,
) -> dict[str, Tensor]:
    """Return the changes of biases by the host's layers, whose other rows stay as they are."""
    changes: dict[str, Tensor] = {}
    for name, place in rows.items():
        if name.endswith(WEIGHT):
            continue
        layer = f"{HOST_PREFIX}{place.key.removesuffix('bias')}{BIAS_CHANGE}"
        fused = changes.setdefault(layer, torch.zeros(base[place.key].shape, dtype=dtype))
        fused.narrow(*place.offset).copy_(difference(clear[name], cut(base, place), "cpu"))
    return changes


def _check_finite(biases: Mapping[str, Tensor]) -> None:
    for name, change in biases.items():
        if not change.isfinite().all():
            raise CheckpointError(
                f"The base must have finite biases, got NaN or infinite ones in {name}."
            )


def _square(matrix: Tensor) -> float:
    return float(torch.linalg.vector_norm(matrix)) ** 2


def _kind(table: NameTable, name: str) -> str:
    place = table.place(name)
    assert place is not None and place.layer is not None
    return f"{place.kind.name} {place.layer.role}"
