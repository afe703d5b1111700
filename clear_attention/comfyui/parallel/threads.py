"""One thread for each rank above 0, for the time of one sampling run."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import comfy.model_management
import torch

Task = Callable[[], Any]


class Crew:
    """Threads that compute for a device each.

    Args:
        devices: Of the threads.
    """

    def __init__(self, devices: list[torch.device]) -> None:
        self._tasks: list[queue.SimpleQueue[tuple[Task, Future[Any]] | None]] = []
        self._threads: list[threading.Thread] = []
        for number, device in enumerate(devices, 1):
            tasks: queue.SimpleQueue[tuple[Task, Future[Any]] | None] = queue.SimpleQueue()
            thread = threading.Thread(
                target=_work, args=(tasks, device), name=f"CLEAR rank {number}", daemon=True
            )
            self._tasks.append(tasks)
            self._threads.append(thread)
            thread.start()

    def submit(self, thread: int, task: Task) -> Future[Any]:
        """Begin a task on a thread, in the modes of the thread that asks."""
        future: Future[Any] = Future()
        modes = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

        def in_modes() -> Any:
            with torch.inference_mode(modes[0]), torch.set_grad_enabled(modes[1]):
                return task()

        self._tasks[thread].put((in_modes, future))
        return future

    def stop(self) -> None:
        """End the threads; a task that runs is waited for."""
        for tasks in self._tasks:
            tasks.put(None)
        for thread in self._threads:
            thread.join()


def _work(tasks: queue.SimpleQueue[tuple[Task, Future[Any]] | None], device: torch.device) -> None:
    # The current device is a thread's own; newer hosts set it for other kinds than CUDA too.
    set_device = getattr(comfy.model_management, "set_torch_device", None)
    if set_device is not None and device.type != "cpu":
        set_device(device)
    elif device.type == "cuda":
        torch.cuda.set_device(device)
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None
    while (item := tasks.get()) is not None:
        task, future = item
        try:
            with _on(stream):
                result = task()
            future.set_result(result)
            del result
        except BaseException as error:  # an interrupt of the host is none of Exception's
            future.set_exception(error)
        del item, task, future


@contextmanager
def _on(stream: torch.cuda.Stream | None) -> Generator[None]:
    """Compute on a stream of the thread's own, between what the host does before and after.

    Two ranks on one device then compute side by side.
    """
    if stream is None:
        yield
        return
    hosts = torch.cuda.default_stream(stream.device)
    stream.wait_stream(hosts)
    try:
        with torch.cuda.stream(stream):
            yield
    finally:
        hosts.wait_stream(stream)
