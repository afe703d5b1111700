"""Ranks as threads of one process: tensors change hands, and are copied between devices."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .transport import Aborted, Awaited, Sent

POLL_SECONDS = 0.05


@dataclass
class _Parcel:
    """Tensors on their way, and when the sender's stream has computed them."""

    tensors: list[Tensor]
    ready: torch.cuda.Event | None = None


@dataclass
class Board:
    """Where the ranks of one process leave tensors for each other.

    Args:
        poll: Called from time to time by those who wait; raises to stop them.
    """

    poll: Callable[[], None] = lambda: None
    error: BaseException | None = None
    _parcels: dict[tuple[int, int, int], _Parcel] = field(default_factory=dict)
    _finished: set[int] = field(default_factory=set)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def post(self, key: tuple[int, int, int], parcel: _Parcel) -> None:
        """Leave tensors.

        Args:
            key: Number of the exchange, sender, receiver.
            parcel: Of the tensors.

        Raises:
            Aborted: A rank has failed: nobody would take them off.
        """
        with self._changed:
            self._require_all()
            self._parcels[key] = parcel
            self._changed.notify_all()

    def take(self, key: tuple[int, int, int]) -> _Parcel:
        """Wait for tensors and take them off the board.

        Raises:
            Aborted: A rank has failed.
            RuntimeError: The sender has finished without sending them.
        """
        number, sender, receiver = key
        while True:
            with self._changed:
                if self.error is None and key not in self._parcels:
                    self._changed.wait(POLL_SECONDS)
                self._require_all()
                if key in self._parcels:
                    return self._parcels.pop(key)
                if sender in self._finished:
                    raise RuntimeError(
                        f"Rank {sender} must send as often as rank {receiver} waits, got none at "
                        f"exchange {number}: they do not compute the same blocks."
                    )
            self.poll()

    def abort(self, error: BaseException) -> None:
        """Make all ranks fail."""
        with self._changed:
            self.error = self.error or error
            self._parcels.clear()
            self._changed.notify_all()

    def finish(self, rank: int) -> None:
        """Remember that a rank sends no more."""
        with self._changed:
            self._finished.add(rank)
            self._changed.notify_all()

    def _require_all(self) -> None:
        if self.error is not None:
            raise Aborted("Another rank has failed.") from self.error

    @property
    def is_empty(self) -> bool:
        """Whether nothing lies on the board."""
        with self._changed:
            return not self._parcels


class LocalTransport:
    """One thread's transport. See `Transport`.

    Args:
        board: Of all ranks.
        rank: Of this thread.
        size: Number of ranks.
        device: Of this rank.
        through_host: Devices from which a direct copy to this one does not arrive whole.
        in_step: Whether each exchange waits until the device has computed what is sent, so that
            what is waited is known; costs time on a GPU.
    """

    def __init__(
        self,
        board: Board,
        rank: int,
        size: int,
        device: torch.device,
        through_host: frozenset[torch.device] = frozenset(),
        *,
        in_step: bool = False,
    ) -> None:
        self.rank = rank
        self.size = size
        self.device = device
        self.received = 0
        self.waited = 0.0
        self._board = board
        self._through_host = through_host
        self._in_step = in_step
        self._count = 0

    def exchange(self, sent: Sent, awaited: Awaited) -> _LocalPending:
        self._board.poll()
        self._count += 1
        if self._in_step:
            synchronize(self.device)
        for receiver, tensors in sent.items():
            ready = _recorded(self.device)
            self._board.post((self._count, self.rank, receiver), _Parcel(list(tensors), ready))
        return _LocalPending(self, self._count, awaited)

    def finish(self) -> None:
        """Make no further exchange: ranks that still expect one fail."""
        if self._in_step:
            synchronize(self.device)
        self._board.finish(self.rank)

    def abort(self, error: BaseException) -> None:
        self._board.abort(error)

    def take(self, number: int, sender: int) -> list[Tensor]:
        """Wait for what a rank has sent in an exchange, and bring it to this device."""
        begun = time.perf_counter()
        parcel = self._board.take((number, sender, self.rank))
        self.waited += time.perf_counter() - begun
        return [self._brought(tensor, parcel.ready) for tensor in parcel.tensors]

    def _brought(self, tensor: Tensor, ready: torch.cuda.Event | None) -> Tensor:
        if ready is not None:
            # A copy between devices runs on this thread's stream of the sender's device, a tensor
            # of the same device is read by it; the sender may free it meanwhile.
            stream = torch.cuda.current_stream(tensor.device)
            stream.wait_event(ready)
            tensor.record_stream(stream)
        if tensor.device in self._through_host:
            tensor = tensor.cpu()
        return tensor.to(self.device)


class _LocalPending:
    def __init__(self, transport: LocalTransport, number: int, awaited: Awaited) -> None:
        self._transport = transport
        self._number = number
        self._awaited = awaited

    def wait(self) -> dict[int, list[Tensor]]:
        brought: dict[int, list[Tensor]] = {}
        for sender, expected in self._awaited.items():
            brought[sender] = tensors = self._transport.take(self._number, sender)
            got = [(tuple(tensor.shape), tensor.dtype) for tensor in tensors]
            if got != [tuple(one) for one in expected]:
                raise AssertionError(f"rank {sender} must send {list(expected)}, got {got}")
            self._transport.received += sum(one.bytes for one in expected)
        return brought


def synchronize(device: torch.device) -> None:
    """Wait until a device has computed what this thread gave it."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def _recorded(device: torch.device) -> torch.cuda.Event | None:
    if device.type != "cuda":
        return None
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(device))
    return event


def corrupting_pairs(devices: list[torch.device]) -> set[tuple[torch.device, torch.device]]:
    """Return the pairs (from, to) of devices whose direct copies do not arrive whole.

    Some drivers claim that cards reach each other's memory and copy garbage
    (https://github.com/pytorch/pytorch/issues/119638).
    """
    found: set[tuple[torch.device, torch.device]] = set()
    for one in devices:
        pattern = torch.arange(2**20, dtype=torch.int32, device=one)
        expected = pattern.cpu()
        for other in devices:
            if other != one and not torch.equal(pattern.to(other).cpu(), expected):
                found.add((one, other))
    return found
