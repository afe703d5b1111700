"""Callbacks of a distillation: progress, losses, pictures, and whether to stop."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from .data.sampling import interrupted

logger = logging.getLogger(__name__)


def log(text: str) -> None:
    """Write a line to the log."""
    logger.info("CLEAR: %s", text)


@dataclass(frozen=True)
class Watcher:
    """What a run reports to its user, and asks.

    Attributes:
        progress: Called with what is going on, how far it is and how far it goes.
        losses: Called with the number of each update and its losses.
        pictures: Called with the number of the update and the latents of teacher and student, at
            each validation.
        should_stop: Asked whether to stop; what is done is kept.
        message: Called with what the run will take, and with what came of it.
    """

    progress: Callable[[str, int, int], None] = lambda what, done, of: None
    losses: Callable[[int, Mapping[str, float]], None] = lambda step, values: None
    pictures: Callable[[int, Tensor, Tensor], None] | None = None
    should_stop: Callable[[], bool] = interrupted
    message: Callable[[str], None] = log
