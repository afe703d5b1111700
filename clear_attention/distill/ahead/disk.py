"""What a run will write."""

from __future__ import annotations

from dataclasses import dataclass

from ..config import RunConfig
from .memory import KEPT, MASTER

FILE = 2
"""Bytes of a number in the files: data and student are kept in 16 bits."""


@dataclass(frozen=True)
class Disk:
    """Bytes that a run writes.

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


def disk(config: RunConfig, *, trained: int, latents: int, texts: int) -> Disk:
    """Work out what a run will write.

    Args:
        config: The run.
        trained: Numbers that are trained, as many as a file of the student holds.
        latents: Numbers of all latents that are missing.
        texts: Numbers of all text embeddings that are missing, each of which is stored once.
    """
    training = config.training
    copies = 1 + KEPT[config.optimiser.name] + (training.ema_decay > 0)
    return Disk(
        data=(latents + texts) * FILE,
        states=int((training.keep_states + 1) * copies * trained * MASTER),
        files=2 * trained * FILE,
    )
