"""Rotary positional embedders of a MODEL: NTK scaling, and repetition around the picture."""

from __future__ import annotations

import copy
from typing import Any

import comfy.utils
from comfy.model_patcher import ModelPatcher
from torch import nn

from ..core.exact_positions import ExactEmbedder
from ..families import Embedder
from .periodic import PeriodicEmbedder, PeriodicGrid
from .scaled import ScaledEmbedder, uses_theta


def scale_theta(model: ModelPatcher, embedder: Embedder, ntk_factor: float) -> None:
    """Multiply the base of the rotary embedding on all axes of a cloned model.

    theta = 10000 * ntk_factor; positions are not rescaled (CLEAR's high-resolution recipe: 10).

    Raises:
        ValueError: The factor is not positive, the model has no rotary embedder, or the one of
            another node does not use its base.
    """
    _require_positive(ntk_factor)
    # Another node may have put its own embedder there: scale that. Of two of ours the last wins.
    path = _path(embedder)
    outer = model.get_model_object(path)
    current: Any = outer.inner if isinstance(outer, ExactEmbedder) else outer
    unscaled = getattr(current, "clear_unscaled", current)
    if ntk_factor == 1 and unscaled is current:
        return
    own = _own(model, path)
    base = embedder.base if unscaled is own else ("theta",)
    missing = [name for name in base if not hasattr(unscaled, name)]
    if missing:
        raise ValueError(
            f"The positional embedder {type(unscaled).__name__} of this model has no {missing[0]} "
            "to scale. Set ntk_factor to 1."
        )
    if unscaled is own:
        scaled = _scaled_copy(unscaled, ntk_factor, base)
    else:
        _require_theta_used(unscaled, own)
        scaled = ScaledEmbedder(unscaled, ntk_factor)
    model.add_object_patch(
        path, outer.around(scaled) if isinstance(outer, ExactEmbedder) else scaled
    )


def _own(model: ModelPatcher, path: str) -> Any:
    """Return the embedder that came with the model, whatever nodes have put in its place."""
    backup = model.object_patches_backup
    return backup[path] if path in backup else comfy.utils.get_attr(model.model, path)


def scale_number(model: ModelPatcher, path: str, ntk_factor: float) -> None:
    """Multiply the rotary base of a cloned model where it is a plain number; the last factor wins.

    Args:
        model: The clone.
        path: Of the number in the diffusion model.
        ntk_factor: See `scale_theta`.

    Raises:
        ValueError: The factor is not positive.
    """
    _require_positive(ntk_factor)
    path = f"diffusion_model.{path}"
    model.add_object_patch(path, _own(model, path) * ntk_factor)


def _require_positive(ntk_factor: float) -> None:
    if ntk_factor <= 0:
        raise ValueError(f"ntk_factor must be positive, got {ntk_factor}. 1 changes nothing.")


def _scaled_copy(own: nn.Module, ntk_factor: float, base: tuple[str, ...]) -> nn.Module:
    """Copy the model's own embedder: nobody else holds it, and torch.compile reads through it."""
    scaled: Any = copy.copy(own)
    for name in base:
        setattr(scaled, name, getattr(own, name) * ntk_factor)
    # Past torch's registry of submodules, which would list the unscaled one as a child.
    object.__setattr__(scaled, "clear_unscaled", own)
    return scaled


def _require_theta_used(unscaled: nn.Module, own: Any) -> None:
    name = type(unscaled).__name__
    try:
        used = uses_theta(unscaled, axes=len(own.axes_dim))
    except Exception as error:  # whatever another node's code raises
        raise ValueError(
            f"The positional embedder {name} that another node has put into this model cannot be "
            f"scaled: it fails on three positions ({error}). Set ntk_factor to 1."
        ) from error
    if not used:
        raise ValueError(
            f"The positional embedder {name} that another node has put into this model does not "
            "use its theta: ntk_factor would have no effect. Set ntk_factor to 1."
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
    kind = PeriodicEmbedder if embedder.by_ids else PeriodicGrid
    model.add_object_patch(
        path, kind(inner, embedder.axes, wrap_height=wrap_height, wrap_width=wrap_width)
    )


def _path(embedder: Embedder) -> str:
    return f"diffusion_model.{embedder.path}"
