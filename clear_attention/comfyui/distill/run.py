"""A whole distillation in the host: data, training, pictures, and a file for CLEARLoader."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from comfy.model_management import InterruptProcessingException
from comfy.model_patcher import ModelPatcher
from comfy.samplers import KSampler
from torch import Tensor

from ...distill import loss_figure, memory
from ...distill.config import RunConfig, one_of
from ...distill.data.batches import Batches
from ...distill.data.shards import MANIFEST, ShardFolder
from ...distill.optimisers import make_optimiser
from ...distill.tasks import Distillation, compared_blocks
from ...distill.trainer import Trainer
from ...distill.workers.processes import (
    Accelerator,
    any_process,
    make_accelerator,
    require_divisible,
)
from ...distill.workers.sharding import require_even, sharded
from ...weights import checkpoint, low_rank
from ..core.blocks import block_counts
from ..core.geometry import LATENT_PX
from ..core.patch import with_settings
from ..core.pictures import save_picture
from ..weights.base import table_and_size
from .denoiser import HostDenoiser, local_settings, require_plain_weights, require_trainable
from .generation import HELD_OUT_SEED, generate
from .sampling import Painter, Prompt, encode, interrupted, request_to_stop_kept

logger = logging.getLogger(__name__)

TRAIN, HELD_OUT = "train", "held_out"
LOSSES = "losses.png"


@dataclass(frozen=True)
class Watcher:
    """What a run tells its user, and asks.

    Attributes:
        progress: Told what is going on, how far it is and how far it goes.
        losses: Told the losses after each update, by its number.
        pictures: Told teacher's and student's latents at each validation, by its number.
        should_stop: Asked whether to stop; what is done is kept.
    """

    progress: Callable[[str, int, int], None] = lambda what, done, of: None
    losses: Callable[[int, Mapping[str, float]], None] = lambda step, values: None
    pictures: Callable[[int, Tensor, Tensor], None] | None = None
    should_stop: Callable[[], bool] = interrupted


def distil(
    model: ModelPatcher, clip: Any, config: RunConfig, prompts: Sequence[str], watcher: Watcher
) -> bool:
    """Distil a model, from where an earlier call with the same settings stopped.

    Args:
        model: The teacher, a MODEL; it stays as it is.
        clip: Its text encoders; None where the data is there already.
        config: The run.
        prompts: What the teacher paints for the student to learn from, the last ones for
            validation; empty takes the data that is there.
        watcher: Told and asked what happens.

    Returns:
        Whether the end was reached and the file written.

    Raises:
        ValueError: A setting cannot be used; the message says why.
        InterruptProcessingException: The host was asked to stop; what is done is kept.
    """
    # Mistakes, before hours of painting.
    require_trainable(model)
    if not config.student.rank:
        require_plain_weights(model)
    compared_blocks(config.loss.attention_blocks, block_counts(model))
    make_optimiser([torch.zeros(1)], config.optimiser)  # its package may be missing
    accelerator = make_accelerator(cpu=model.load_device.type == "cpu")
    require_shares(accelerator, model, config)
    painter = painter_of(config, clip)
    # One process paints for all; the others wait here for its answer.
    lacking = (
        bool(prompts)
        and accelerator.is_main_process
        and not generate_all(model, clip, painter, config, prompts, watcher)
    )
    if any_process(accelerator, lacking):
        return False
    with torch.inference_mode(False):
        return train(HostDenoiser(model), painter, config, watcher, accelerator)


def require_shares(accelerator: Accelerator, model: ModelPatcher, config: RunConfig) -> None:
    """Check that several processes can share the work.

    Raises:
        ValueError: They cannot; the message says what to change.
    """
    training, student = config.training, config.student
    if not training.batch_tokens:
        require_divisible(accelerator, training.batch)
    if sharded(accelerator) and not training.gradient_checkpointing:
        raise ValueError(
            "A student in shards needs the blocks to be recomputed, got gradient_checkpointing = "
            "false: set training.gradient_checkpointing = true."
        )
    rows = {table_and_size(model)[1].hidden, student.rank, student.pool_factor}
    require_even(accelerator, config.optimiser.name, rows)


def train(
    denoiser: HostDenoiser,
    painter: Painter,
    config: RunConfig,
    watcher: Watcher,
    accelerator: Accelerator,
) -> bool:
    """Train on the data that is there and write the file, unless asked to stop."""
    logger.info("CLEAR: distilling holds %s", memory_of(denoiser, config))
    data, held_out = open_data(config)
    task = Distillation(denoiser, config.training, config.student, config.loss)
    trainer = Trainer(
        task,
        Batches(data, config.training),
        config.training,
        config.optimiser,
        config.folder,
        Batches(held_out, config.training, salt=1) if held_out else None,
        accelerator,
    )
    logger.info("CLEAR: training from step %d to %d", trainer.resume(), config.training.steps)

    def observe(step: int, values: Mapping[str, float]) -> None:
        watcher.progress("training", step, config.training.steps)
        watcher.losses(step, values)

    def validated(step: int) -> None:
        draw_losses(config.folder)
        if watcher.pictures and held_out:
            watcher.progress("training", step, config.training.steps)
            with request_to_stop_kept():
                watcher.pictures(step, *compare(task, held_out, painter))
            denoiser.load()

    try:
        finished = trainer.run(observe, watcher.should_stop, validated)
    except InterruptProcessingException:  # raised by any of the host's layers
        trainer.save()
        raise
    if finished:
        with trainer.result():
            if accelerator.is_main_process:
                write(task, config)
    return finished


def draw_losses(folder: Path) -> None:
    """Draw the losses so far into the run's folder, where matplotlib is installed."""
    with suppress(ModuleNotFoundError):  # the table in log.csv is there in any case
        save_picture(loss_figure.draw(folder), folder / LOSSES)


def open_data(config: RunConfig) -> tuple[ShardFolder, ShardFolder | None]:
    """Open a run's data; there may be none for validation."""
    held_out = config.data_folder / HELD_OUT
    has_held_out = (held_out / MANIFEST).exists()
    return ShardFolder(config.data_folder / TRAIN), ShardFolder(held_out) if has_held_out else None


def painter_of(config: RunConfig, clip: Any) -> Painter:
    """Return how the run's pictures are sampled.

    Raises:
        ConfigError: The host has no such sampler or scheduler.
    """
    generation = config.generation
    one_of("generation.sampler", generation.sampler, KSampler.SAMPLERS)
    one_of("generation.scheduler", generation.scheduler, KSampler.SCHEDULERS)
    negative = encode(clip, "") if clip is not None and generation.cfg != 1 else None
    return Painter(
        generation.steps,
        generation.sampler,
        generation.scheduler,
        generation.cfg,
        config.training.guidance,
        negative,
    )


def generate_all(
    model: ModelPatcher,
    clip: Any,
    painter: Painter,
    config: RunConfig,
    prompts: Sequence[str],
    watcher: Watcher,
) -> bool:
    """Let the teacher paint whatever data is missing; return whether all is there.

    Raises:
        ValueError: The data that is there was made with other settings.
    """
    generation = config.generation
    kept = min(generation.held_out, len(prompts) - 1)
    train, held_out = prompts[: len(prompts) - kept], prompts[len(prompts) - kept :] or prompts
    for name, chosen, samples, seed in (
        (TRAIN, train, generation.samples, generation.seed),
        (HELD_OUT, held_out, generation.held_out_samples, generation.seed + HELD_OUT_SEED),
    ):

        def progress(done: int, of: int, name: str = name) -> None:
            watcher.progress(f"painting {name} data", done, of)

        if not generate(
            model,
            clip,
            painter,
            chosen,
            ShardFolder(config.data_folder / name, made_with(config, chosen)),
            generation,
            samples=samples,
            first_seed=seed,
            progress=progress,
            should_stop=watcher.should_stop,
        ):
            return False
    return True


def made_with(config: RunConfig, prompts: Sequence[str]) -> dict[str, Any]:
    """Return what data depends on: more samples, larger batches or a moved file do not spoil it."""
    settings = asdict(config.generation)
    for free in ("samples", "held_out_samples", "batch", "shard"):
        settings.pop(free)
    words = hashlib.sha256("\n".join(prompts).encode()).hexdigest()
    return {**settings, "prompts": words, "guidance": config.training.guidance}


def memory_of(denoiser: HostDenoiser, config: RunConfig) -> memory.Memory:
    """Estimate what the run holds, from the model as it is loaded."""
    tensors = denoiser.network.state_dict().values()
    return memory.estimate(
        denoiser.table,
        denoiser.size,
        teacher_bytes=sum(tensor.numel() * tensor.element_size() for tensor in tensors),
        rank=config.student.rank,
        optimiser=config.optimiser.name,
        ema=config.training.ema_decay > 0,
    )


def write(task: Distillation, config: RunConfig) -> None:
    """Write the student as the file that CLEARLoader loads."""
    config.output.parent.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = dict(
        radius=config.student.radius,
        pool_factor=config.student.pool_factor,
        base=config.base or None,
    )
    if config.student.rank:
        low_rank.save(config.output, task.student.low_rank(torch.bfloat16), **facts)
        return
    base = task.denoiser.network.state_dict()
    checkpoint.save(config.output, task.student.published(base, torch.bfloat16), **facts)


def compare(
    task: Distillation, data: ShardFolder, painter: Painter, count: int = 4
) -> tuple[Tensor, Tensor]:
    """Paint held-out samples again as the teacher and as the student, from the same seeds.

    Returns:
        Latents of the two, ``[count, C, H, W]`` each, as a VAE gives them.
    """
    shards = data.buckets()[0]
    samples = data.load(shards, range(min(count, sum(shard.samples for shard in shards))))
    prompts = [
        Prompt(context[None], pooled[None])
        for context, pooled in zip(samples.context, samples.pooled, strict=True)
    ]
    size_px = (samples.latent.shape[-2] * LATENT_PX, samples.latent.shape[-1] * LATENT_PX)
    seeds = [int(seed) for seed in samples.seed]
    assert isinstance(task.denoiser, HostDenoiser)
    model = task.denoiser.patcher
    with torch.no_grad():
        of_teacher = painter.paint(model, prompts, seeds, size_px)
        with as_student(task) as local:
            of_student = painter.paint(local, prompts, seeds, size_px)
    return of_teacher, of_student


@contextmanager
def as_student(task: Distillation) -> Generator[ModelPatcher]:
    """Give a clone of the teacher that samples as the student for the length of the ``with``."""
    assert isinstance(task.denoiser, HostDenoiser)
    local = with_settings(task.denoiser.patcher, **local_settings(task.local))
    with task.student.attached(task.denoiser.network):
        yield local
