"""Everything that can be checked before hours of sampling, each with a sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import comfy.sample
from comfy.model_patcher import ModelPatcher
from comfy.samplers import KSampler
from torch import Tensor

from ...compare.config import MOST_PICTURES
from ...config.bounds import one_of
from .painting import Task

SEEDS = 2**64


def task_of(
    model: ModelPatcher,
    positive: Any,
    negative: Any,
    latent: Mapping[str, Any],
    *,
    steps: int,
    cfg: float,
    sampler: str,
    scheduler: str,
) -> Task:
    """Return what is painted.

    Args:
        model: That paints it.
        positive: CONDITIONING.
        negative: CONDITIONING.
        latent: LATENT, whose size, batch and noise mask count.
        steps: Sampling steps.
        cfg: Classifier-free guidance.
        sampler: Its name.
        scheduler: Its name.

    Raises:
        ValueError: Something cannot be sampled; the message says what.
    """
    for name, conditioning in (("positive", positive), ("negative", negative)):
        if not conditioning:
            raise ValueError(
                f"{name} must be a conditioning with at least one prompt, got an empty one. "
                "Connect the output of a text encoder."
            )
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}.")
    if not (math.isfinite(cfg) and cfg >= 0):
        raise ValueError(f"cfg must be a finite number of 0 or more, got {cfg}.")
    one_of("sampler_name", sampler, KSampler.SAMPLERS)
    one_of("scheduler", scheduler, KSampler.SCHEDULERS)
    return Task(
        positive,
        negative,
        latent_of(model, latent["samples"]),
        steps,
        cfg,
        sampler,
        scheduler,
        latent.get("noise_mask"),
        latent.get("batch_index"),
    )


def latent_of(model: ModelPatcher, samples: Tensor) -> Tensor:
    """Return a latent in a model's number of channels and dimensions.

    Raises:
        ValueError: It is none of the model's, or has several frames.
    """
    if getattr(samples, "is_nested", False) or samples.ndim not in (4, 5) or not samples.numel():
        shape = "several latents" if getattr(samples, "is_nested", False) else list(samples.shape)
        raise ValueError(f"latent must be pictures, [batch, channels, height, width], got {shape}.")
    fitted = comfy.sample.fix_empty_latent_channels(model, samples)
    channels = model.get_model_object("latent_format").latent_channels
    if fitted.shape[1] != channels:
        raise ValueError(
            f"latent must have the {channels} channels of the model, got {fitted.shape[1]}. "
            "Connect an empty latent, or one of the model's own VAE."
        )
    if fitted.ndim == 5 and fitted.shape[2] != 1:
        raise ValueError(
            f"latent must have a single frame, got {fitted.shape[2]}: CLEAR Compare paints "
            "pictures."
        )
    return fitted


def require_one_kind_of_latent(model: ModelPatcher, other: ModelPatcher) -> None:
    """Refuse two models that paint different latents.

    Raises:
        ValueError: In that case.
    """
    formats = [each.get_model_object("latent_format") for each in (model, other)]
    first, second = ((type(each).__name__, each.latent_channels) for each in formats)
    if first != second:
        raise ValueError(
            f"clear_model must paint the latents of model, {first[0]} of {first[1]} channels, got "
            f"{second[0]} of {second[1]}: connect one model with CLEAR and without."
        )


def seeds_of(seed: int, pictures: int) -> tuple[list[int], int]:
    """Return the seeds of so many pictures, and another one outside of them.

    Raises:
        ValueError: There are none, or too many pictures for a sheet.
    """
    if not 1 <= pictures <= MOST_PICTURES:
        raise ValueError(f"pictures must be from 1 to {MOST_PICTURES}, got {pictures}.")
    seeds = [(seed + at) % SEEDS for at in range(pictures + 1)]
    return seeds[:-1], seeds[-1]
