"""Models for pictures beyond the trained size."""

from __future__ import annotations

from comfy.model_patcher import ModelPatcher

from ..core.patch import with_settings
from ..families import require_family
from .embedder import scale_number, scale_theta
from .ntk_report import follow_call


def for_high_resolution(
    model: ModelPatcher,
    ntk_factor: float,
    proportional_attention: bool,
    node_id: str | None = None,
) -> ModelPatcher:
    """Return a clone with scaled rotary positions and, if asked for, proportional attention.

    Args:
        model: A MODEL, left as it is.
        ntk_factor: Factor on the rotary base; 1 changes nothing.
        proportional_attention: Scale the softmax by `proportional_scale`.
        node_id: The node that shows the report.

    Raises:
        ValueError: The model's positions are not rotary, and ntk_factor is not 1.
    """
    family = require_family(model)
    if not family.has_rotary_base and ntk_factor != 1:
        why = "no rotary positions" if not family.data.is_rotary else "positions out of reach"
        raise ValueError(
            f"{family.title} models have {why}: ntk_factor would have no effect, "
            f"got {ntk_factor:g}. Set ntk_factor to 1; proportional_attention works."
        )
    model = with_settings(
        model,
        node_id,
        proportional=proportional_attention,
        ntk_factor=ntk_factor,
        observer=follow_call,
        about=_in_words(ntk_factor, proportional_attention),
    )
    if family.embedder is not None:
        scale_theta(model, family.embedder, ntk_factor)
    elif family.theta:
        scale_number(model, family.theta, ntk_factor)
    return model


def _in_words(ntk_factor: float, proportional: bool) -> str:
    scale = "grows with the picture" if proportional else "as ever"
    return f"ntk_factor {ntk_factor:g}, softmax scale {scale}"
