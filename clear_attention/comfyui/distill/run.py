"""A whole distillation in the host: check, paint data, train, write a file for CLEARLoader."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher

from ...distill.config import RunConfig
from ...distill.data.parts import Share
from ...distill.tasks import Distillation
from ...distill.updates.best import Best
from ...distill.workers.lock import held
from ...distill.workers.processes import Accelerator, any_process, make_accelerator
from ...distill.workers.sharding import sharded
from .ahead import look_ahead
from .checks import require_folder, require_possible, require_shares
from .data.datasets import (
    encode_pictures,
    open_data,
    paint_missing,
    require_pictures,
    take_in_parts,
)
from .data.missing import Missing, missing_in
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
    with held(config.folder, "trains") if accelerator.is_main_process else nullcontext():
        if not make_data(model, clip, painter, config, prompts, watcher, accelerator, vae):
            return False
        with torch.inference_mode(False):
            denoiser = HostDenoiser(model, in_main_memory=config.training.offload)
            return train_and_write(denoiser, painter, config, watcher, accelerator)


def make_data(
    model: ModelPatcher,
    clip: Any,
    painter: Painter,
    config: RunConfig,
    prompts: Sequence[str],
    watcher: Watcher,
    accelerator: Accelerator,
    vae: Any,
) -> bool:
    """Say what the run will take, and paint and encode what is missing of its data.

    Returns:
        Whether all of it is there; else the run was asked to stop.
    """
    share = Share(accelerator.process_index, accelerator.num_processes)
    with ExitStack() as stack:
        lacking = accelerator.is_main_process and missing_in(config, prompts) != Missing()
        if lacking:
            require_folder("The folder of the data", config.data_folder)
            stack.enter_context(held(config.data_folder, "makes data"))
            take_in_parts(config)  # what processes left that were killed
        if accelerator.is_main_process:
            if clip is not None:
                renew_texts(clip, config, prompts)
            say_ahead(model, clip, config, prompts, watcher, accelerator)
        accelerator.wait_for_everyone()
        # Pictures first: what is wrong with them is found before hours of painting.
        whole = encode_pictures(model, clip, vae, config, watcher, share)
        if prompts and whole:
            whole = paint_missing(model, clip, painter, config, prompts, watcher, share)
        if share.count > 1:
            watcher.message(
                f"process {share.index + 1} of {share.count} has done its share of the data, and "
                "waits for the others"
            )
        stopped = any_process(accelerator, not whole)
        if lacking:
            take_in_parts(config)
        accelerator.wait_for_everyone()
    return not stopped


def say_ahead(
    model: ModelPatcher,
    clip: Any,
    config: RunConfig,
    prompts: Sequence[str],
    watcher: Watcher,
    accelerator: Accelerator,
) -> None:
    """Say what the run will take, before the first picture; on the main process."""
    ahead = look_ahead(
        model,
        clip,
        config,
        prompts,
        shows=watcher.pictures is not None,
        processes=accelerator.num_processes,
        shards=sharded(accelerator),
        watcher=watcher,
    )
    if ahead:
        watcher.message(str(ahead))
    if config.training.offload and model.load_device.type == "cpu":
        watcher.message("training.offload has no effect on a CPU, whose memory is main memory")


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
