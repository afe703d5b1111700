"""ControlNets on several devices: who runs them, and residuals that stay where they were made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from torch import Tensor, nn

from ....parallel.attention import Seat
from ....parallel.partition import Partition
from ...families import HostFamily
from ..geometry import Geometry

NETS_KEY = "clear_attention_nets"
"""Where the `SharedNets` of a run lies in transformer_options, if several devices share it."""

Residuals = Mapping[str, Sequence[Tensor | None]]
"""Of a model's blocks, as the host names them."""

Local = Callable[[nn.Module, Seat], AbstractContextManager[None]]
"""Makes the attention of a rank's copy of a network local."""


class SharedNets(Protocol):
    """Runs a ControlNet's network on all ranks of a run."""

    def partition_of(
        self,
        network: nn.Module,
        family: HostFamily,
        geometry: Geometry,
        options: Mapping[str, Any],
    ) -> Partition | None:
        """Return who computes what of a call, or None where one device must compute it."""
        ...

    def run(
        self,
        network: nn.Module,
        family: HostFamily,
        geometry: Geometry,
        partition: Partition,
        local: Local,
        arguments: Mapping[str, Any],
    ) -> list[dict[str, Any]]:
        """Return what each rank's copy of a network returns for the rank's tokens."""
        ...


class SharedResiduals(Mapping[str, Sequence[Tensor | None]]):
    """Residuals of which each rank holds its own rows; whoever reads them gets them whole.

    Args:
        partition: Of the grid.
        parts: Of each rank, on its device: a tensor may occur for several blocks.
    """

    def __init__(self, partition: Partition, parts: Sequence[Residuals]) -> None:
        self.partition = partition
        self.parts = parts
        self._joined: dict[tuple[int, ...], Tensor] = {}

    def __getitem__(self, name: str) -> Sequence[Tensor | None]:
        return [
            self._whole(rows) for rows in zip(*(part[name] for part in self.parts), strict=True)
        ]

    def __iter__(self) -> Iterator[str]:
        return iter(self.parts[0])

    def __len__(self) -> int:
        return len(self.parts[0])

    def of(self, seat: Seat) -> Residuals:
        """Return the residuals of a rank: its own where it computes the rows that it did then."""
        if seat.partition.cuts == self.partition.cuts:
            return self.parts[seat.rank]
        return rows_of(self, seat)

    def _whole(self, rows: tuple[Tensor | None, ...]) -> Tensor | None:
        if rows[0] is None:
            return None
        key = tuple(map(id, rows))
        if key not in self._joined:
            bands = [row.to(rows[0].device) for row in rows if row is not None]
            self._joined[key] = self.partition.join(bands)
        return self._joined[key]


def rows_of(residuals: Residuals, seat: Seat) -> Residuals:
    """Select a rank's rows of residuals, ``[B, image tokens, C]`` each.

    Args:
        residuals: Of the whole picture; a tensor that occurs often is cut once.
        seat: Of the rank.
    """
    cut: dict[int, Tensor] = {}

    def own(residual: Tensor | None) -> Tensor | None:
        if residual is None:
            return None
        if id(residual) not in cut:
            cut[id(residual)] = seat.partition.of_grid(residual, seat.rank)
        return cut[id(residual)]

    return {name: [own(one) for one in each] for name, each in residuals.items()}
