"""A stand-in for loaders like ComfyUI-GGUF's: packed weights, patched by their own class."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@functools.cache
def classes() -> SimpleNamespace:
    """Make the classes, which need the host."""
    import comfy.lora
    import comfy.ops
    from comfy.model_patcher import ModelPatcher

    class PackedLinear(comfy.ops.manual_cast.Linear):
        """A layer whose weight is bytes, unpacked and then patched at each call."""

        def __init__(self, layer: Any) -> None:
            nn.Module.__init__(self)
            self.in_features, self.out_features = layer.in_features, layer.out_features
            self.scale = layer.weight.abs().max() / 127
            packed = (layer.weight / self.scale).round().to(torch.int8).view(torch.uint8)
            # Two values in a row of twice the length: neither dtype nor shape are those of floats.
            self.weight = nn.Parameter(packed.reshape(-1, 2), requires_grad=False)
            self.bias = layer.bias
            self.pending: list[tuple[list[Any], str]] = []

        def unpacked(self) -> Tensor:
            values = self.weight.view(torch.int8).reshape(self.out_features, self.in_features)
            return values.float() * self.scale

        def forward(self, input: Tensor) -> Tensor:
            weight = self.unpacked()
            for patches, key in self.pending:
                weight = comfy.lora.calculate_weight(patches, weight, key)
            return F.linear(input, weight.to(input), self.bias)

    class PackedPatcher(ModelPatcher):
        """Leaves the patches of packed weights to their layers."""

        def patch_weight_to_device(self, key: str, *args: Any, **kwargs: Any) -> Any:
            layer = self.model.get_submodule(key.rpartition(".")[0])
            if not isinstance(layer, PackedLinear) or not key.endswith(".weight"):
                return super().patch_weight_to_device(key, *args, **kwargs)
            layer.pending = [(self.patches[key], key)] if key in self.patches else []

        def unpatch_model(self, *args: Any, **kwargs: Any) -> None:
            for layer in self.model.modules():
                if isinstance(layer, PackedLinear):
                    layer.pending = []
            super().unpatch_model(*args, **kwargs)

        def load(self, *args: Any, **kwargs: Any) -> None:
            super().load(*args, **{**kwargs, "force_patch_weights": True})

        def clone(self, *args: Any, **kwargs: Any) -> Any:
            clone = super().clone(*args, **kwargs)
            clone.__class__ = PackedPatcher
            return clone

    return SimpleNamespace(PackedLinear=PackedLinear, PackedPatcher=PackedPatcher)


def pack(model: Any, plain: Any) -> Any:
    """Pack the weights of a MODEL's blocks, and give another one what they unpack to."""
    known = classes()
    for name, layer in list(model.model.named_modules()):
        if isinstance(layer, nn.Linear) and "_blocks." in name:
            packed = known.PackedLinear(layer)
            model.model.set_submodule(name, packed)
            plain.model.get_submodule(name).weight.data.copy_(packed.unpacked())
    return known.PackedPatcher(model.model, model.load_device, model.offload_device)
