"""The host's network of a VAE of TAESD's form, with an eighth of its channels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

PUBLISHED, WIDTH = 64, 8
"""Channels of TAESD's layers, and of those here."""


def narrowed(vae: Any, weights: Mapping[str, Tensor]) -> Any:
    """Put narrow convolutions of the host's own class in place of a VAE's, and load weights.

    Args:
        vae: A VAE of TAESD's form, as the host's loader made it; it is changed.
        weights: Of both networks, under the names that the host knows them by.

    Returns:
        The VAE.
    """
    network = vae.first_stage_model
    for module in list(network.modules()):
        for name, layer in module.named_children():
            if isinstance(layer, nn.Conv2d):
                setattr(module, name, _narrow(layer))
    network.load_state_dict(weights)
    return vae


def _narrow(layer: nn.Conv2d) -> nn.Conv2d:
    channels = (
        WIDTH if width == PUBLISHED else width for width in (layer.in_channels, layer.out_channels)
    )
    return type(layer)(
        *channels,
        **dict(kernel_size=layer.kernel_size, stride=layer.stride, padding=layer.padding),
        **dict(bias=layer.bias is not None, dtype=layer.weight.dtype, device=layer.weight.device),
    )
