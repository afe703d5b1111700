"""A whole distillation in the host: check, paint data, train, write a file for CLEARLoader."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher

from ...distill.config import RunConfig
from ...distill.data.parts import Share
from ...distill.tasks import Distillation
from ...distill.updates.best import Best
from ...distill.workers.processes import Accelerator, any_process, make_accelerator
from ...distill.workers.sharding import sharded
from .ahead import look_ahead
from .checks import require_possible, require_shares
from .data.datasets import (
    encode_pictures,
    open_data,
    paint_missing,
    require_pictures,
    take_in_parts,
)
from .data.renewal import renew_texts
from .data.sampling import Painter, painter_of
from .denoiser import HostDenoiser
from .student_file import StudentFiles
from .training import make_trainer, train
from .validation import Validation
from .watcher import Watcher


def distil(
    model: ModelPatcher,
    clip: Any,
    config: RunConfig,
    prompts: Sequence[str],
    watcher: Watcher,
    vae: Any = None,
) -> bool:
    """Distil a model, from where an earlier call with the same settings stopped.

    Args:
        model: The teacher, a MODEL; it stays as it is.
        clip: Its text encoders; None where the data is there already.
        config: The run.
        prompts: What the teacher paints for the student to learn from, the last ones for
            validation; empty takes the data that is there.
        watcher: Called, and asked whether to stop.
        vae: Its VAE, for pictures with captions; None where there are none.

    Returns:
        Whether the end was reached; the file is written in any case, with each state.

    Raises:
        ValueError: A setting cannot be used; the message says why.
        InterruptProcessingException: The host was asked to stop; what is done is kept.
    """
    require_possible(model, config, prompts)
    require_pictures(clip, vae, config)
    accelerator = make_accelerator(cpu=model.load_device.type == "cpu")
    require_shares(accelerator, model, config)
    painter = painter_of(config, clip)
    share = Share(accelerator.process_index, accelerator.num_processes)
    if accelerator.is_main_process:
        take_in_parts(config)  # what processes left that were killed
        if clip is not None:
            renew_texts(clip, config, prompts)
        ahead = look_ahead(
            model,
            clip,
            config,
            prompts,
            shows=watcher.pictures is not None,
            processes=share.count,
            shards=sharded(accelerator),
            watcher=watcher,
        )
        if ahead:
            watcher.message(str(ahead))
        if config.training.offload and model.load_device.type == "cpu":
            watcher.message("training.offload has no effect on a CPU, whose memory is main memory")
    accelerator.wait_for_everyone()
    # Pictures first: what is wrong with them is found before hours of painting.
    whole = encode_pictures(model, clip, vae, config, watcher, share)
    if prompts and whole:
        whole = paint_missing(model, clip, painter, config, prompts, watcher, share)
    if share.count > 1:
        watcher.message(
            f"process {share.index + 1} of {share.count} has done its share of the data, and waits "
            "for the others"
        )
    stopped = any_process(accelerator, not whole)
    if accelerator.is_main_process:
        take_in_parts(config)
    accelerator.wait_for_everyone()
    if stopped:
        return False
    with torch.inference_mode(False):
        denoiser = HostDenoiser(model, in_main_memory=config.training.offload)
        return train_and_write(denoiser, painter, config, watcher, accelerator)


def train_and_write(
    denoiser: HostDenoiser,
    painter: Painter,
    config: RunConfig,
    watcher: Watcher,
    accelerator: Accelerator,
) -> bool:
    """Train on the data that is there and write the file, unless asked to stop."""
    data, held_out = open_data(config, denoiser.fingerprint)
    task = Distillation(denoiser, config.training, config.student, config.loss)
    trainer = make_trainer(task, data, held_out, config, accelerator)
    validation = Validation(task, held_out, painter, config, watcher, trainer.best)
    files = StudentFiles(task, config)
    done = train(trainer, config, watcher, validation.show, files)
    if held_out and trainer.best.step and accelerator.is_main_process:
        watcher.message(best_sentence(trainer.best, files.best))
    return done


def best_sentence(best: Best, path: Path) -> str:
    """Say which validation was the best, and where its file is."""
    return f"the smallest held-out error was {best.error:.3g} at step {best.step}, in {path.name}"
