"""The student: what training adds to the frozen model's attention projections.

Its projections are W + D with the teacher's W, shared, and a trained D: a whole matrix with a bias,
or a product of two thin ones (LoRA). D starts at zero, so that the student starts as the teacher
behind a window, and is float32, so that small updates are not lost in a bfloat16 W. W may be of any
dtype or quantised: only its layer's output is used.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..families.names import DOWN, UP, Block, ModelSize, NameTable

WEIGHT, BIAS = ".weight", ".bias"

Hook = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]


class FullDelta(nn.Module):
    """A change of a whole projection and, where it has one, its bias."""

    def __init__(self, rows: int, columns: int, *, biased: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(rows, columns))
        self.bias = nn.Parameter(torch.zeros(rows)) if biased else None

    def forward(self, x: Tensor) -> Tensor:
        """Return what the change adds to the projection's output, ``[..., rows]``."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.weight.to(x.dtype), bias)


class LowRankDelta(nn.Module):
    """A change of limited rank, B A; biases stay, for LoRA files have no place for them."""

    def __init__(self, rows: int, columns: int, rank: int, draw: torch.Generator) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(rank, columns, generator=draw) / columns**0.5)
        self.up = nn.Parameter(torch.zeros(rows, rank))

    def forward(self, x: Tensor) -> Tensor:
        """Return what the change adds to the projection's output, ``[..., rows]``."""
        return F.linear(F.linear(x, self.down.to(x.dtype)), self.up.to(x.dtype))


class Student(nn.Module):
    """All that is trained: a delta for every projection, and pooling weights."""

    def __init__(self, table: NameTable, size: ModelSize, rank: int = 0, seed: int = 0) -> None:
        """Make a student that equals its teacher.

        Args:
            table: Names of the projections.
            size: Width and blocks of the model; its pool factor says whether there is pooling.
            rank: Rank of the change; 0 for whole matrices.
            seed: Of the random factor of low-rank changes.
        """
        super().__init__()
        self.table, self.size, self.rank = table, size, rank
        self.silent = False
        draw = torch.Generator().manual_seed(seed)
        slices = table.slices(size)
        self.layers = {  # projection in the file -> layer of the host, first row, rows
            name.removesuffix(WEIGHT): (rows.key.removesuffix(WEIGHT), *rows.offset[1:])
            for name, rows in slices.items()
            if name.endswith(WEIGHT)
        }
        self.deltas = nn.ModuleDict(
            {
                _key(layer): LowRankDelta(*shape, rank, draw)
                if rank
                else FullDelta(*shape, biased=f"{layer}{BIAS}" in slices)
                for layer, shape in table.shapes(size).items()
            }
        )
        factor = size.pool_factor
        self.pooling = nn.ParameterDict(
            {
                f"{kind.name}-{index}": nn.Parameter(torch.full((factor, factor), factor**-2.0))
                for kind in table.kinds
                for index in range(size.blocks[kind.name] if factor else 0)
            }
        )

    @property
    def pooling_weights(self) -> dict[Block, Tensor]:
        """Pooling weights ``[factor, factor]`` by block."""
        blocks = (name.rsplit("-", 1) for name in self.pooling)
        return {(kind, int(index)): self.pooling[f"{kind}-{index}"] for kind, index in blocks}

    @contextmanager
    def attached(self, network: nn.Module) -> Generator[None]:
        """Let a network compute with the student's projections; afterwards it is as before."""
        by_host: dict[str, list[tuple[int, int, nn.Module]]] = {}
        for layer, (host, row, rows) in self.layers.items():
            by_host.setdefault(host, []).append((row, rows, self.deltas[_key(layer)]))
        handles = [
            network.get_submodule(host).register_forward_hook(self._adding(deltas))
            for host, deltas in by_host.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def silenced(self) -> Generator[None]:
        """Let the attached network compute as the teacher."""
        self.silent = True
        try:
            yield
        finally:
            self.silent = False

    def _adding(self, deltas: list[tuple[int, int, nn.Module]]) -> Hook:
        deltas = sorted(deltas, key=lambda entry: entry[0])

        def add(_: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
            if self.silent:
                return out
            parts: list[Tensor] = []
            end = 0
            for row, rows, delta in deltas:
                untouched, end = out[..., end:row], row + rows
                parts += [untouched, out[..., row:end] + delta(args[0])]
            return torch.cat([*parts, out[..., end:]], dim=-1)

        return add

    def published(self, base: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
        """Return the student's whole projections by their published names.

        Args:
            base: The teacher's tensors by the host's names, of a plain floating-point dtype.
            dtype: Of the result.
        """
        tensors: dict[str, Tensor] = {}
        for name, tensor in self.table.from_host(base, self.size).items():
            layer, parameter = name.rsplit(".", 1)
            delta = self.delta(layer)
            change = _whole(delta) if parameter == "weight" else getattr(delta, "bias", None)
            whole = tensor.detach().float().cpu()
            whole = whole if change is None else whole + change.detach().cpu()
            tensors[name] = whole.to(dtype)
        return tensors | self._pooling_tensors(dtype)

    def low_rank(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """Return the change as an ordinary LoRA with diffusers' names, pooling weights beside it.

        Raises:
            ValueError: The student has whole matrices.
        """
        if not self.rank:
            raise ValueError("A student of whole matrices has no low-rank form; train with a rank.")
        tensors: dict[str, Tensor] = {}
        prefix = self.table.lora_prefix
        for layer in self.layers:
            delta = self.delta(layer)
            assert isinstance(delta, LowRankDelta)
            tensors[f"{prefix}{layer}.{DOWN}"] = delta.down.detach().to("cpu", dtype)
            tensors[f"{prefix}{layer}.{UP}"] = delta.up.detach().to("cpu", dtype)
        return tensors | self._pooling_tensors(dtype)

    def delta(self, layer: str) -> FullDelta | LowRankDelta:
        """Return the change of a projection by its name in the file, without ``.weight``."""
        delta = self.deltas[_key(layer)]
        assert isinstance(delta, FullDelta | LowRankDelta)
        return delta

    def _pooling_tensors(self, dtype: torch.dtype) -> dict[str, Tensor]:
        weights = {block: w.detach().to("cpu", dtype) for block, w in self.pooling_weights.items()}
        return self.table.pooling_tensors(weights) if weights else {}


def _key(layer: str) -> str:
    return layer.replace(".", "/")  # a module's name must not contain dots


def _whole(delta: FullDelta | LowRankDelta) -> Tensor:
    return delta.up @ delta.down if isinstance(delta, LowRankDelta) else delta.weight
