"""Models for pictures beyond the trained size."""

from __future__ import annotations

from comfy.model_patcher import ModelPatcher

from .patch import with_settings
from .positions import scale_theta


def for_high_resolution(
    model: ModelPatcher, ntk_factor: float, proportional_attention: bool
) -> ModelPatcher:
    """Return a clone with scaled rotary positions and, if asked for, proportional attention.

    Args:
        model: a MODEL, left as it is.
        ntk_factor: factor on the rotary base; 1 changes nothing.
        proportional_attention: scale the softmax by `proportional_scale`.
    """
    model = with_settings(model, proportional=proportional_attention)
    scale_theta(model, ntk_factor)
    return model
