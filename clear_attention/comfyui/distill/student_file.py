"""The files that a run writes, for CLEARLoader: whole projections, or a change of low rank."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher

from ...atomic_files import make_folder
from ...distill import state as states
from ...distill.config import RunConfig
from ...distill.identity import require_same
from ...distill.tasks import Distillation
from ...weights import checkpoint, low_rank
from .denoiser import HostDenoiser

BEST = "_best"
"""Behind the name of the run's file, in that of the file with the smallest held-out error."""


COMPARED = ("student", "teacher")
"""What a state's file depends on; how it was trained does not matter any more."""


@dataclass(frozen=True, eq=False)
class StudentFiles:
    """Writes what a run has trained so far, so that a run that is killed leaves a file that loads.

    Attributes:
        task: What is trained.
        config: The run.
    """

    task: Distillation
    config: RunConfig

    @property
    def best(self) -> Path:
        """The file of the best validation."""
        return best_of(self.config.output)

    def write(self, is_best: bool = False) -> None:
        """Write the student as it is now.

        Args:
            is_best: Into the file of the best validation, not into the run's own.
        """
        write(self.best if is_best else self.config.output, self.task, self.config)


def best_of(output: Path) -> Path:
    """Return the file of a run's best validation."""
    return output.with_stem(output.stem + BEST)


def write(path: Path, task: Distillation, config: RunConfig) -> None:
    """Write the student in bfloat16, with its window in the file's metadata.

    Args:
        path: The file; one that is there is replaced as a whole.
        task: Whose student.
        config: The run.
    """
    make_folder(path.parent)
    facts: dict[str, Any] = dict(
        radius=config.student.radius,
        radii=task.radii,
        pool_factor=config.student.pool_factor,
        base=config.base or None,
        family=task.denoiser.table.family,
    )
    if config.student.rank:
        low_rank.save(path, task.student.low_rank(torch.bfloat16), **facts)
        return
    base = task.denoiser.network.state_dict()
    checkpoint.save(path, task.student.published(base, torch.bfloat16), **facts)


def export(model: ModelPatcher, config: RunConfig, state: Path) -> Path:
    """Write the student of a state, averaged if the run averages, and return the file.

    Args:
        model: The teacher, a MODEL; it stays as it is.
        config: The run.
        state: A file, or the name of one in the run's folder.

    Raises:
        ValueError: The state is damaged, or is of another student or teacher.
    """
    path = state if state.exists() else config.folder / state
    if not path.is_file() or not states.PATTERN.fullmatch(path.name):
        there = [each.name for each in states.states(config.folder)]
        raise ValueError(
            f"{state} must be a state of the run, which has {', '.join(there) or 'none'}."
        )
    found = states.load(path)
    with torch.inference_mode(False):
        task = Distillation(HostDenoiser(model), config.training, config.student, config.loss)
        own = task.made_with()
        before, now = ({key: each.get(key) for key in COMPARED} for each in (found.made_with, own))
        require_same(path, before, now)
        parameters = {name: p for name, p in task.named_parameters() if p.requires_grad}
        states.copy_into(parameters, found.average or found.weights, str(path))
        target = config.output.with_stem(f"{config.output.stem}_step_{found.step}")
        write(target, task, config)
    return target
