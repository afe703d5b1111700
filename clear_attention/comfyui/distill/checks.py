"""Checks of a run's settings, before hours of painting: the model, the blocks, the processes."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile

import comfy.ldm.flux.math
import comfy.model_sampling
import torch
from comfy.model_patcher import ModelPatcher
from torch import nn

from ...atomic_files import reason_of
from ...distill import state as states
from ...distill.config import ConfigError, RunConfig
from ...distill.identity import as_json, deciding, require_same
from ...distill.tasks import compared_blocks, radii_of
from ...distill.updates.optimisers import make_optimiser
from ...distill.workers.processes import Accelerator, require_divisible
from ...distill.workers.sharding import require_even, sharded
from ..core import host
from ..core.blocks import block_counts
from ..core.patch import settings_of
from ..families import plain_module, require_family
from ..weights.base import plain_weights, table_and_size
from .data.datasets import kinds_in, kinds_of
from .data.missing import held_out_of
from .offload import require_offloadable


def require_possible(model: ModelPatcher, config: RunConfig, prompts: Sequence[str] = ()) -> None:
    """Check that a model can be distilled with a run's settings.

    Args:
        model: The teacher.
        config: The run.
        prompts: What the teacher paints; empty takes the data that is there.

    Raises:
        ValueError: It cannot; the message says what to change.
        ImportError: The optimiser's package is missing.
    """
    require_trainable(model)
    if config.training.offload:
        require_offloadable(model)
        if not config.student.rank:
            raise ValueError(
                "With training.offload, what is trained must be small, got student.rank = 0: set a "
                "rank, such as 64; whole matrices take more than the teacher."
            )
    if not config.student.rank:
        require_plain_weights(model)
    counts = block_counts(model)
    compared_blocks(config.loss.attention_blocks, counts)
    radii_of(config.student, counts)
    make_optimiser([torch.zeros(1)], config.optimiser)
    if config.training.patience and not held_out_of(config, prompts):
        raise ValueError(
            f"training.patience needs pictures to validate on, got patience = "
            f"{config.training.patience} and none: set generation.held_out_samples where there are "
            "prompts, pictures.held_out where there is a folder of pictures, or patience to 0."
        )
    if config.output.is_dir():
        raise ValueError(f"output must be a file, got the folder {config.output}.")
    require_same_settings(config, prompts)
    require_folder("The folder of output", config.output.parent)
    require_folder("folder", config.folder)


def require_folder(name: str, folder: Path) -> None:
    """Make a folder unless it is there, and check that files can be written into it.

    Args:
        name: What to call it in an error.
        folder: The folder.

    Raises:
        ConfigError: They cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ConfigError(
            f"{name} must be one into which files can be written, got {folder} "
            f"({reason_of(error)}): take another one, or free its place."
        ) from error


def require_same_settings(config: RunConfig, prompts: Sequence[str]) -> None:
    """Check that a run goes on from its last state; what else that depends on is checked later.

    Args:
        config: The run.
        prompts: What the teacher paints; empty takes the data that is there.

    Raises:
        ValueError: The state is damaged, a setting of the training is another, or pictures of a
            folder are there now and were not before, or the other way round.
    """
    found = states.states(config.folder)
    if not found:
        return
    now = as_json(deciding(config.training, config.optimiser))
    before = states.made_with(found[-1])
    require_same(found[-1], {name: before.get(name, {}) for name in now}, now)
    data = before.get("data")
    if isinstance(data, Mapping):
        require_same_kinds(found[-1], kinds_in(data), kinds_of(config, prompts))


def require_same_kinds(state: Path, before: Sequence[str], now: Sequence[str]) -> None:
    """Check that a run learns from the kinds of pictures that its state learned from.

    Args:
        state: The state.
        before: Kinds of pictures of which it was made.
        now: Those of the run; none where there is no data.

    Raises:
        ValueError: They are others.
    """
    if now and before != now:
        raise ValueError(
            f"{state} does not fit this run: it learned from {' and '.join(before)}, and this run "
            f"has {' and '.join(now)}. Set the prompts and pictures.folder (the node's "
            "pictures_folder) back to go on; or take another name or folder, or delete the states "
            "of this one, to begin anew."
        )


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
    table, size = table_and_size(model)
    shapes = table.shapes(size).values()
    rows = {rows for rows, _ in shapes} | {student.rank, student.pool_factor}
    require_even(accelerator, config.optimiser.name, rows)


def require_trainable(model: ModelPatcher) -> None:
    """Check what can be checked of a teacher before hours of painting.

    Raises:
        ValueError: CLEAR does not know its architecture, its attention is local already, or the
            host cannot train it.
    """
    family = require_family(model)
    table_and_size(model)
    if not isinstance(model.get_model_object("model_sampling"), comfy.model_sampling.CONST):
        raise ValueError(
            "The model to distil must be a rectified flow, whose noisy latents are (1 - sigma) "
            f"latent + sigma noise, and {family.title} models are none."
        )
    if settings_of(model).local is not None:
        raise ValueError(
            "The model to distil has a CLEAR window already, and would teach what it does not see: "
            "connect the model from in front of the CLEAR node."
        )
    # Hosts from 0.8 to 0.18 do so whenever comfy-kitchen is installed; newer ones ask first.
    fused = comfy.ldm.flux.math.apply_rope.__module__.startswith("comfy_kitchen")
    if family.data.is_rotary and fused:
        raise ValueError(
            f"ComfyUI {host.HOST_VERSION} with comfy-kitchen cannot train {family.title}: its "
            "fused rotary positions have no gradient. Update ComfyUI to 0.19 or newer."
        )
    if _always_fuses(family.blocks[0].of(plain_module(model.model.diffusion_model))):
        raise ValueError(
            f"ComfyUI {host.HOST_VERSION} cannot train {family.title} models: it normalises and "
            "rotates their queries and keys in one operation, which has no gradient."
        )


def _always_fuses(blocks: Sequence[nn.Module]) -> bool:
    """Return whether blocks call comfy-kitchen's fused operation even in training.

    The others ask the host first. There is nothing to see on a module, so the code is read.
    """
    code = inspect.getsource(sys.modules[type(blocks[0]).__module__])
    return "rms_rope" in code and "in_training" not in code


def require_plain_weights(model: ModelPatcher) -> None:
    """Check that a file of whole weights can be written: W + D needs a W that is not quantised.

    Raises:
        ValueError: The teacher's projections are quantised.
    """
    table, size = table_and_size(model)
    otherwise = ", or set a rank, which works with quantised models too"
    plain_weights(model, table.slices(size).values(), "The model to distil", otherwise)
