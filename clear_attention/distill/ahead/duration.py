"""How long a run will take: how many pictures pass through the model, times the seconds of each.

The seconds come from a rehearsal, or from arithmetic where there is no machine to measure.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..config import RunConfig, Training

BACK_THROUGH_ATTENTION = 2.5
FETCHES = 3
"""Times that an update fetches a teacher in main memory: its way, the student's, and back."""

SHOWN = 4
"""Pictures of each model that a validation paints at most, where a VAE shows them."""


@dataclass(frozen=True)
class Pass:
    """Seconds of one picture's ways through the model, the mean over the pictures of a run.

    Attributes:
        teacher: Of the teacher.
        student: Of the student, without a way back.
        update: Of both, and of the student back.
        step: Of the optimiser, once in an update.
        at_most: Whether these are bounds: a first run, which compiles and takes memory.
    """

    teacher: float
    student: float
    update: float
    step: float = 0.0
    at_most: bool = False


def calculated(
    *,
    tokens: float,
    full: float,
    local: float,
    trained: float,
    recomputed: bool,
    fetched: float = 0.0,
) -> Pass:
    """Work out a picture's ways through the model from the way there.

    On the way back a frozen layer computes as much as on the way there, the gradient of its input.
    What is trained lies beside it as a layer of its own, which computes that of its weights, too.
    Attention takes two and a half times as long, five products in place of two (FlashAttention-2,
    arXiv 2307.08691, section 3.1).

    Args:
        tokens: Seconds of all but the attention.
        full: Seconds of full attention.
        local: Seconds of the student's.
        trained: What is trained, as a share of the layers that `tokens` is spent in.
        recomputed: Whether blocks are computed again on the way back.
        fetched: Seconds to bring a teacher in main memory to the device, a picture's share of them:
            once for each way there and the way back. Painting has the teacher on the device, so
            that a validation's counts with the student's.
    """
    student = tokens * (1 + trained) + local
    back = tokens * (1 + 2 * trained) + BACK_THROUGH_ATTENTION * local
    update = tokens + full + student * (2 if recomputed else 1) + back
    return Pass(tokens + full, student + 2 * fetched, update + FETCHES * fetched)


@dataclass(frozen=True)
class Duration:
    """Expected seconds of a run's parts.

    Attributes:
        painting: Of the data that is missing.
        training: Of the updates that are left.
        validation: Of all validations that are left, pictures included.
        at_most: Whether these are bounds.
    """

    painting: float
    training: float
    validation: float
    at_most: bool = False

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
    batch: float | None = None,
    done: int = 0,
    shows: bool = False,
    processes: int = 1,
) -> Duration:
    """Work out how long a run will take.

    Args:
        config: The run.
        one: A picture's ways through the model.
        missing: Pictures that are to be painted.
        held_out: Pictures that are there to validate with.
        batch: Pictures of an update, the mean; None for `Training.batch`.
        done: Updates done already.
        shows: Whether validations paint pictures.
        processes: That share the painting, the updates and the validations.
    """
    training, generation = config.training, config.generation
    left = max(0, training.steps - done)
    calls = generation.steps * (1 if generation.cfg == 1 else 2)
    both = one.teacher + one.student
    update = (training.batch if batch is None else batch) * one.update / processes + one.step
    compared = min(training.validation_samples or held_out, held_out)
    shown = min(SHOWN, held_out) * calls * both if shows else 0.0
    return Duration(
        painting=missing * calls * one.teacher / processes,
        training=left * update,
        validation=validations(training, done) * (compared * both / processes + shown),
        at_most=one.at_most,
    )


def validations(training: Training, done: int) -> int:
    """Count the validations that are left: every so many updates, and at the end.

    Args:
        training: How long, and how often.
        done: Updates done already.
    """
    return times_left(training.validate_every or training.steps, training.steps, done)


def times_left(every: int, steps: int, done: int) -> int:
    """Count how often is still done what is done every so many updates, and at the end.

    Args:
        every: Updates from one time to the next.
        steps: Of the run.
        done: Updates done already.
    """
    if done >= steps:
        return 0
    return steps // every - done // every + (steps % every > 0)
