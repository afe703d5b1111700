"""Train on a run's data in the host, from where an earlier run stopped."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from comfy.model_management import InterruptProcessingException

from ...distill.config import RunConfig
from ...distill.data.batches import Batches
from ...distill.data.held_out import HeldOut
from ...distill.data.source import Source
from ...distill.tasks import Distillation
from ...distill.trainer import Trainer
from ...distill.workers.processes import Accelerator, any_process
from .student_file import StudentFiles
from .watcher import Watcher

logger = logging.getLogger(__name__)


def make_trainer(
    task: Distillation,
    data: Source,
    held_out: Source | None,
    config: RunConfig,
    accelerator: Accelerator,
) -> Trainer:
    """Make the trainer of a run."""
    return Trainer(
        task,
        Batches(data, config.training),
        config.training,
        config.optimiser,
        config.folder,
        HeldOut(held_out, config.training) if held_out else None,
        accelerator,
    )


def train(
    trainer: Trainer,
    config: RunConfig,
    watcher: Watcher,
    validated: Callable[[int], None],
    files: StudentFiles,
) -> bool:
    """Train from the last state of the folder; return whether the end was reached.

    Args:
        trainer: Of the run.
        config: The run.
        watcher: Called after each update, and asked whether to stop.
        validated: Called at each validation with the number of the update.
        files: Written at the start where the run's file is missing, with each state, and at each
            best validation.

    Raises:
        InterruptProcessingException: The host was asked to stop; what is done is kept.
    """
    steps = config.training.steps
    logger.info("CLEAR: training from step %d to %d", trainer.resume(), steps)
    if any_process(trainer.accelerator, not config.output.exists()):
        trainer.on_main(files.write)

    def observe(step: int, values: Mapping[str, float]) -> None:
        watcher.progress("training", step, steps)
        watcher.losses(step, values)

    try:
        return trainer.run(observe, watcher.should_stop, validated, files.write)
    except InterruptProcessingException:  # raised by any of the host's layers
        trainer.keep()
        raise
