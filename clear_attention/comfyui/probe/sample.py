"""The state of denoising at which a model is probed, and one ordinary sampling step from there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import comfy.sample
import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor


@dataclass(frozen=True)
class Sample:
    """The state of denoising at which a model is probed.

    Attributes:
        conditioning: The host's CONDITIONING.
        latent: The host's LATENT of a finished picture, to which noise is added.
        at_percent: Share of the sampling schedule that has passed, 0 is pure noise.
        seed: Of the noise, and of the choice of queries.
    """

    conditioning: Any
    latent: Mapping[str, Any]
    at_percent: float = 0.5
    seed: int = 0

    def spread(self, levels: int) -> list[Sample]:
        """Return the sample at several noise levels: in the middles of equal parts of the schedule.

        Args:
            levels: How many; a single one is that of the sample.
        """
        if levels == 1:
            return [self]
        return [replace(self, at_percent=(level + 0.5) / levels) for level in range(levels)]


def denoise_once(model: ModelPatcher, sample: Sample) -> Tensor:
    """Add noise to the sample's latent and let the host denoise it in one step.

    Returns:
        The model's idea of the clean latent.

    Raises:
        ValueError: The latent is empty although part of it should be seen.
    """
    latent = sample.latent["samples"]
    if sample.at_percent > 0 and not latent.count_nonzero():
        raise ValueError(
            "The latent is empty, and attention on noise alone says little. Connect a picture (VAE "
            "Encode, or the latent that a sampler has finished), or set at_percent to 0."
        )
    latent = comfy.sample.fix_empty_latent_channels(model, latent)
    noise = comfy.sample.prepare_noise(latent, sample.seed)
    return comfy.sample.sample_custom(
        model,
        noise,
        1.0,  # without guidance: the one conditioning is all that runs
        comfy.samplers.sampler_object("euler"),
        torch.tensor([sigma_at(model, sample.at_percent), 0.0]),
        sample.conditioning,
        sample.conditioning,
        latent,
        disable_pbar=True,
        seed=sample.seed,
    )


def sigma_at(model: ModelPatcher, at_percent: float) -> float:
    """Return the noise level at a share of the schedule, at its end the smallest above 0."""
    sampling = model.get_model_object("model_sampling")
    return max(float(sampling.percent_to_sigma(at_percent)), float(sampling.sigma_min))
