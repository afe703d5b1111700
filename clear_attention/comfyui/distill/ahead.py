"""What a run will take on this machine, said before the first picture is painted."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher

from ...distill.ahead.disk import Disk, disk
from ...distill.ahead.duration import Duration, Pass, duration
from ...distill.ahead.memory import Memory, estimate, trained_numbers
from ...distill.config import RunConfig
from ...distill.data.shards import ShardFolder
from ...distill.state import step_of_last
from ...families.block_text import parse_radii
from ...layout import TokenLayout
from ...plan.cost import attention_seconds, seconds
from ...plan.rates import measure
from ...plan.report import duration as in_words
from ..core.job import job_of, network_of
from ..core.patch import settings_of
from ..core.settings import WindowSettings
from ..families import require_family
from ..plan.model import machine_of, token_px
from ..weights.base import table_and_size
from .data.datasets import TRAIN
from .data.missing import Missing, data_in, missing_in
from .data.sampling import encode
from .offload import bytes_on_device


@dataclass(frozen=True)
class Ahead:
    """What a run will take.

    Attributes:
        duration: Seconds of its parts.
        disk: Bytes that it writes.
        memory: Bytes that it holds for its whole length.
        free: Bytes that are free on the disk.
    """

    duration: Duration
    disk: Disk
    memory: Memory
    free: int

    def __str__(self) -> str:
        took = self.duration
        return (
            f"this run will take about {in_words(took.total)} (painting "
            f"{in_words(took.painting)}, training {in_words(took.training)}, validation "
            f"{in_words(took.validation)}), {self.disk.total / 1e9:.2g} GB on the disk (data "
            f"{self.disk.data / 1e9:.2g}, states {self.disk.states / 1e9:.2g}, files "
            f"{self.disk.files / 1e9:.2g}) and of memory {self.memory}.{self._warning()}"
        )

    def _warning(self) -> str:
        if self.disk.total <= self.free:
            return ""
        return f" The disk has {self.free / 1e9:.2g} GB left: free some, or take another folder."


def look_ahead(
    model: ModelPatcher,
    clip: Any,
    config: RunConfig,
    prompts: Sequence[str],
    *,
    shows: bool,
    processes: int,
) -> Ahead:
    """Work out what a run will take; the machine is measured for a second or two.

    Args:
        model: The teacher.
        clip: Its text encoders.
        config: The run.
        prompts: What the teacher paints; empty where the data is there.
        shows: Whether validations paint pictures.
        processes: That share the updates.
    """
    table, size = table_and_size(model)
    student, generation = config.student, config.generation
    trained = trained_numbers(table, size, student.rank)
    missing = missing_in(config, prompts)
    text_tokens, text = _text_of(clip, prompts, missing, data_in(config, TRAIN))
    family = require_family(model).data
    channels = model.get_model_object("latent_format").latent_channels
    areas_px = [height * width for height, width in generation.sizes_px]
    latents_px = missing.pictures * sum(areas_px) // len(areas_px)
    latents_px += missing.encoded * config.pictures.area_px
    return Ahead(
        duration(
            config,
            one_pass(model, config, text_tokens, trained),
            missing=missing.pictures,
            held_out=generation.held_out_samples,
            done=step_of_last(config.folder),
            shows=shows,
            processes=processes,
        ),
        disk(
            config,
            trained=trained,
            latents=channels * latents_px // family.latent_px**2,
            texts=missing.texts * text,
        ),
        estimate(
            table,
            size,
            **_teacher_bytes(model, config),
            rank=student.rank,
            optimiser=config.optimiser.name,
            ema=config.training.ema_decay > 0,
        ),
        _free(config.folder),
    )


def one_pass(model: ModelPatcher, config: RunConfig, text_tokens: int, trained: int) -> Pass:
    """Return the seconds of a picture's way through the model, the mean over the run's sizes.

    Args:
        model: The teacher.
        config: The run.
        text_tokens: Of a prompt.
        trained: Numbers that are trained.
    """
    student, network, machine = config.student, network_of(model), machine_of(model)
    local = WindowSettings(
        student.radius,
        pool_factor=student.pool_factor,
        radii=parse_radii(student.radii),
        backend=student.backend,
    )
    settings = settings_of(model).with_window(local)
    found: list[tuple[float, float, float]] = []
    for edges in config.generation.sizes_px:
        height, width = (math.ceil(edge / token_px(model)) for edge in edges)
        job = job_of(settings, TokenLayout(text_tokens, height, width), 1)
        rates = measure(network, job, machine)
        full, behind = (attention_seconds(network, each, rates) for each in (job.full(), job))
        found.append((seconds(network, job.full(), rates) - full, full, behind))
    means = [sum(column) / len(found) for column in zip(*found, strict=True)]
    return Pass(*means, trained=min(1.0, trained / network.image_weights))


def _text_of(
    clip: Any, prompts: Sequence[str], missing: Missing, there: ShardFolder
) -> tuple[int, int]:
    """Return a prompt's tokens, and the numbers that are kept of it."""
    if clip is None or not (missing.pictures or missing.texts):
        return (there.shards[0].text_tokens if there.shards else 0), 0
    with torch.no_grad():
        first = encode(clip, prompts[0] if prompts else "")
    return first.context.shape[1], first.context.numel() + first.pooled.numel()


def _teacher_bytes(model: ModelPatcher, config: RunConfig) -> dict[str, int]:
    """Return what of the teacher is on the device, and in main memory where it is offloaded."""
    size = int(model.model_size())
    if not config.training.offload:
        return {"teacher_bytes": size}
    return {"teacher_bytes": bytes_on_device(model), "main_bytes": size}


def _free(folder: Path) -> int:
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    return shutil.disk_usage(there).free
