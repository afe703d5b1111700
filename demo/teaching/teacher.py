"""The weights from which the demo's teacher, a small FLUX, is trained."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..nodes.sizes import TRAINED


def initial_weights(seed: int = 0) -> dict[str, Tensor]:
    """Draw the weights from which training starts, float32, by FLUX's own names."""
    import comfy.ldm.flux.model
    import comfy.ops

    from ..nodes.network import required_by_host

    network = comfy.ldm.flux.model.Flux(
        **TRAINED,
        **required_by_host(),
        dtype=torch.float32,
        operations=comfy.ops.disable_weight_init,
    )
    draw = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        with torch.no_grad():
            parameter.copy_(_initial(name, parameter, draw))
    return dict(network.state_dict())


def _initial(name: str, parameter: nn.Parameter, draw: torch.Generator) -> Tensor:
    if parameter.ndim == 1:
        return torch.ones_like(parameter) if "norm" in name else torch.zeros_like(parameter)
    # Blocks start as the identity (DiT, section 3.2): their gates and the last layer give nothing.
    if any(part in name for part in ("mod.lin", "modulation", "final_layer.linear")):
        return torch.zeros_like(parameter)
    return torch.randn(parameter.shape, generator=draw) / math.sqrt(parameter.shape[1])
