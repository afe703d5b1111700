"""Ranks as processes, on one machine or several: `torch.distributed` carries the tensors."""

from __future__ import annotations

import contextlib
import datetime
import functools
import time
from collections.abc import Callable, Generator

import torch
import torch.distributed as dist
from torch import Tensor

from .transport import Aborted, Awaited, Sent

PATIENCE = datetime.timedelta(hours=6)
"""How long a rank waits for a slower one: who dies is known by the loss of its connections."""

AT_ONCE = datetime.timedelta(milliseconds=1)
UNUSED = 1
"""Tag that nothing is sent under."""


class GroupTransport:
    """One process's transport. See `Transport`.

    Args:
        group: Of all ranks: gloo, or NCCL between CUDA devices. It need not be in torch's register
            of groups. After an error it is of no use.
        device: Of this rank; gloo carries CUDA tensors through the host's memory.
    """

    def __init__(self, group: dist.ProcessGroup, device: torch.device) -> None:
        self.rank = group.rank()
        self.size = group.size()
        self.received = 0
        self.waited = 0.0
        self.error: BaseException | None = None
        self.gloo = group.name() == "gloo"
        self._group = group
        self._device = device
        self._carrier = torch.device("cpu") if self.gloo else device

    def exchange(self, sent: Sent, awaited: Awaited) -> _GroupPending:
        self.check()
        incoming = {
            sender: [torch.empty(one.shape, dtype=one.dtype, device=self._carrier) for one in each]
            for sender, each in awaited.items()
        }
        outgoing = {
            receiver: [tensor.to(self._carrier).contiguous() for tensor in tensors]
            for receiver, tensors in sent.items()
        }
        with self.lost_is_aborted():
            work = self._begin(outgoing, incoming)
        self.received += sum(one.bytes for each in awaited.values() for one in each)
        return _GroupPending(self, self._device, work, incoming, outgoing)

    def _begin(
        self, outgoing: dict[int, list[Tensor]], incoming: dict[int, list[Tensor]]
    ) -> list[dist.Work]:
        send, receive = self._group.send, self._group.recv
        operations: list[Callable[[], dist.Work]] = [
            *(functools.partial(send, [x], to, 0) for to, each in outgoing.items() for x in each),
            *(
                functools.partial(receive, [x], by, 0)
                for by, each in incoming.items()
                for x in each
            ),
        ]
        if self.gloo or not operations:
            return [begin() for begin in operations]
        # As one: of two NCCL kernels that both send, neither ends before the other receives.
        self._group._start_coalescing(self._device)
        for begin in operations:
            begin()
        return [self._group._end_coalescing(self._device)]

    def abort(self, error: BaseException) -> None:
        # The other processes see it by the loss of their connections.
        self.error = self.error or error
        if not self.gloo:
            self._group.abort()
            return
        # gloo closes its connections when a wait takes too long, and at no request.
        for other in range(self.size):
            if other != self.rank:
                with contextlib.suppress(RuntimeError):
                    self._group.recv([torch.empty(1)], other, UNUSED).wait(AT_ONCE)

    def check(self) -> None:
        """Raise Aborted if this rank or another has failed."""
        if self.error is not None:
            raise Aborted("The run was stopped.") from self.error

    @contextlib.contextmanager
    def lost_is_aborted(self) -> Generator[None]:
        """Turn the loss of a connection into Aborted."""
        try:
            yield
        except RuntimeError as error:
            self.check()
            raise Aborted("The connection to another rank is lost.") from error


class _GroupPending:
    def __init__(
        self,
        transport: GroupTransport,
        device: torch.device,
        work: list[dist.Work],
        incoming: dict[int, list[Tensor]],
        outgoing: dict[int, list[Tensor]],
    ) -> None:
        self._transport = transport
        self._device = device
        self._work = work
        self._incoming = incoming
        self._outgoing = outgoing  # alive until they have been sent

    def wait(self) -> dict[int, list[Tensor]]:
        begun = time.perf_counter()
        try:
            with self._transport.lost_is_aborted():
                for one in self._work:
                    # NCCL's waits are the stream's, unless they are given a time.
                    one.wait(PATIENCE) if self._transport.gloo else one.wait()
        finally:
            self._transport.waited += time.perf_counter() - begun
        return {
            sender: [tensor.to(self._device) for tensor in each]
            for sender, each in self._incoming.items()
        }
