"""Rotary positional embedders of a MODEL: NTK scaling, and repetition around the picture."""

from __future__ import annotations

import copy
from typing import Any

from comfy.model_patcher import ModelPatcher

from ..core.exact_positions import ExactEmbedder
from ..families import Embedder
from .periodic import PeriodicEmbedder


def scale_theta(model: ModelPatcher, embedder: Embedder, ntk_factor: float) -> None:
    """Multiply the base of the rotary embedding on all axes of a cloned model.

    theta = 10000 * ntk_factor; positions are not rescaled (CLEAR's high-resolution recipe: 10).

    Raises:
        ValueError: The factor is not positive, or the model has no rotary embedder.
    """
    if ntk_factor <= 0:
        raise ValueError(f"ntk_factor must be positive, got {ntk_factor}. 1 changes nothing.")
    # Another node may have put its own embedder there: scale that. Of two of ours the last wins.
    path = _path(embedder)
    outer = model.get_model_object(path)
    current: Any = outer.inner if isinstance(outer, ExactEmbedder) else outer
    unscaled = getattr(current, "clear_unscaled", current)
    if ntk_factor == 1 and unscaled is current:
        return
    if not hasattr(unscaled, "theta"):
        raise ValueError(
            f"The positional embedder {type(unscaled).__name__} of this model has no theta to "
            "scale. Set ntk_factor to 1."
        )
    scaled = copy.copy(unscaled)
    scaled.theta = unscaled.theta * ntk_factor
    # Past torch's registry of submodules, which would list the unscaled one as a child.
    object.__setattr__(scaled, "clear_unscaled", unscaled)
    model.add_object_patch(
        path, outer.around(scaled) if isinstance(outer, ExactEmbedder) else scaled
    )


def make_periodic(
    model: ModelPatcher, embedder: Embedder, *, wrap_height: bool, wrap_width: bool
) -> None:
    """Make the positions of a cloned model repeat around the picture; of two calls the last wins.

    Whatever embedder is there stays inside, also one that `scale_theta` puts there later.
    """
    path = _path(embedder)
    current = model.get_model_object(path)
    inner = current.inner if isinstance(current, ExactEmbedder) else current
    model.add_object_patch(
        path,
        PeriodicEmbedder(inner, embedder.axes, wrap_height=wrap_height, wrap_width=wrap_width),
    )


def _path(embedder: Embedder) -> str:
    return f"diffusion_model.{embedder.path}"
