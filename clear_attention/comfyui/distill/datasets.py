"""The training and the held-out data of a run: the teacher paints what is missing of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from comfy.model_patcher import ModelPatcher

from ...distill.config import RunConfig
from ...distill.data.shards import MANIFEST, ShardFolder
from .generation import HELD_OUT_SEED, generate
from .sampling import Painter
from .teacher import fingerprint_of
from .watcher import Watcher

TRAIN, HELD_OUT = "train", "held_out"

INDEPENDENT = ("samples", "held_out_samples", "batch", "shard")
"""Settings of the generation that do not change a sample."""


def paint_missing(
    model: ModelPatcher,
    clip: Any,
    painter: Painter,
    config: RunConfig,
    prompts: Sequence[str],
    watcher: Watcher,
) -> bool:
    """Let the teacher paint the samples that are missing; return whether all are there.

    Raises:
        ValueError: The data that is there was made with other settings.
    """
    generation, teacher = config.generation, fingerprint_of(model)
    train, held_out = split(prompts, generation.held_out)
    for name, chosen, samples, seed in (
        (TRAIN, train, generation.samples, generation.seed),
        (HELD_OUT, held_out, generation.held_out_samples, generation.seed + HELD_OUT_SEED),
    ):
        whole = generate(
            model,
            clip,
            painter,
            chosen,
            ShardFolder(config.data_folder / name, made_with(config, chosen, teacher)),
            generation,
            samples=samples,
            first_seed=seed,
            progress=partial(watcher.progress, f"painting {name} data"),
            should_stop=watcher.should_stop,
        )
        if not whole:
            return False
    return True


def split(prompts: Sequence[str], held_out: int) -> tuple[Sequence[str], Sequence[str]]:
    """Split prompts into those to train on and the last ones, to validate on.

    At least one is trained on; one that is alone serves for both.
    """
    train = len(prompts) - min(held_out, len(prompts) - 1)
    return prompts[:train], prompts[train:] or prompts


def made_with(config: RunConfig, prompts: Sequence[str], teacher: str) -> dict[str, Any]:
    """Return what data depends on: more samples, larger batches or a moved file do not spoil it."""
    settings = {
        name: value for name, value in asdict(config.generation).items() if name not in INDEPENDENT
    }
    words = hashlib.sha256("\n".join(prompts).encode()).hexdigest()[:16]
    guidance = config.training.guidance
    return {**settings, "prompts": words, "guidance": guidance, "teacher": teacher}


def open_data(config: RunConfig, teacher: str) -> tuple[ShardFolder, ShardFolder | None]:
    """Open a run's data: to train on, and to validate on, if there is any.

    Raises:
        ValueError: Another model painted it.
    """
    held_out = config.data_folder / HELD_OUT
    has_held_out = (held_out / MANIFEST).exists()
    data = ShardFolder(config.data_folder / TRAIN)
    painter = data.made_with.get("teacher", teacher)  # other data has none, such as photographs
    if painter != teacher:
        raise ValueError(
            f"{data.folder} was painted by another model: its fingerprint is {painter}, that of "
            f"the model to distil is {teacher}. Take that model or another folder of data."
        )
    return data, ShardFolder(held_out) if has_held_out else None
