"""The demo model as ComfyUI's own FLUX class, wrapped as the loaders of ComfyUI wrap it.

ComfyUI before 0.12 cannot load a narrow FLUX file, because it takes 24 heads for granted, so the
class is built directly.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import comfy.ldm.flux.model
import comfy.model_management
import comfy.model_patcher
import comfy.supported_models
import torch
from torch import Tensor

from .checkpoint import base_weights
from .sizes import config_of


def load_model() -> comfy.model_patcher.ModelPatcher:
    """Load the demo's model."""
    return build_model(base_weights())


def build_model(
    state: dict[str, Tensor], dtype: torch.dtype | None = None
) -> comfy.model_patcher.ModelPatcher:
    """Build the network that weights in FLUX's own names fit into, and load them.

    Args:
        state: The weights.
        dtype: To keep them in; None lets the host choose.
    """
    management = comfy.model_management
    config = comfy.supported_models.Flux({**config_of(state), **required_by_host()})
    dtype = dtype or management.unet_dtype(
        model_params=sum(weight.numel() for weight in state.values()),
        supported_dtypes=list(config.supported_inference_dtypes),
    )
    device, offload = management.get_torch_device(), management.unet_offload_device()
    config.set_inference_dtype(
        dtype, management.unet_manual_cast(dtype, device, config.supported_inference_dtypes)
    )
    model = config.get_model(state, "", device=offload)
    model.load_model_weights(dict(state), "")
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=offload)


def required_by_host() -> dict[str, Any]:
    """Return the settings that newer hosts want besides."""
    fields = dataclasses.fields(comfy.ldm.flux.model.FluxParams)
    return {"txt_ids_dims": []} if "txt_ids_dims" in [field.name for field in fields] else {}
