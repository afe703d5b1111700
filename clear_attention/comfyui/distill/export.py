"""The file of any state of a run, for CLEARLoader, without training on."""

from __future__ import annotations

from pathlib import Path

import torch
from comfy.model_patcher import ModelPatcher

from ...distill import state as states
from ...distill.config import RunConfig
from ...distill.identity import require_same
from ...distill.tasks import Distillation
from .denoiser import HostDenoiser
from .student_file import write

COMPARED = ("student", "teacher")
"""What a state's file depends on; how it was trained does not matter any more."""


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
    if not path.exists():
        there = [each.name for each in states.states(config.folder)]
        raise ValueError(
            f"{state} must be a state of the run, which has {', '.join(there) or 'none'}."
        )
    found = states.load(path)
    with torch.inference_mode(False):
        task = Distillation(HostDenoiser(model), config.training, config.student, config.loss)
        own = task.made_with()
        require_same(
            path, *({key: each.get(key) for key in COMPARED} for each in (found.made_with, own))
        )
        parameters = {name: p for name, p in task.named_parameters() if p.requires_grad}
        states.copy_into(parameters, found.average or found.weights, str(path))
        target = config.output.with_stem(f"{config.output.stem}_step_{found.step}")
        write(target, task, config)
    return target
