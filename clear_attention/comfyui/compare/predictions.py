"""A model's velocities on a finished picture, to which noise is added again."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import comfy.model_sampling
import comfy.sample
import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...compare.velocity import LEVELS, velocity
from ..core.patch import SETTINGS_KEY
from .painting import OnStep, Task


def velocities(
    model: ModelPatcher,
    task: Task,
    picture: Tensor,
    seed: int,
    on_step: OnStep,
    levels: Sequence[float] = LEVELS,
) -> list[Tensor]:
    """Predict the velocity at some noise levels, without guidance: the model's own output.

    All levels are one run of the host's sampler, so that conditioning, ControlNets and references
    are prepared as for a picture.

    Args:
        model: A MODEL, left as it is.
        task: With the prompt.
        picture: Finished latent, as a VAE takes it.
        seed: Of the noise, which is the one that the picture was painted from.
        on_step: Follows the calls of the model.
        levels: Noise levels, falling.

    Returns:
        A tensor per level, of the picture's shape, in float32.
    """
    sampling = model.get_model_object("model_sampling")
    sigmas = torch.tensor([*(sigma_of(sampling, level) for level in levels), 0.0])
    clean, noise = model.model.process_latent_in(picture), task.noise(seed)
    found: list[Tensor] = []

    def predict(
        denoiser: Any, x: Tensor, sigmas: Tensor, extra_args: Any = None, **_: Any
    ) -> Tensor:
        denoised = x
        for sigma, level in zip(sigmas[:-1], levels, strict=True):
            given = sampling.noise_scaling(sigma, noise.to(x), clean.to(x))
            denoised = denoiser(given, sigma * x.new_ones(x.shape[0]), **(extra_args or {}))
            found.append(velocity(on_path(sampling, given, level), denoised, level).float().cpu())
            on_step(denoised)
        return denoised

    comfy.sample.sample_custom(
        silent(model),
        noise,
        1.0,  # no guidance, which multiplies errors
        comfy.samplers.KSAMPLER(predict),
        sigmas,
        task.positive,
        task.positive,
        picture,
        disable_pbar=True,
        seed=seed,
    )
    return found


def sigma_of(sampling: Any, level: float) -> float:
    """Return the host's sigma for a noise level of the straight path from a picture to noise.

    Models that are no flow-matching ones add noise to a picture that keeps its size: the same ratio
    of both is at another sigma.
    """
    return level if _is_flow(sampling) else level / (1 - level)


def on_path(sampling: Any, given: Tensor, level: float) -> Tensor:
    """Return a model's noisy input on the straight path, see `sigma_of`."""
    return given if _is_flow(sampling) else given * (1 - level)


def _is_flow(sampling: Any) -> bool:
    return isinstance(sampling, comfy.model_sampling.CONST)


def silent(model: ModelPatcher) -> ModelPatcher:
    """Return a clone whose run is shown on no node: four calls say nothing about a picture's."""
    model = model.clone()
    options = model.model_options.get("transformer_options", {})
    if SETTINGS_KEY in options:
        options[SETTINGS_KEY] = dataclasses.replace(options[SETTINGS_KEY], node_ids=(), about=())
    return model
