"""One process of several that train the toy's student; the first writes what came of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path += [str(Path(__file__).parents[level]) for level in (2, 1, 0)]

import torch
import toy
from replay import record
from safetensors.torch import save_file
from torch import Tensor

from clear_attention.distill.config import Optimiser, StudentConfig, Training
from clear_attention.distill.trainer import Trainer
from clear_attention.distill.workers.processes import Accelerator, leave, make_accelerator


def run(trainer: Trainer, stop_at: int = 0) -> dict[str, Tensor]:
    """Train, from the last state if there is one, and return what every process agrees on.

    Args:
        trainer: Of the toy.
        stop_at: Step to stop at; 0 goes to the end.

    Returns:
        The record of the steps; losses of the result, computed by the first process alone while
        the others wait, and on held-out data, by all together; how many numbers this process held.
    """
    trainer.resume()
    alone: dict[str, Tensor] = {}

    def validated(step: int) -> None:
        alone.update(losses_of_result(trainer))

    recorded = record(trainer, should_stop=lambda: trainer.step == stop_at > 0, validated=validated)
    parameters = trainer.parameters.values()
    held = sum(getattr(p, "to_local", lambda p=p: p)().numel() for p in parameters)
    return {"held": torch.tensor(held), **alone, **held_out_losses(trainer), **recorded}


def held_out_losses(trainer: Trainer) -> dict[str, Tensor]:
    """Validate, all processes together."""
    return {f"held_out/{name}": torch.tensor(loss) for name, loss in trainer.validate().items()}


def losses_of_result(trainer: Trainer) -> dict[str, Tensor]:
    """Compute losses with the weights that are in place now, in this process alone."""
    assert trainer.held_out is not None
    with trainer.task.context(), torch.no_grad():
        terms = trainer.task(trainer.held_out.batch([0, 1]))
    return {f"alone/{name}": term for name, term in terms.items()}


def make_trainer(folder: Path, settings: dict[str, Any], accelerator: Accelerator) -> Trainer:
    """Make the trainer of a run."""
    return toy.trainer(
        folder,
        Training(**settings["training"]),
        StudentConfig(**settings["student"]),
        optimiser=Optimiser(**settings["optimiser"]),
        accelerator=accelerator,
    )


def main(folder: Path, runs: list[dict[str, Any]]) -> int:
    """Be one of the processes; a run that is refused leaves the reason, by each process."""
    accelerator = make_accelerator(cpu=True)
    for settings in runs:
        name = settings["name"]
        try:
            trainer = make_trainer(folder / (settings["folder"] or name), settings, accelerator)
        except ValueError as error:
            rank = accelerator.process_index
            (folder / f"{name}.{rank}.txt").write_text(str(error), encoding="utf-8")
            continue
        result = run(trainer, settings["stop_at"])
        if accelerator.is_main_process:
            save_file(result, folder / f"{name}.safetensors")
    return leave(accelerator, 0)


if __name__ == "__main__":
    torch.set_num_threads(1)
    raise SystemExit(main(Path(sys.argv[1]), json.loads(sys.argv[2])))
