"""Linear layers that are called once per slice: their weights are fetched once per block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import comfy.ops
import torch.nn.functional as F
from torch import Tensor, nn

Projection = Callable[..., Tensor]
"""``(x, start=0, stop=None)``: the outputs from start to stop of a linear layer."""

# The layers whose whole effect is `cast_bias_weight`; others (GGUF, scaled fp8) have a forward of
# their own. Weights that are on the device already are not copied by it.
PLAIN: tuple[type[nn.Module], ...] = (
    comfy.ops.disable_weight_init.Linear,
    comfy.ops.manual_cast.Linear,
)


PACK = __name__.partition(".comfyui.")[0]


@dataclass(frozen=True, eq=False)
class HeldLinear:
    """A layer whose weight, LoRAs included, is on the device in the dtype of the activations.

    Attributes:
        weight: ``[out, in]``.
        bias: ``[out]``, or None.
    """

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        bias = None if self.bias is None else self.bias[start:stop]
        return F.linear(x, self.weight[start:stop], bias)


@dataclass(frozen=True, eq=False)
class WholeLinear:
    """Any other layer: it computes all outputs, whichever are asked for."""

    layer: nn.Module

    def __call__(self, x: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        return self.layer(x)[..., start:stop]


def hold(layer: nn.Module, like: Tensor) -> Projection:
    """Return a linear layer ready to be called on many slices.

    Without this a layer that the host keeps in main memory would travel once per slice.

    Args:
        layer: Of the host, or of another node.
        like: Activations of the dtype and on the device of the slices.
    """
    if type(layer) not in PLAIN or is_changed(layer) or hasattr(layer, "_v"):
        # `_v`: the host's dynamic memory, which lends weights for the time of one call.
        return WholeLinear(layer)
    weight, bias = comfy.ops.cast_bias_weight(layer, like)
    return HeldLinear(weight, bias)


def hold_all(layers: nn.Module, like: Tensor) -> Callable[[Tensor], Tensor]:
    """Return a sequence of layers with its linear ones held, or another module as it is."""
    if type(layers) is not nn.Sequential or is_changed(layers):
        return layers
    steps = [hold(layer, like) if type(layer) in PLAIN else layer for layer in layers]

    def run(x: Tensor) -> Tensor:
        for step in steps:
            x = step(x)
        return x

    return run


def is_changed(module: nn.Module) -> bool:
    """Tell whether another node put another forward or hooks on a module."""
    hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    return "forward" in vars(module) or not all(map(_is_ours, hooks))


def _is_ours(hook: Callable[..., object]) -> bool:
    """Return whether a hook is the pack's, which names the running block."""
    return str(getattr(hook, "__module__", "")).startswith(PACK)
