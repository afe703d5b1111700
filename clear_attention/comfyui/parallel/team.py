"""Team: the ranks of one sampling run, and how they compute a model call together."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor
from torch import Tensor

from ...parallel.attention import Seat
from ...parallel.local import Board, LocalTransport
from ...parallel.partition import Partition
from ...parallel.transport import Aborted
from ..core.calls.model_call import SEAT_KEY
from ..core.geometry import Geometry
from ..core.patch import REPORT_KEY, SETTINGS_KEY
from ..families import HostFamily
from .copies import follow_hooks
from .cut import moved, residuals_cut, tokens_cut
from .ranks_report import RankWork, ranks_described
from .threads import Crew


@dataclass
class Rank:
    """One device of a team, and what it did so far.

    Attributes:
        model: The MODEL that it computes with.
        device: Where it computes.
        through_host: Devices whose copies to this one go through main memory.
        lines: Rows or columns of the last call.
        received: Bytes in all calls.
        waited: Seconds in the calls that were timed.
        busy: Seconds in which it did not wait, likewise.
    """

    model: ModelPatcher
    device: torch.device
    through_host: frozenset[torch.device] = frozenset()
    lines: int = 0
    received: int = 0
    waited: float = 0.0
    busy: float = 0.0


@dataclass(frozen=True)
class CallArguments:
    """What the host calls a model with.

    Attributes:
        tensors: Latent, timestep and what is concatenated or attended to, in the host's order.
        control: Residuals of ControlNets.
        options: The transformer_options.
        others: Further arguments.
    """

    tensors: tuple[Any, ...]
    control: Any
    options: Mapping[str, Any]
    others: Mapping[str, Any]

    def of(self, rank: Rank, seat: Seat) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments with which a rank calls its model."""
        options = {**self.options, SEAT_KEY: seat}
        if seat.rank:
            # What is reported and what follows a run is rank 0's.
            options.pop(REPORT_KEY, None)
            settings = options[SETTINGS_KEY]
            options[SETTINGS_KEY] = dataclasses.replace(settings, observers=())
        control = residuals_cut(self.control, seat)
        positional = [*self.tensors, control, options]
        return moved(positional, rank.device), moved(dict(self.others), rank.device)


@dataclass
class Team:
    """Ranks that share each model call of a run.

    Attributes:
        ranks: The first is the host's own thread.
        crew: Threads of the others.
        shares: Of each rank.
        measured: Whether the shares are final.
        calls: How many model calls they have computed.
        timed: How many of these counted the time that ranks waited. On a GPU only one does: each
            exchange waits for the device then.
        columns: Whether the last of them was shared out by columns.
    """

    ranks: list[Rank]
    crew: Crew
    shares: tuple[float, ...]
    measured: bool = True
    calls: int = 0
    timed: int = 0
    columns: bool = False
    _first: list[tuple[float, float]] = field(default_factory=list, repr=False)

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
            BaseException: The first error of any rank, once all have stopped.
        """
        original = self.ranks[0].model
        for rank in self.ranks[1:]:
            follow_hooks(rank.model, original)

        def run(rank: Rank, seat: Seat) -> Tensor:
            given = arguments.of(rank, seat)
            return model_call(executor, family, geometry, rank.model, seat, given)

        timed = self._is_timed
        out = self.together(partition, run)[0]
        self.calls += 1
        self.timed += timed
        self._leave_out_first_call()
        self.columns = partition.columns
        self._measure()
        return out

    def together(self, partition: Partition, run: Callable[[Rank, Seat], Any]) -> list[Any]:
        """Run a function on all ranks at once, and return what each returns.

        Args:
            partition: Who computes what.
            run: Is given a rank and its seat.

        Raises:
            BaseException: The first error of any rank, once all have stopped.
        """
        board = Board(poll=comfy.model_management.throw_exception_if_processing_interrupted)
        errors, timed = _Errors(), self._is_timed

        def on(index: int) -> Any:
            rank, lines = self.ranks[index], len(partition.band(index))
            transport = LocalTransport(
                board,
                index,
                len(self.ranks),
                rank.device,
                rank.through_host,
                in_step=timed,
            )
            begun = time.perf_counter()
            try:
                out = run(rank, Seat(partition, transport))
                transport.finish()
            except BaseException as error:
                errors.add(_told(error, rank, lines, partition))
                board.abort(error)
                raise
            taken = time.perf_counter() - begun
            rank.lines = lines
            rank.received += transport.received
            if timed:
                rank.waited += transport.waited
                rank.busy += taken - transport.waited
            return out

        futures = [
            self.crew.submit(index - 1, functools.partial(on, index))
            for index in range(1, len(self.ranks))
        ]
        first = None
        with contextlib.suppress(BaseException):  # which is among the errors
            first = on(0)
        for future in futures:
            future.exception()  # waits
        if errors.first is not None:
            raise errors.first
        return [first, *(future.result() for future in futures)]

    @property
    def _is_timed(self) -> bool:
        """Whether the call that begins counts the time that ranks wait."""
        on_gpu = any(rank.device.type == "cuda" for rank in self.ranks)
        return self.calls < 2 or not on_gpu

    def _leave_out_first_call(self) -> None:
        """Leave out the times of the first call, in which much is done once, if others follow."""
        if self.calls == 1:
            self._first = [(rank.waited, rank.busy) for rank in self.ranks]
        if self.calls == 2:
            self.timed -= 1
            for rank, (waited, busy) in zip(self.ranks, self._first, strict=True):
                rank.waited -= waited
                rank.busy -= busy

    def _measure(self) -> None:
        """Share out the next call by the speed of the first one."""
        if self.measured:
            return
        self.measured = True
        self.shares = shares_by_speed(self.ranks)

    def describe(self) -> str:
        """Return a line for people about what the ranks did."""
        work = [
            RankWork(str(rank.device), rank.lines, rank.received, rank.waited, rank.busy)
            for rank in self.ranks
        ]
        return ranks_described(work, self.calls, self.timed, columns=self.columns)


def shares_by_speed(ranks: Sequence[Rank]) -> tuple[float, ...]:
    """Return the share of each rank by what it computed in the seconds that it did not wait."""
    return tuple(rank.lines / max(rank.busy, 1e-9) for rank in ranks)


class _Errors:
    """The first error of all ranks that is not the consequence of another's."""

    def __init__(self) -> None:
        self.first: BaseException | None = None
        self._lock = threading.Lock()

    def add(self, error: BaseException) -> None:
        with self._lock:
            if not isinstance(error, Aborted) and self.first is None:
                self.first = error


def model_call(
    executor: Any,
    family: HostFamily,
    geometry: Geometry,
    model: ModelPatcher,
    seat: Seat,
    arguments: tuple[Sequence[Any], Mapping[str, Any]],
) -> Tensor:
    """Compute a rank's part of a model call; rank 0 returns the whole.

    Args:
        executor: Of the host, at our wrapper: those behind it run on every rank.
        family: Of the model.
        geometry: Of the call.
        model: Of the rank.
        seat: Of the rank.
        arguments: Positional and named ones, with the seat in the transformer_options.
    """
    network: Any = model.model
    positional, named = arguments
    following = WrapperExecutor.new_class_executor(
        network._apply_model, network, executor.wrappers, executor.idx + 1
    )
    assert family.cut is not None
    with tokens_cut(family.cut, family, network.diffusion_model, geometry, seat):
        return following.execute(*positional, **named)


def _told(error: BaseException, rank: Rank, lines: int, partition: Partition) -> BaseException:
    """Return an error of too little memory with the device's name and a way out."""
    if not isinstance(error, torch.OutOfMemoryError):
        return error
    told = type(error)(
        f"CLEAR Parallel: {rank.device} ran out of memory with {lines} of {partition.lines} "
        f"{partition.unit} of tokens. Give it fewer by shares, such as 2:1, or add CLEAR Low "
        f"Memory. ({error})"
    )
    told.__cause__ = error
    return told
