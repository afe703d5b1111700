"""Low-frequency guidance: what is painted stays, coarsely, what the smaller picture shows.

I-Max (arXiv 2410.07536) adds ``w * P(v_low - v)`` to the velocity v, where v_low leads to the
enlarged smaller picture and P keeps low frequencies. With ``x0 = x - sigma * v`` that is
``w * P(x0_low - x0)`` added to what the model takes the clean picture to be, which the host hands
out after classifier-free guidance, for models of every kind.
"""

from __future__ import annotations

from typing import Any

from comfy.model_patcher import ModelPatcher
from torch import Tensor
from torch.nn import functional

from ...sampling.pyramid import guidance_weight, progress_at


def with_low_frequency_guidance(
    model: ModelPatcher, latent: Tensor, size: tuple[int, int], strength: float, decay: float
) -> ModelPatcher:
    """Return a clone that is guided by a latent while it samples.

    Args:
        model: A MODEL, left as it is.
        latent: Of the enlarged smaller picture, as the VAE gives it, ``[B, C, H, W]``, maybe with
            a frame in front of the height.
        size: Height and width to which latents are reduced to read their low frequencies.
        strength: 1 replaces the low frequencies at the first step, 0 changes nothing.
        decay: How fast that falls to nothing over the steps; 0 keeps it.
    """
    kept: dict[str, Tensor] = {}

    # A function, not an object: the host copies objects in the options with all that they hold.
    def guide(args: dict[str, Any]) -> Tensor:
        denoised: Tensor = args["denoised"]
        sigmas: Tensor = args["model_options"]["transformer_options"]["sample_sigmas"]
        progress = progress_at(float(args["sigma"].max()), sigmas.tolist())
        weight = guidance_weight(progress, strength, decay)
        if weight == 0:
            return denoised
        if "low" not in kept:
            reference = args["model"].process_latent_in(latent.to(denoised.device))
            kept["low"] = _reduce(reference, size).to(denoised.dtype)
        difference = kept["low"] - _reduce(denoised, size)
        return denoised + weight * _enlarge(difference, denoised)

    model = model.clone()
    model.set_model_sampler_post_cfg_function(guide)
    return model


def _reduce(latent: Tensor, size: tuple[int, int]) -> Tensor:
    """Return means over areas."""
    means = functional.adaptive_avg_pool2d(latent.reshape(-1, *latent.shape[-3:]), size)
    return means.reshape(*latent.shape[:-2], *size)


def _enlarge(low: Tensor, like: Tensor) -> Tensor:
    """Return low frequencies in full size, without the steps between areas."""
    flat = low.reshape(-1, *low.shape[-3:])
    return functional.interpolate(flat, size=like.shape[-2:], mode="bilinear").reshape(like.shape)
