"""One process of several that train the toy's student; the first writes what came of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path += [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

import torch
import toy
from safetensors.torch import save_file
from torch import Tensor

from clear_attention.distill.config import Optimiser, StudentConfig, Training
from clear_attention.distill.trainer import Trainer
from clear_attention.distill.workers.processes import leave, make_accelerator
from clear_attention.distill.workers.sharding import whole

RESULT = "result.safetensors"


def run(trainer: Trainer, stop_at: int = 0) -> dict[str, Tensor]:
    """Train, from the last state if there is one, and return what every process agrees on.

    Args:
        trainer: Of the toy.
        stop_at: Step to stop at; 0 goes to the end.

    Returns:
        Losses of the result, computed by the first process alone while the others wait; the last
        gradients and the final weights, whole; how many numbers this process held.
    """
    trainer.resume()
    alone: dict[str, Tensor] = {}

    def validated(step: int) -> None:
        assert trainer.held_out is not None
        with trainer.task.context(), torch.no_grad():
            terms = trainer.task(trainer.held_out.draw(0))
        alone.update({f"alone/{name}": term for name, term in terms.items()})

    trainer.run(should_stop=lambda: trainer.step == stop_at > 0, validated=validated)
    parameters = trainer.parameters
    held = sum(getattr(p, "to_local", lambda p=p: p)().numel() for p in parameters.values())
    gradients = {
        f"gradient/{name}": whole(p.grad) for name, p in parameters.items() if p.grad is not None
    }
    weights = {f"weight/{name}": whole(p.detach()) for name, p in parameters.items()}
    return {"held": torch.tensor(held), **alone, **gradients, **weights}


def main(folder: Path, settings: dict[str, Any]) -> int:
    """Be one of the processes."""
    accelerator = make_accelerator(cpu=True)
    trainer = toy.trainer(
        folder,
        Training(**settings["training"]),
        StudentConfig(**settings["student"]),
        optimiser=Optimiser(**settings["optimiser"]),
        accelerator=accelerator,
    )
    result = run(trainer, settings["stop_at"])
    if accelerator.is_main_process:
        save_file(result, folder / RESULT)
    return leave(accelerator, 0)


if __name__ == "__main__":
    torch.set_num_threads(1)
    raise SystemExit(main(Path(sys.argv[1]), json.loads(sys.argv[2])))
