"""Train the toy's student in a process of its own: ``run_toy.py FOLDER STEPS [SLOW]``."""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path

sys.path += [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

import torch
import toy

if __name__ == "__main__":
    folder, steps, slow = Path(sys.argv[1]), int(sys.argv[2]), float([*sys.argv, "0"][3])
    torch.set_num_threads(1)
    training = dataclasses.replace(toy.TRAINING, steps=steps, ema_decay=0.9)
    trainer = toy.trainer(folder, training)
    trainer.resume()
    print("from", trainer.step, flush=True)

    def observe(step: int, values: object) -> None:
        time.sleep(slow)
        print(step, flush=True)

    trainer.run(observe)
