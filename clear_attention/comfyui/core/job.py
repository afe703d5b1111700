"""What a MODEL is to the planner: its dimensions, and the calls that its settings ask for."""

from __future__ import annotations

import torch
from comfy.model_patcher import ModelPatcher

from ...families.network import Job, Network
from ...layout import TokenLayout
from ..families import plain_module, require_family
from .settings import Settings


def network_of(model: ModelPatcher) -> Network:
    """Read the dimensions of a MODEL from its layers.

    Raises:
        ValueError: Its architecture is not supported.
    """
    family = require_family(model)
    module = plain_module(model.get_model_object("diffusion_model"))
    return family.network(module)


def dtype_of(model: ModelPatcher) -> torch.dtype:
    """Return the dtype in which a MODEL computes."""
    return model.model.manual_cast_dtype or model.model.get_dtype()


def job_of(settings: Settings, layout: TokenLayout, batch: int) -> Job:
    """Return the planner's job for one call of a model.

    Args:
        settings: What the nodes ask for.
        layout: The tokens of one picture.
        batch: Pictures in the call.
    """
    local = settings.local
    if local is None or layout.image < local.min_tokens:
        return Job(layout, batch=batch)
    return Job(
        layout,
        settings.window_of(None),
        local.pool_factor,
        batch,
        local.dense_blocks,
        local.radii,
        local.backend,
        min(1.0, local.end_percent) - max(0.0, local.start_percent),
    )
