"""What a run shows at each validation: a plot of the losses, pictures by teacher and student."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...distill import loss_figure, page
from ...distill.ahead.duration import SHOWN
from ...distill.config import RunConfig
from ...distill.data.source import Source
from ...distill.tasks import Distillation
from ...distill.updates.best import Best
from ..core.patch import with_window
from ..core.pictures import save_picture
from ..families import require_family
from .data.sampling import Painter, Prompt, request_to_stop_kept
from .denoiser import HostDenoiser, window_settings
from .watcher import Watcher

LOSSES = "losses.png"


@dataclass(frozen=True, eq=False)
class Validation:
    """What is shown of a run at a validation.

    Attributes:
        task: What is trained.
        held_out: Whose samples are painted again; None for no pictures.
        painter: How pictures are sampled.
        config: The run.
        watcher: Gets the pictures.
        best: The best validation so far.
    """

    task: Distillation
    held_out: Source | None
    painter: Painter
    config: RunConfig
    watcher: Watcher
    best: Best

    def show(self, step: int) -> None:
        """Draw the losses, hand pictures to the watcher if it takes any, and renew the page."""
        draw_losses(self.config.folder)
        self._paint(step)
        page.write(self.config, step, self.best)

    def _paint(self, step: int) -> None:
        if not self.watcher.pictures or not self.held_out:
            return
        self.watcher.progress("training", step, self.config.training.steps)
        with request_to_stop_kept():
            self.watcher.pictures(step, *paint_both(self.task, self.held_out, self.painter))
        denoiser_of(self.task).load()  # the VAE may have taken its place


def draw_losses(folder: Path) -> None:
    """Draw the losses so far into the run's folder, where matplotlib is installed."""
    with suppress(ModuleNotFoundError):  # the table in log.csv is there in any case
        save_picture(loss_figure.draw(folder), folder / LOSSES)


def paint_both(
    task: Distillation, data: Source, painter: Painter, count: int = SHOWN
) -> tuple[Tensor, Tensor]:
    """Paint held-out samples again as the teacher and as the student, from the same seeds.

    Returns:
        Latents of the two, ``[count, C, H, W]`` each, as a VAE gives them.
    """
    bucket = data.buckets()[0]
    samples = bucket.load(range(min(count, len(bucket))))
    prompts = [
        Prompt(context[None], pooled[None])
        for context, pooled in zip(samples.context, samples.pooled, strict=True)
    ]
    model = denoiser_of(task).patcher
    latent_px = require_family(model).data.latent_px
    size_px = (samples.latent.shape[-2] * latent_px, samples.latent.shape[-1] * latent_px)
    seeds = [int(seed) for seed in samples.seed]
    with torch.no_grad():
        of_teacher = painter.paint(model, prompts, seeds, size_px)
        with as_student(task) as student:
            of_student = painter.paint(student, prompts, seeds, size_px)
    return of_teacher, of_student


@contextmanager
def as_student(task: Distillation) -> Generator[ModelPatcher]:
    """Give a clone of the teacher that samples as the student for the length of the ``with``."""
    denoiser = denoiser_of(task)
    student = with_window(denoiser.patcher, window_settings(task.local))
    with task.student.attached(denoiser.network):
        yield student


def denoiser_of(task: Distillation) -> HostDenoiser:
    """Return the host's model of a task."""
    assert isinstance(task.denoiser, HostDenoiser)
    return task.denoiser
