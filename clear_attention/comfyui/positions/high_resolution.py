"""Models for pictures beyond the trained size."""

from __future__ import annotations

from comfy.model_patcher import ModelPatcher

from ..core.patch import with_settings
from ..families.family import require_family
from .embedder import scale_theta


def for_high_resolution(
    model: ModelPatcher, ntk_factor: float, proportional_attention: bool
) -> ModelPatcher:
    """Return a clone with scaled rotary positions and, if asked for, proportional attention.

    Args:
        model: A MODEL, left as it is.
        ntk_factor: Factor on the rotary base; 1 changes nothing.
        proportional_attention: Scale the softmax by `proportional_scale`.

    Raises:
        ValueError: The model's positions are not rotary, and ntk_factor is not 1.
    """
    family = require_family(model)
    if not family.rotary and ntk_factor != 1:
        raise ValueError(
            f"{family.name} models have no rotary positions: ntk_factor would have no effect, "
            f"got {ntk_factor:g}. Set ntk_factor to 1; proportional_attention works."
        )
    model = with_settings(model, proportional=proportional_attention)
    if family.rotary:
        scale_theta(model, ntk_factor)
    return model
