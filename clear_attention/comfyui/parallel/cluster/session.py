"""Session: the workers of a cluster for as long as they are wanted, their models, their group."""

from __future__ import annotations

import atexit
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import comfy.model_management
import torch
import torch.distributed as dist

from ....parallel.process_group import backend_for, card_of, join_group, open_store
from .connection import Connection
from .inventory import differences, inventory
from .members import LostWorker, Member, gathered, start_members
from .prompt import Prompt
from .start import folders, host_options
from .traits import Traits, first_difference

STOP_SECONDS = 20.0
"""How long workers may take to notice that a call has failed elsewhere."""


def interrupted() -> None:
    """Raise the host's exception if the user has interrupted the run."""
    comfy.model_management.throw_exception_if_processing_interrupted()


class Session:
    """Workers beside this process, which is rank 0.

    Args:
        connection: To Ray.
        gpus: Number of workers.
        device: Where this process computes.

    Raises:
        ValueError: The cluster is too small.
        RuntimeError: A worker did not start.
    """

    def __init__(self, connection: Connection, gpus: int, device: torch.device) -> None:
        self.connection = connection
        self.device = device
        self.members: list[Member] = []
        self._idle: list[Member] = []
        self.alive = True
        self._group: dist.ProcessGroup | None = None
        self._store: Any = None
        self._names = map("group {}".format, itertools.count())
        try:
            self.members = self._started(gpus)
        except BaseException:
            self.close()
            raise

    @property
    def size(self) -> int:
        """Number of ranks."""
        return len(self.members) + 1

    def _started(self, gpus: int) -> list[Member]:
        """Start workers; one that got the card of this process keeps it from others, no more."""
        gpu, own = self.device.type != "cpu", card_of(self.device)
        members = self._opened(start_members(self.connection, gpus, gpu=gpu), gpu)
        taken = [one for one in members if own and one.about["card"] == own]
        if taken:
            more = start_members(self.connection, len(taken), gpu=gpu)
            self._idle = taken
            members = [one for one in members if one not in taken] + self._opened(more, gpu)
        return members

    def _opened(self, members: list[Member], gpu: bool) -> list[Member]:
        self.members = members  # so that an error ends them
        settings = {**folders(), "cpu": not gpu, "options": host_options()}
        opened = [one.actor.open.remote(settings) for one in members]
        gathered(self.connection, members, opened, interrupted)
        for one, about in zip(members, self.ask_all("about", of=members), strict=True):
            one.about = about
        return members

    def ask_all(
        self,
        method: str,
        *arguments: Any,
        of: list[Member] | None = None,
        poll: Callable[[], None] = interrupted,
    ) -> list[Any]:
        """Call a method of each worker, and return the results.

        Args:
            method: Of `worker.Worker`.
            arguments: The same for all.
            of: The workers, or None for all.
            poll: Called from time to time; raises to stop waiting.

        Raises:
            RuntimeError: A worker is lost, or reports an error.
        """
        members = self.members if of is None else of
        references = [one.ask(method, *arguments) for one in members]
        try:
            return gathered(self.connection, members, references, poll)
        except LostWorker:
            self.alive = False
            raise
        except comfy.model_management.InterruptProcessingException:
            self.stop()
            raise

    def load(self, prompt: Prompt, node_id: str, here: Traits) -> None:
        """Let the workers make the MODEL that this process has; what they have, they keep.

        Args:
            prompt: The nodes above ours, and ours.
            node_id: Our node.
            here: Of this process's MODEL.

        Raises:
            RuntimeError: A worker differs from this machine, or fails.
        """
        own = inventory(prompt)
        faults = [
            differences(member.name, own, there)
            for member, there in zip(self.members, self.ask_all("inventory", prompt), strict=True)
        ]
        if any(faults):
            raise RuntimeError(f"CLEAR Cluster: {'; '.join(filter(None, faults))}.")
        for member, there in zip(self.members, self.ask_all("load", prompt, node_id), strict=True):
            difference = first_difference(here, there)
            if difference is not None:
                raise RuntimeError(
                    f"CLEAR Cluster: {member.name} made another model of this workflow: "
                    f"{difference}."
                )

    def group(self) -> dist.ProcessGroup:
        """Return the group of all ranks, which is opened if there is none."""
        if self._group is not None:
            return self._group
        own = self.connection.own_address
        self._store = self._store or open_store(own, self.size)
        cards = [card_of(self.device), *(one.about["card"] for one in self.members)]
        backend, name = backend_for(cards), next(self._names)
        joining = [
            one.ask("join", own, self._store.port, name, (rank, self.size, backend))
            for rank, one in enumerate(self.members, 1)
        ]
        place = dict(backend=backend, address=own)
        try:
            self._group = join_group(self._store, name, 0, self.size, **place)
        finally:
            gathered(self.connection, self.members, joining, interrupted, seconds=STOP_SECONDS)
        return self._group

    def drop_group(self) -> None:
        """Forget the group: it is of no use after an error."""
        self._group = None

    def stop(self) -> None:
        """Let the workers end what they do."""
        for one in self.members:
            one.ask("abort")

    def settle(self, references: Sequence[Any]) -> None:
        """Wait until the workers have ended what they were asked; who does not is lost.

        Args:
            references: Ray's, of their answers.
        """
        ray = self.connection.ray
        done, _ = ray.wait(list(references), num_returns=len(references), timeout=STOP_SECONDS)
        if len(done) < len(references):
            self.alive = False

    def close(self) -> None:
        """End the workers."""
        self.alive = False
        self._group = self._store = None
        # A Ray that has ended would be started anew by the question.
        if self.connection.open:
            for one in [*self.members, *self._idle]:
                self.connection.ray.kill(one.actor)
        self.members = self._idle = []


class _Current:
    """The one session of this process, and its connection to Ray."""

    def __init__(self) -> None:
        self._asked: tuple[str, int, torch.device] | None = None
        self.session: Session | None = None
        self._connection: Connection | None = None

    def of(self, address: str, gpus: int, device: torch.device) -> Session:
        """Return the session that was asked for; another one ends.

        Args:
            address: Of Ray, as the node takes it.
            gpus: Number of workers.
            device: Where this process computes.

        Raises:
            ValueError: The cluster cannot be reached, or is too small.
            RuntimeError: A worker did not start.
        """
        known = self.session
        if known is not None and known.alive and self._asked == (address, gpus, device):
            return known
        if self._asked is not None and self._asked[0] != address:
            self.close()
        self._end_session()
        if self._connection is None or not self._connection.open:
            self._connection = Connection(address, gpus + 1)
        self._asked = (address, gpus, device)
        try:
            self.session = Session(self._connection, gpus, device)
        except LostWorker:  # or Ray itself
            self.close()
            raise
        return self.session

    def close(self) -> None:
        """End the session, and Ray where it was started here."""
        self._end_session()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _end_session(self) -> None:
        session, self.session = self.session, None
        if session is not None:
            session.close()


CURRENT = _Current()
atexit.register(CURRENT.close)
