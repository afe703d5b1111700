"""Make the demo's models: ``python3 demo/train.py``, or parts of them, see `MAKE`.

An interrupted run goes on where it stopped. What lies in build/demo already is used.
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from demo.enter import enter
from demo.students import STUDENTS, TEACHING
from tools.environment import BASE, ensure, reexec_in_venv

if TYPE_CHECKING:
    from clear_attention.distill.config import RunConfig
    from clear_attention.distill.data.batches import DrawsBatches
    from clear_attention.distill.data.shards import ShardFolder
    from clear_attention.distill.tasks import Task
    from clear_attention.distill.trainer import Trainer

PACKAGES = ("scikit-image", "scikit-learn")  # packages that ship them
HELD_OUT = 4  # squares of each photograph, for the teacher's validations


def main(parts: list[str]) -> None:
    """Make the parts that are asked for, all by default."""
    unknown = [part for part in parts if part not in MAKE]
    if unknown:
        raise SystemExit(f"Parts must be of {', '.join(MAKE)}, got {unknown[0]}.")
    host = reexec_in_venv()
    ensure(BASE, "photographs", PACKAGES)
    enter(host)
    for part in parts or MAKE:
        MAKE[part]()


def train_codec() -> None:
    """Train the decoder of the picture codec."""
    from demo.codec import train

    train.main()


def train_teacher() -> None:
    """Train the teacher, from the one that is there if there is one, and write it in bfloat16."""
    import torch

    from clear_attention.comfyui.distill.denoiser import HostDenoiser
    from clear_attention.distill.config_file import read
    from clear_attention.distill.data.tensor_files import write_tensors
    from demo.nodes.checkpoint import MODELS, TEACHER, base_weights
    from demo.nodes.network import build_model
    from demo.teaching.placed import PlacedBatches, PlacedTraining
    from demo.teaching.squares import write_squares
    from demo.teaching.teacher import initial_weights

    config = read(TEACHING / "teacher.toml")
    held_out = write_squares(config.data_folder / "held_out", HELD_OUT, seed=1)
    start = base_weights() if (MODELS / TEACHER).exists() else initial_weights()
    start = {name: weight.float() for name, weight in start.items()}
    denoiser = HostDenoiser(build_model(start, torch.float32))
    task = PlacedTraining(denoiser, config.training)
    batches = PlacedBatches(config.training)
    with trained("teacher", task, config, batches, held_out).averaged():
        tensors = {name: t.bfloat16() for name, t in denoiser.network.state_dict().items()}
    MODELS.mkdir(exist_ok=True)
    write_tensors(MODELS / TEACHER, tensors, format="pt")


def trained(
    name: str, task: Task, config: RunConfig, batches: DrawsBatches, held_out: ShardFolder
) -> Trainer:
    """Train to the last step, from where an earlier run stopped, under a progress bar."""
    from clear_attention.distill.data.held_out import HeldOut
    from clear_attention.distill.trainer import Trainer

    trainer = Trainer(
        task,
        batches,
        config.training,
        config.optimiser,
        config.folder,
        HeldOut(held_out, config.training),
    )
    trainer.resume()
    with Bar(name, config.training.steps) as bar:
        trainer.run(bar.losses)
    return trainer


def distil_students() -> None:
    """Let the teacher paint and distil its students."""
    from clear_attention.atomic_files import written_whole
    from clear_attention.comfyui.distill.run import distil
    from clear_attention.comfyui.distill.watcher import Watcher
    from clear_attention.config.prompts import read_prompts
    from clear_attention.distill.config_file import read
    from demo.nodes.checkpoint import MODELS
    from demo.nodes.network import load_model
    from demo.nodes.text import DemoCLIP

    config = read(TEACHING / "student.toml")
    prompts = read_prompts(TEACHING / "prompts.txt")
    for name, (radius, pool_factor) in STUDENTS.items():
        folder = config.folder.with_name(Path(name).stem)
        mine = dataclasses.replace(
            config,
            output=folder / name,
            folder=folder,
            student=dataclasses.replace(config.student, radius=radius, pool_factor=pool_factor),
        )
        with Bar(name, config.training.steps) as bar:
            watcher = Watcher(progress=bar.progress, losses=bar.losses, should_stop=lambda: False)
            distil(load_model(), DemoCLIP(), mine, prompts, watcher)
        with written_whole(MODELS / name) as part:  # without the file of the best validation
            shutil.copyfile(mine.output, part)


def train_control() -> None:
    """Train the ControlNet, anew each time, and measure what it does."""
    from demo.teaching import control, control_measure

    with Bar("control", control.STEPS) as bar:
        control.train(lambda step, loss: bar.losses(step, {"loss": loss}))
    control_measure.main()


MAKE = {
    "codec": train_codec,
    "teacher": train_teacher,
    "students": distil_students,
    "control": train_control,
}


class Bar:
    """A progress bar with losses."""

    def __init__(self, name: str, steps: int) -> None:
        from tqdm import tqdm

        self.bar: Any = tqdm(total=steps, desc=name, mininterval=5)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def progress(self, what: str, done: int, of: int) -> None:
        """Show what is being done."""
        self.bar.total = of
        self.bar.update(done - self.bar.n)
        self.bar.set_description(what, refresh=False)

    def losses(self, step: int, values: Mapping[str, float]) -> None:
        """Show the losses."""
        self.bar.update(step - self.bar.n)
        self.bar.set_postfix(
            {name: f"{value:.3g}" for name, value in values.items()}, refresh=False
        )


if __name__ == "__main__":
    main(sys.argv[1:])
