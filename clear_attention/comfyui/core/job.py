"""What a MODEL is to the planner: its dimensions, and the calls that its settings ask for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher

from ...families.network import Job, Network, flux, sd3
from ...layout import TokenLayout
from ..families.family import FLUX, SD3, plain_module, require_family
from .settings import Settings


def network_of(model: ModelPatcher) -> Network:
    """Read the dimensions of a MODEL from its layers.

    Raises:
        ValueError: Its architecture is not supported.
    """
    family = require_family(model)
    return DIMENSIONS[family.name](plain_module(model.get_model_object("diffusion_model")))


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
        settings.window,
        local.pool_factor,
        batch,
        dict(Counter(kind for kind, _ in local.dense_blocks)),
        local.backend,
        min(1.0, local.end_percent) - max(0.0, local.start_percent),
    )


def _flux_network(model: Any) -> Network:
    params = model.params
    return flux(
        hidden=model.hidden_size,
        heads=model.num_heads,
        mlp=int(model.hidden_size * params.mlp_ratio),
        double=len(model.double_blocks),
        single=len(model.single_blocks),
        latent_values=model.out_channels,
        input_values=model.in_channels,
        context=params.context_in_dim,
    )


def _sd3_network(model: Any) -> Network:
    counts = SD3.blocks(model)
    hidden, block = model.hidden_size, model.joint_blocks[0].x_block
    context = getattr(model.context_embedder, "in_features", hidden)
    return sd3(
        hidden=hidden,
        heads=model.num_heads,
        mlp=block.mlp.fc1.out_features,
        joint=counts["joint"],
        image=counts.get("image", 0),
        latent_values=model.in_channels * model.patch_size**2,
        context=context,
    )


DIMENSIONS: Mapping[str, Callable[[Any], Network]] = {
    FLUX.name: _flux_network,
    SD3.name: _sd3_network,
}
