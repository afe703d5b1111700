"""Attention calls that several ranks share, and threads that compute them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from attention_cases import Case, cases
from hypothesis import strategies as st
from torch import Tensor

from clear_attention import Window, attention
from clear_attention.parallel.attention import Seat, attend, received_bytes
from clear_attention.parallel.local import Board, LocalTransport
from clear_attention.parallel.partition import Partition, share_out
from clear_attention.parallel.transport import Aborted

CPU = torch.device("cpu")

Plan = Mapping[int, Sequence[tuple[tuple[int, ...], torch.dtype]]]


class Recorded(LocalTransport):
    """A transport that remembers what it was asked to send and to receive, by exchange."""

    def __init__(self, board: Board, rank: int, size: int) -> None:
        super().__init__(board, rank, size, CPU)
        self.sent: list[Plan] = []
        self.awaited: list[Plan] = []

    def exchange(self, sent: Any, awaited: Any) -> Any:
        self.sent.append(
            {rank: [(tuple(x.shape), x.dtype) for x in each] for rank, each in sent.items()}
        )
        self.awaited.append({rank: [tuple(x) for x in each] for rank, each in awaited.items()})
        return super().exchange(sent, awaited)


@dataclass
class Runs:
    """What each rank did.

    Attributes:
        results: Of the ranks that finished.
        errors: Of the others.
        seconds: From the first error to the end of the last rank; 0 without one.
    """

    results: dict[int, Any]
    errors: dict[int, BaseException]
    seconds: float = 0.0


def run_ranks(transports: Sequence[LocalTransport], work: Callable[[LocalTransport], Any]) -> Runs:
    """Run a function in a thread for each rank, as the host's part does, and wait for all."""
    runs, failed = Runs({}, {}), []

    def of_rank(transport: LocalTransport) -> None:
        try:
            runs.results[transport.rank] = work(transport)
        except BaseException as error:
            failed.append(time.perf_counter())
            runs.errors[transport.rank] = error
            transport.abort(error)

    threads = [threading.Thread(target=of_rank, args=(one,), daemon=True) for one in transports]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=200)  # compiling takes a while on a busy machine
        assert not thread.is_alive(), "a rank waits for ever"
    runs.seconds = time.perf_counter() - failed[0] if failed else 0.0
    return runs


@dataclass(frozen=True)
class Shared:
    """A call that ranks share.

    Attributes:
        case: The whole call; its heads are those of the keys.
        partition: Who computes what.
        groups: Query heads per key head.
        full: Whether there is no window.
    """

    case: Case
    partition: Partition
    groups: int = 1
    full: bool = False

    @property
    def window(self) -> Window | None:
        """What the ranks are given."""
        return None if self.full else self.case.geometry[1]

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return q, k and v of all tokens."""
        q, k, v = self.case.tensors()
        return torch.cat([q.roll(shift, 2) for shift in range(self.groups)], 1), k, v

    def whole(self, backend: str = "reference", dtype: torch.dtype | None = None) -> Tensor:
        """Compute the call in one piece, in another dtype from the same inputs if asked."""
        window = Window(1000) if self.full else self.case.geometry[1]
        q, k, v = (x.to(dtype or x.dtype) for x in self.tensors())
        if backend == "reference":
            k, v = (x.repeat_interleave(self.groups, 1) for x in (k, v))
        out = attention(q, k, v, self.case.layout, window, **self.case.options, backend=backend)
        assert isinstance(out, Tensor)
        return out

    def transports(self, board: Board) -> list[Recorded]:
        """Return one for each rank."""
        size = self.partition.size
        return [Recorded(board, rank, size) for rank in range(size)]

    def of(self, tokens: Tensor, rank: int) -> Tensor:
        """Select a rank's tokens of ``[B, H, L, D]``."""
        return self.partition.of(tokens, self.case.layout, rank, 2)

    def attend(self, transport: LocalTransport, backend: str = "masked") -> Tensor:
        """Compute a rank's part."""
        own = (self.of(x, transport.rank) for x in self.tensors())
        seat = Seat(self.partition, transport)
        options = {**self.case.options, "backend": backend}
        return attend(*own, seat, self.case.layout, self.window, **options)

    def compute(self, backend: str = "masked") -> tuple[list[Tensor], list[Recorded]]:
        """Compute all parts, each in a thread."""
        board = Board()
        transports = self.transports(board)
        runs = run_ranks(transports, lambda one: self.attend(one, backend))
        for error in runs.errors.values():
            if not isinstance(error, Aborted):
                raise error
        assert board.is_empty
        return [runs.results[rank] for rank in range(self.partition.size)], transports

    def received_bytes(self, rank: int) -> int:
        """Return what the library says that a rank receives."""
        case = self.case
        return received_bytes(
            self.partition,
            rank,
            case.layout,
            self.window,
            pool_factor=case.factor,
            batch=case.batch,
            heads=case.heads * self.groups,
            key_heads=case.heads,
            head_dim=case.head_dim,
            itemsize=case.dtype.itemsize,
        )


@st.composite
def partitions(
    draw: st.DrawFn, height: int, width: int, multiple: int, extra: int, most: int = 4
) -> Partition:
    """Draw who computes what of a grid and of the extra tokens behind it."""
    units = -(-max(height, width) // multiple)
    size = draw(st.integers(min(2, units), min(most, units)))
    shares = draw(st.lists(st.integers(1, 4), min_size=size, max_size=size))
    start, stop = sorted(draw(st.tuples(st.integers(0, extra), st.integers(0, extra))))
    return share_out(height, width, shares, multiple=multiple, extra=range(start, stop))


@st.composite
def shared_calls(draw: st.DrawFn, **fixed: Any) -> Shared:
    """Draw a call; keyword arguments fix attributes of its case."""
    case = draw(cases(**{"strides": "contiguous", "dtype": torch.float64, **fixed}))
    layout = case.layout
    partition = draw(partitions(layout.height, layout.width, max(1, case.factor), layout.extra))
    full = not case.factor and draw(st.integers(0, 4)) == 0
    return Shared(case, partition, draw(st.integers(1, 2)), full)
