"""The workers of a session: processes that Ray has placed, and what goes wrong with them."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import door
from .connection import Connection

log = logging.getLogger(__name__)

POLL_SECONDS = 0.1
PLACED_SECONDS = 60.0

CONSEQUENCE = "aborted"
"""Kind of the errors that follow from another rank's."""


class LostWorker(RuntimeError):
    """A worker's process or machine has ended."""

    __module__ = "clear_attention"  # hosts show it, and packs are loaded under their path


class FailedWorker(RuntimeError):
    """A worker reports an error.

    Attributes:
        kind: Of the error, as `worker.Worker.kind_of` says.
    """

    __module__ = "clear_attention"

    def __init__(self, text: str, kind: str) -> None:
        super().__init__(text)
        self.kind = kind


@dataclass
class Member:
    """A worker, as the machine that samples sees it.

    Attributes:
        actor: Ray's handle of it.
        about: What it says about itself.
    """

    actor: Any
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What people know it by."""
        if not self.about:
            return "a worker that just starts"
        return f"the worker on {self.about['machine']} ({self.about['device']})"

    def ask(self, method: str, *arguments: Any) -> Any:
        """Begin to call a method, and return Ray's reference to its result."""
        return self.actor.do.remote(method, *arguments)


def start_members(connection: Connection, count: int, *, gpu: bool) -> list[Member]:
    """Let Ray start processes; their ComfyUI is not opened yet.

    Args:
        connection: To Ray.
        count: Number of them.
        gpu: Whether each has a GPU of its own.

    Raises:
        ValueError: The cluster has too few GPUs.
    """
    ray = connection.ray
    ray.cloudpickle.register_pickle_by_value(sys.modules[door.__name__])
    needs = {"num_gpus": 1, "num_cpus": 0} if gpu else {"num_cpus": 1}
    if gpu:
        _require_gpus(ray, count)
    kind = ray.remote(door.Door)
    # Several calls at a time: one that computes, one that waits for it, and one that stops it.
    options = {"max_concurrency": 4, "scheduling_strategy": "SPREAD", **needs}
    return [Member(kind.options(**options).remote()) for _ in range(count)]


def _require_gpus(ray: Any, count: int) -> None:
    """Wait until a cluster has so many free GPUs: those of ended workers come back late."""
    end = time.monotonic() + PLACED_SECONDS / 4
    while (free := int(ray.available_resources().get("GPU", 0))) < count:
        if time.monotonic() > end:
            raise ValueError(
                f"gpus must be at most the free GPUs of the cluster, got {count}, and {free} are "
                "free. Join further machines by: python -m clear_attention.cluster"
            )
        time.sleep(POLL_SECONDS)


def gathered(
    connection: Connection,
    members: Sequence[Member],
    references: Sequence[Any],
    poll: Callable[[], None],
    seconds: float | None = None,
) -> list[Any]:
    """Wait for a result of each worker.

    Args:
        connection: To Ray.
        members: Whose results.
        references: Ray's, of each.
        poll: Called from time to time; raises to stop waiting.
        seconds: How long to wait at most, or None.

    Raises:
        LostWorker: A worker has ended, or does not answer in time.
        FailedWorker: A worker reports an error.
    """
    ray = connection.ray
    results: dict[int, Any] = {}
    end = None if seconds is None else time.monotonic() + seconds
    while len(results) < len(members):
        poll()
        waiting = [one for index, one in enumerate(references) if index not in results]
        ready, _ = ray.wait(waiting, timeout=POLL_SECONDS)
        for reference in ready:
            index = list(references).index(reference)
            results[index] = result_of(connection, members[index], reference)
        if not ready and end is not None and time.monotonic() > end:
            index = next(index for index in range(len(members)) if index not in results)
            raise LostWorker(f"CLEAR Cluster: {members[index].name} does not answer.")
    return [results[index] for index in range(len(members))]


def result_of(connection: Connection, member: Member, reference: Any) -> Any:
    """Return what a worker has answered.

    Args:
        connection: To Ray.
        member: The worker.
        reference: Ray's, of an answer that is there.

    Raises:
        LostWorker: It has ended.
        FailedWorker: It reports an error.
    """
    exceptions = connection.ray.exceptions
    try:
        answer = connection.ray.get(reference)
    except (
        exceptions.RayActorError,
        exceptions.WorkerCrashedError,
        exceptions.RaySystemError,
    ) as error:
        raise LostWorker(
            f"CLEAR Cluster: {member.name} was lost: its process or its machine has ended. Queue "
            "the prompt again, and all workers are started anew."
        ) from error
    if "error" not in answer:
        return answer["value"]
    kind = answer.get("kind", "")
    if kind != CONSEQUENCE:
        log.error("CLEAR: %s failed:\n%s", member.name, answer.get("trace", answer["error"]))
    raise FailedWorker(f"CLEAR Cluster: {member.name}: {answer['error']}", kind)
