"""What a run will write."""

from __future__ import annotations

from dataclasses import dataclass

from ..config import RunConfig, Training
from .duration import times_left
from .memory import KEPT, MASTER

FILE = 2
"""Bytes of a number in the files: data and student are kept in 16 bits."""


@dataclass(frozen=True)
class There:
    """What a run has written already.

    Attributes:
        done: Updates.
        states: States of them that are kept.
        file: Whether the run's own file is there.
        best: Whether that of the best validation is.
    """

    done: int = 0
    states: int = 0
    file: bool = False
    best: bool = False


@dataclass(frozen=True)
class Disk:
    """Bytes that a run adds to the disk at the most.

    Attributes:
        data: Latents, and each prompt's embedding once.
        states: Those that are kept, and one that is being written.
        files: The run's own and that of the best validation.
    """

    data: int
    states: int
    files: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.data + self.states + self.files


def disk(
    config: RunConfig, *, trained: int, latents: int, texts: int, there: There | None = None
) -> Disk:
    """Work out what a run will add to the disk.

    Args:
        config: The run.
        trained: Numbers that are trained, as many as a file of the student holds.
        latents: Numbers of all latents that are missing.
        texts: Numbers of all text embeddings that are missing, each of which is stored once.
        there: What it has written already; None for nothing.
    """
    training, there = config.training, there or There()
    copies = 1 + KEPT[config.optimiser.name] + (training.ema_decay > 0)
    left = saves(training, there.done)
    # One that is replaced is there twice for a moment, when a larger state has just made way.
    files = (not there.file) + (left > 0 and not there.best)
    return Disk(
        data=(latents + texts) * FILE,
        states=int(_added(training.keep_states, there.states, left) * copies * trained * MASTER),
        files=files * trained * FILE,
    )


def saves(training: Training, done: int) -> int:
    """Count the states that are still to be written: every so many updates, and at the end.

    Args:
        training: How long, and how often.
        done: Updates done already.
    """
    return times_left(training.save_every, training.steps, done)


def _added(keep: int, there: int, left: int) -> int:
    """Return how many states more there are at once than now; one goes after the next is there."""
    return max(min(keep + 1, there + left) - there, 1) if left else 0
