"""One rank of a distributed update of the toy's student; the first writes the gradients."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

sys.path += [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

import torch
import toy
from accelerate import Accelerator
from safetensors.torch import save_file

if __name__ == "__main__":
    folder, target, accumulate = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    training = dataclasses.replace(toy.TRAINING, accumulate=accumulate)
    trainer = toy.trainer(folder, training, accelerator=Accelerator(cpu=True))
    trainer.update()
    if trainer.accelerator.is_main_process:
        gradients = {name: p.grad for name, p in trainer.parameters.items()}
        processes = torch.tensor(trainer.accelerator.num_processes)
        save_file({"processes": processes, **gradients}, target)
    # Torn down while the other still works, gloo ends the process instead of the group.
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()
