"""Ranks as processes, on one machine or several: `torch.distributed` carries the tensors."""

from __future__ import annotations

import time

import torch
import torch.distributed as dist
from torch import Tensor

from .transport import Aborted, Awaited, Sent


class GroupTransport:
    """One process's transport. See `Transport`.

    Args:
        group: Of all ranks: gloo, or NCCL between CUDA devices.
        device: Of this rank; gloo carries CUDA tensors through the host's memory.
    """

    def __init__(self, group: dist.ProcessGroup, device: torch.device) -> None:
        self.rank = group.rank()
        self.size = group.size()
        self.received = 0
        self.waited = 0.0
        self.error: BaseException | None = None
        self._group = group
        self._device = device
        staged = group.name() == "gloo" and device.type != "cpu"
        self._carrier = torch.device("cpu") if staged else device

    def exchange(self, sent: Sent, awaited: Awaited) -> _GroupPending:
        if self.error is not None:
            raise Aborted("Another rank has failed.") from self.error
        incoming = {
            sender: [torch.empty(one.shape, dtype=one.dtype, device=self._carrier) for one in each]
            for sender, each in awaited.items()
        }
        outgoing = {
            receiver: [tensor.to(self._carrier).contiguous() for tensor in tensors]
            for receiver, tensors in sent.items()
        }
        work = [
            *(self._group.send([x], to, 0) for to, each in outgoing.items() for x in each),
            *(self._group.recv([x], by, 0) for by, each in incoming.items() for x in each),
        ]
        self.received += sum(one.bytes for each in awaited.values() for one in each)
        return _GroupPending(self, self._device, work, incoming, outgoing)

    def abort(self, error: BaseException) -> None:
        # The other processes see it by the loss of their connections.
        self.error = self.error or error
        self._group.abort()


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
            for one in self._work:
                one.wait()
        except RuntimeError as error:
            raise Aborted("The connection to another rank is lost.") from error
        finally:
            self._transport.waited += time.perf_counter() - begun
        return {
            sender: [tensor.to(self._device) for tensor in each]
            for sender, each in self._incoming.items()
        }
