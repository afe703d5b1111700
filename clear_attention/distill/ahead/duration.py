"""How long a run will take: arithmetic on the passes through the model that it consists of.

An update passes each picture through the teacher and the student and back. On the way back a frozen
layer computes as much as on the way there, the gradient of its input alone; a trained one twice as
much; and attention two and a half times, five products in place of two (FlashAttention-2, arXiv
2307.08691, section 3.1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..config import RunConfig

BACK_THROUGH_ATTENTION = 2.5

SHOWN = 4
"""Pictures of each model that a validation paints, where a VAE shows them."""


@dataclass(frozen=True)
class Pass:
    """Seconds of one picture's way through the model, the mean over the sizes of a run.

    Attributes:
        tokens: All but the attention.
        full: Full attention.
        local: The student's.
        trained: Share of `tokens` that lies in trained layers.
    """

    tokens: float
    full: float
    local: float
    trained: float = 0.0

    @property
    def teacher(self) -> float:
        """Of the teacher."""
        return self.tokens + self.full

    @property
    def student(self) -> float:
        """Of the student, there."""
        return self.tokens + self.local

    @property
    def back(self) -> float:
        """Of the student, back."""
        return self.tokens * (1 + self.trained) + BACK_THROUGH_ATTENTION * self.local


@dataclass(frozen=True)
class Duration:
    """Expected seconds of a run's parts.

    Attributes:
        painting: Of the data that is missing.
        training: Of the updates that are left.
        validation: Of all validations that are left, pictures included.
    """

    painting: float
    training: float
    validation: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.painting + self.training + self.validation


def duration(
    config: RunConfig,
    one: Pass,
    *,
    missing: int,
    held_out: int,
    done: int = 0,
    shows: bool = False,
    processes: int = 1,
) -> Duration:
    """Work out how long a run will take.

    Args:
        config: The run.
        one: A picture's way through the model.
        missing: Pictures that are to be painted.
        held_out: Pictures of a validation.
        done: Updates done already.
        shows: Whether validations paint pictures.
        processes: That share the painting, the updates and the validations.
    """
    training, generation = config.training, config.generation
    left = max(0, training.steps - done)
    picture = generation.steps * one.teacher * (1 if generation.cfg == 1 else 2)
    again = one.student if training.gradient_checkpointing else 0.0
    update = training.batch * (one.teacher + one.student + again + one.back)
    validations = math.ceil(left / training.validate_every) if training.validate_every else 1
    shown = SHOWN * generation.steps * (one.teacher + one.student) if shows else 0.0
    validation = held_out * (one.teacher + one.student) / processes + shown
    return Duration(
        missing * picture / processes, left * update / processes, validations * validation
    )
