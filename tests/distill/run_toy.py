"""Train the toy's student in a process of its own: ``run_toy.py STEPS SLOW FOLDER ...``.

SLOW are seconds to wait after each step. Each folder is a run, one after the other.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path

sys.path += [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

import torch
import toy


def train(folder: Path, steps: int, slow: float) -> None:
    """Train from the last state in a folder, or from the start, and print each step."""
    training = dataclasses.replace(toy.TRAINING, steps=steps, ema_decay=0.9)
    trainer = toy.trainer(folder, training)
    trainer.resume()
    print("from", trainer.step, flush=True)

    def observe(step: int, values: object) -> None:
        time.sleep(slow)
        print(step, flush=True)

    trainer.run(observe)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for folder in sys.argv[3:]:
        train(Path(folder), int(sys.argv[1]), float(sys.argv[2]))
