"""One run at a time in a folder: a lock that the system frees however its process ends."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout  # a requirement of torch

NAME = "in_use.lock"


@contextmanager
def held(folder: Path, doing: str) -> Generator[None]:
    """Hold a folder for the length of the ``with``; on a disk without locks, do nothing.

    Args:
        folder: One that exists.
        doing: What runs do that hold it, for the error.

    Raises:
        ValueError: Another run holds it.
    """
    lock = FileLock(folder / NAME)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ValueError(
            f"{folder} is in use, another run {doing} there: wait for its end, or stop it, or take "
            "another name or folder."
        ) from error
    except (OSError, NotImplementedError):
        pass  # some disks of a network know no locks
    try:
        yield
    finally:
        lock.release()
