"""How the machine that samples computes a model call together with the workers of a session."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....parallel.attention import Seat
from ....parallel.group import GroupTransport
from ....parallel.partition import Partition
from ....parallel.transport import Aborted
from ...core.geometry import Geometry
from ...families import HostFamily
from ..cut import residuals_cut
from ..devices import name_of
from ..ranks_report import RankWork, ranks_described
from ..team import CallArguments, Rank, model_call, shares_by_speed
from .members import FailedWorker, LostWorker, gathered
from .messages import packed, plain_part
from .session import Session, interrupted
from .traits import ABOUT
from .worker import ABORTED, MEMORY

POLL_SECONDS = 0.05


class ClusterTeam:
    """This process and the workers of a session, for one sampling run. See `..team.Team`.

    Args:
        session: With the model loaded.
        model: This process's.
        shares: Of each rank, or None to measure them in the first call.
    """

    def __init__(
        self, session: Session, model: ModelPatcher, shares: tuple[float, ...] | None
    ) -> None:
        self.session = session
        self.calls = 0
        self.columns = False
        self.shares = shares or (1.0,) * session.size
        kinds = {name_of(session.device), *(one.about["kind"] for one in session.members)}
        self.measured = shares is not None or len(kinds) == 1
        self.ranks = [Rank(model, session.device)]
        self.ranks += [Rank(model, torch.device(one.about["device"])) for one in session.members]
        self._beginning: list[Any] = []

    def begin(self, shape: Sequence[int]) -> None:
        """Let the workers load their models, while this process does.

        Args:
            shape: Of the latents.
        """
        arguments = list(shape), self.shares
        self._beginning = [one.ask("begin", *arguments) for one in self.session.members]

    def end(self) -> None:
        """Let the workers end the run."""
        session = self.session
        if session.alive:
            session.settle([one.ask("end") for one in session.members])

    def compute(
        self,
        executor: Any,
        family: HostFamily,
        geometry: Geometry,
        partition: Partition,
        arguments: CallArguments,
    ) -> Tensor:
        """Compute one model call on all ranks.

        Args:
            executor: Of the host, at our wrapper.
            family: Of the model.
            geometry: Of the call.
            partition: Who computes what.
            arguments: Of the call.

        Raises:
            RuntimeError: A worker is lost or has failed.
            BaseException: This process's error, or the host's for an interrupt.
        """
        session = self.session
        self._wait_for_beginning()
        transport = GroupTransport(session.group(), session.device)
        seat = Seat(partition, transport)
        rank = self.ranks[0]
        references = self._called(partition, arguments)
        begun = time.perf_counter()
        try:
            with _watched(session, references, transport):
                given = arguments.of(rank, seat)
                out = model_call(executor, family, geometry, rank.model, seat, given)
            taken = time.perf_counter() - begun
            results = gathered(session.connection, session.members, references, interrupted)
        except BaseException as error:
            raise self._failed(error, references, transport, partition) from error
        self.columns = partition.columns
        own = dict(
            lines=len(partition.band(0)),
            received=transport.received,
            waited=transport.waited,
            busy=taken - transport.waited,
        )
        self._count([own, *results])
        return out

    def _wait_for_beginning(self) -> None:
        if self._beginning:
            session, references = self.session, self._beginning
            self._beginning = []
            try:
                gathered(session.connection, session.members, references, interrupted)
            except LostWorker:
                session.alive = False
                raise

    def _called(self, partition: Partition, arguments: CallArguments) -> list[Any]:
        """Send a call to all workers, and return Ray's references to their results."""
        ray = self.session.connection.ray
        common = ray.put(
            packed(
                {
                    "partition": dataclasses.asdict(partition),
                    "tensors": list(arguments.tensors),
                    "options": plain_part(arguments.options),
                    "others": dict(arguments.others),
                }
            )
        )
        return [
            one.ask("call", common, packed(_residuals(arguments.control, partition, rank)))
            for rank, one in enumerate(self.session.members, 1)
        ]

    def _failed(
        self,
        error: BaseException,
        references: list[Any],
        transport: GroupTransport,
        partition: Partition,
    ) -> BaseException:
        """Stop all ranks, and return the error that began it."""
        session = self.session
        transport.abort(error)
        session.drop_group()
        session.stop()
        session.settle(references)
        if not isinstance(error, (Aborted, LostWorker, FailedWorker)):
            return error
        if isinstance(transport.error, comfy.model_management.InterruptProcessingException):
            # The flag is still there: who waited for it has only read it.
            comfy.model_management.interrupt_current_processing(False)
            return comfy.model_management.InterruptProcessingException()
        return self._first_error(error, references, partition)

    def _first_error(
        self, error: BaseException, references: list[Any], partition: Partition
    ) -> BaseException:
        """Return the error of a worker that others follow from; a lost worker comes first."""
        session, found = self.session, error
        for rank, (member, reference) in enumerate(
            zip(session.members, references, strict=True), 1
        ):
            try:
                gathered(session.connection, [member], [reference], lambda: None, seconds=0.0)
            except LostWorker as lost:
                session.alive = False
                return lost
            except FailedWorker as failed:
                if failed.kind == MEMORY:
                    return _too_little(failed, len(partition.band(rank)), partition)
                if failed.kind != ABORTED:
                    found = failed
        return found

    def _count(self, results: list[Mapping[str, Any]]) -> None:
        for rank, result in zip(self.ranks, results, strict=True):
            rank.lines = result["lines"]
            rank.received += result["received"]
            rank.waited += result["waited"]
            rank.busy += result["busy"]
        self.calls += 1
        if not self.measured:
            self.measured = True
            self.shares = shares_by_speed(self.ranks)

    def describe(self) -> str:
        """Return a line for people about what the ranks did."""
        names = ["this machine", *(one.name for one in self.session.members)]
        work = [
            RankWork(name, rank.lines, rank.received, rank.waited, rank.busy)
            for name, rank in zip(names, self.ranks, strict=True)
        ]
        return ranks_described(work, self.calls, self.calls, columns=self.columns, head=ABOUT)


def _residuals(control: Any, partition: Partition, rank: int) -> Any:
    seat: Any = SimpleNamespace(partition=partition, rank=rank)
    return residuals_cut(control, seat)


@contextmanager
def _watched(
    session: Session, references: Sequence[Any], transport: GroupTransport
) -> Generator[None]:
    """Stop waiting for other ranks where one has failed, or the user has interrupted the run."""
    done = threading.Event()
    watcher = threading.Thread(
        target=_watch, args=(session, references, transport, done), name="CLEAR cluster"
    )
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _watch(
    session: Session,
    references: Sequence[Any],
    transport: GroupTransport,
    done: threading.Event,
) -> None:
    waiting = dict(zip(references, session.members, strict=True))
    while not done.wait(POLL_SECONDS):
        if comfy.model_management.processing_interrupted():
            transport.abort(comfy.model_management.InterruptProcessingException())
            return
        ready, _ = session.connection.ray.wait(list(waiting), timeout=0) if waiting else ([], [])
        for reference in ready:
            member = waiting.pop(reference)
            try:
                gathered(session.connection, [member], [reference], lambda: None)
            except Exception as error:  # for the thread that computes
                transport.abort(error)
                return


def _too_little(error: FailedWorker, lines: int, partition: Partition) -> RuntimeError:
    return RuntimeError(
        f"{error} It had {lines} of {partition.lines} {partition.unit} of tokens. Use more GPUs, "
        "or add CLEAR Low Memory."
    )
