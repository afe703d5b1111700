"""What a run will take on this machine, said before the first picture is painted."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comfy.model_patcher import ModelPatcher

from ...distill.ahead.disk import Disk, There, disk
from ...distill.ahead.duration import Duration, Pass, duration
from ...distill.ahead.memory import Memory, activations, estimate, trained_numbers
from ...distill.ahead.rehearsal import clock
from ...distill.config import RunConfig
from ...distill.state import states, step_of_last
from ...plan.report import duration as in_words
from ..core.job import network_of
from ..families import require_family
from ..weights.base import table_and_size
from .data.datasets import PICTURES, TRAIN
from .data.missing import Missing, data_in, held_out_of, missing_in
from .data.sampling import Prompt, encode
from .offload import bytes_on_device
from .rehearsal import Alike, captioned, mean_batch, painted, rehearsed, there
from .student_file import best_of
from .watcher import Watcher


@dataclass(frozen=True)
class Ahead:
    """What a run will take.

    Attributes:
        duration: Seconds of its parts.
        disk: Bytes that it writes.
        memory: Bytes that it holds at its peak.
        free: Bytes that are free on the disk.
        rehearsal: Seconds that were spent to know.
    """

    duration: Duration
    disk: Disk
    memory: Memory
    free: int
    rehearsal: float = 0.0

    def __str__(self) -> str:
        took = self.duration
        bound = "at most " if took.at_most else ""
        return (
            f"this run will take {bound}about {in_words(took.total)} (painting "
            f"{in_words(took.painting)}, training {in_words(took.training)}, validation "
            f"{in_words(took.validation)}), {self.disk.total / 1e9:.2g} GB on the disk (data "
            f"{self.disk.data / 1e9:.2g}, states {self.disk.states / 1e9:.2g}, files "
            f"{self.disk.files / 1e9:.2g}) and of memory {self.memory}.{self._rehearsed()}"
            f"{self._warning()}"
        )

    def _rehearsed(self) -> str:
        return f" The rehearsal took {in_words(self.rehearsal)}." if self.rehearsal else ""

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
    shards: bool = False,
    watcher: Watcher | None = None,
) -> Ahead | None:
    """Work out what a run will take; an update is rehearsed unless nothing is left to do.

    Args:
        model: The teacher.
        clip: Its text encoders.
        config: The run.
        prompts: What the teacher paints; empty where the data is there.
        shows: Whether validations paint pictures.
        processes: That share the updates.
        shards: Whether they share one student, too.
        watcher: Called before the rehearsal, and asked whether to stop.

    Returns:
        What it takes; None if the rehearsal was stopped.
    """
    watcher = watcher or Watcher(should_stop=lambda: False)
    table, size = table_and_size(model)
    training, student, generation = config.training, config.student, config.generation
    trained = trained_numbers(table, size, student.rank)
    missing = missing_in(config, prompts)
    text = None
    if clip is not None and (missing.pictures or missing.texts):
        text = encode(clip, prompts[0] if prompts else "")
    pictures = _pictures(model, config, text, missing)
    done = step_of_last(config.folder)

    def took(one: Pass) -> Duration:
        return duration(
            config,
            one,
            missing=missing.pictures,
            held_out=held_out_of(config, prompts),
            batch=mean_batch(pictures, training) if pictures else None,
            done=done,
            shows=shows,
            processes=processes,
        )

    one, rehearsal = Pass(0.0, 0.0, 0.0), 0.0
    if pictures and (missing.pictures or done < training.steps):
        watcher.message(
            "rehearsing an update on up to three sizes of picture, to tell what it takes"
        )
        started = clock()
        measured = rehearsed(
            *(model, config, pictures, watcher.should_stop),
            processes=processes,
            shards=shards,
            left=lambda one: took(one).total,
        )
        if measured is None:
            return None
        one, rehearsal = measured, clock() - started
    family = require_family(model).data
    channels = model.get_model_object("latent_format").latent_channels
    areas_px = [height * width for height, width in generation.sizes_px]
    latents_px = missing.pictures * sum(areas_px) // len(areas_px)
    latents_px += missing.encoded * config.pictures.area_px
    text_numbers = 0 if text is None else text.context.numel() + text.pooled.numel()
    return Ahead(
        took(one),
        disk(
            config,
            trained=trained,
            latents=channels * latents_px // family.latent_px**2,
            texts=missing.texts * text_numbers,
            there=There(
                done,
                len(states(config.folder)),
                config.output.exists(),
                best_of(config.output).exists(),
            ),
        ),
        estimate(
            table,
            size,
            **_teacher_bytes(model, config),
            rank=student.rank,
            optimiser=config.optimiser.name,
            ema=training.ema_decay > 0,
            activations=_activations(model, config, pictures, trained, processes),
            on_cuda=model.load_device.type == "cuda" and not shards,
        ),
        _free(config.folder),
        rehearsal,
    )


def _activations(
    model: ModelPatcher,
    config: RunConfig,
    pictures: Sequence[Alike],
    trained: int,
    processes: int,
) -> int:
    """Return the bytes that an update of the largest pictures computes with."""
    training = config.training
    found = (
        activations(
            network_of(model),
            each.layout(model),
            pictures=each.at_once(training, processes),
            trained=trained,
            half=training.precision == "bf16",
            recomputed=training.gradient_checkpointing,
        )
        for each in pictures
    )
    return max(found, default=0)


def _pictures(
    model: ModelPatcher, config: RunConfig, text: Prompt | None, missing: Missing
) -> list[Alike]:
    """Return the pictures of a run by their sizes, as far as they are known."""
    if text is not None and missing.pictures:
        pictures = painted(model, config, text)
    else:
        pictures = there(data_in(config, TRAIN))
    if config.pictures.folder is None:
        return pictures
    encoded = there(data_in(config, PICTURES))
    if not encoded and text is not None:
        encoded = captioned(model, config, text, missing.encoded)
    return pictures + encoded


def _teacher_bytes(model: ModelPatcher, config: RunConfig) -> dict[str, int]:
    """Return what of the teacher is on the device, and in main memory where it is offloaded."""
    size = int(model.model_size())
    if not config.training.offload:
        return {"teacher_bytes": size}
    return {"teacher_bytes": bytes_on_device(model), "main_bytes": size}


def _free(folder: Path) -> int:
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    return shutil.disk_usage(there).free
