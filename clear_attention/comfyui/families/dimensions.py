"""Read the dimensions of a host's model off its layers, whatever family it is of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import TYPE_CHECKING, Any

from torch import nn

from ...families.network import BlockSizes
from .layers import Tokens
from .modules import plain_module

if TYPE_CHECKING:
    from .family import HostBlocks, HostFamily

HEADS = ("num_heads", "heads", "n_heads", "n_local_heads", "num_attention_heads")
HEAD_DIM = ("head_dim", "dim_head", "headdim", "attention_head_dim")
"""Attributes by which the host's attention modules, or their blocks, tell their sizes."""


@dataclass(frozen=True)
class Layer:
    """A layer with weights.

    Attributes:
        name: Its own, without the number of its block.
        module: The layer.
        tokens: Which it is applied to.
        times: How often it runs for each of them.
    """

    name: str
    module: Any
    tokens: Tokens
    times: int | Fraction

    @property
    def weights(self) -> int | Fraction:
        """Weights that one of the tokens is multiplied with."""
        return self.times * weights_of(self.module)


def dimensions(family: HostFamily, model: Any) -> Mapping[str, Any]:
    """Return the arguments of `network.transformer` for a model.

    Args:
        family: Of the model.
        model: The diffusion model.

    Raises:
        ValueError: Another node has put something else in place of the blocks.
    """
    outside = list(_outside(family, model))
    layers = [*outside, *(one for kind in family.blocks for one in _inside(family, kind, model))]
    sizes = [_sizes(family, kind, model) for kind in family.blocks]
    widest = max(each.head_dim for each in sizes)
    last = next(one for one in reversed(outside) if one.tokens in ("image", "all"))
    latent_values = int(last.times * outputs_of(last.module))
    return dict(
        blocks=sizes,
        image_weights=_sum(layers, "image"),
        text_weights=_sum(layers, "text"),
        latent_values=latent_values,
        position_values=2 * widest if family.data.is_rotary else 0,
        # What comes into the last layer, in two orders, and what comes out of it.
        last_values=int(2 * last.times * inputs_of(last.module)) + 3 * latent_values,
    )


def weights_of(module: Any) -> int:
    """Return how many weights a module itself multiplies its input with."""
    if hasattr(module, "in_features"):
        return module.in_features * module.out_features
    if hasattr(module, "kernel_size"):
        return module.in_channels * module.out_channels * prod(module.kernel_size)
    # The choice of experts, whose weight is no layer.
    return getattr(module, "gating_dim", 0) * getattr(module, "n_routed_experts", 0)


def outputs_of(module: Any) -> int:
    """Return the width of a layer's output."""
    return module.out_features if hasattr(module, "out_features") else module.out_channels


def inputs_of(module: Any) -> int:
    """Return the width of a layer's input."""
    return module.in_features if hasattr(module, "in_features") else module.in_channels


def _sum(layers: list[Layer], tokens: Tokens) -> int:
    return round(sum(one.weights for one in layers if one.tokens in (tokens, "all")))


def _outside(family: HostFamily, model: nn.Module) -> Iterator[Layer]:
    """List the layers outside of the blocks that run for each token."""
    paths = tuple(f"{kind.path}." for kind in family.blocks)
    for name, module in model.named_modules():
        if weights_of(module) and not name.startswith(paths):
            yield _layer(family, model, name, module, "once")


def _inside(family: HostFamily, kind: HostBlocks, model: nn.Module) -> Iterator[Layer]:
    """List the layers of the blocks of a kind."""
    default = _default(family, kind, model)
    for block in _own_blocks(family, kind, model):
        for name, module in block.named_modules():
            if weights_of(module):
                yield _layer(family, model, f"{kind.path}.{name}", module, default)


def _layer(family: HostFamily, model: Any, name: str, module: Any, default: Tokens) -> Layer:
    layers = family.layers
    return Layer(name, module, layers.tokens(name, default), layers.times(name, model))


def _default(family: HostFamily, kind: HostBlocks, model: nn.Module) -> Tokens:
    alone = _has_streams(family, kind, model) or family.data.is_image_only(kind.kind)
    return "image" if alone else "all"


def _has_streams(family: HostFamily, kind: HostBlocks, model: nn.Module) -> bool:
    """Return whether the blocks of a kind have layers of their own for the text."""
    return any(
        family.layers.tokens(f"{kind.path}.{name}", "all") == "text"
        for block in _own_blocks(family, kind, model)[:1]
        for name, module in block.named_modules()
        if weights_of(module)
    )


def _own_blocks(family: HostFamily, kind: HostBlocks, model: nn.Module) -> list[nn.Module]:
    blocks = [plain_module(block) for block in kind.of(model)]
    foreign = next((block for block in blocks if not kind.is_own(block)), None)
    if foreign is not None:
        raise ValueError(
            f"The dimensions of {family.title} models must be read from their blocks, got "
            f"{type(foreign).__name__} in place of one. Put the CLEAR node in front of the node "
            "that replaces them."
        )
    return blocks


def _sizes(family: HostFamily, kind: HostBlocks, model: nn.Module) -> BlockSizes:
    blocks = _own_blocks(family, kind, model)
    second = next((one.name for one in family.data.kinds if one.inside == kind.kind), "")
    image_only = family.data.is_image_only(kind.kind)
    if not blocks:
        return BlockSizes(kind.kind, 0, 0, 1, 0, 0, image_only=image_only, second=second)
    block: Any = blocks[0]
    hidden, mlp, gated = _mlp(block, kind.feed_forward)
    heads = _told(block, HEADS) or 1
    times = int(family.layers.times(".".join((kind.path, *kind.feed_forward[:1])), model))
    return BlockSizes(
        kind=kind.kind,
        count=len(blocks),
        hidden=times * hidden,
        heads=heads,
        head_dim=_told(block, HEAD_DIM) or hidden // heads,
        mlp=times * mlp,
        gated=gated,
        image_only=image_only,
        streams=_has_streams(family, kind, model),
        sliced="block" if kind.sliced else "mlp",
        second=second,
        held=kind.held,
    )


def _mlp(block: nn.Module, names: tuple[str, ...]) -> tuple[int, int, bool]:
    """Return the width of a token, that inside the MLP, and whether two of these are multiplied.

    Args:
        block: That has the MLP.
        names: Of its MLPs, of which the first is read; of several experts, the first one.
    """
    if not names:  # one layer for the attention and the MLP, which the block tells the sizes of
        return _told(block, ("hidden_size", "hidden_dim")), _told(block, ("mlp_hidden_dim",)), False
    linear = [
        (name, module)
        for name, module in block.get_submodule(names[0]).named_modules()
        if hasattr(module, "in_features")
    ]
    experts = [module for name, module in linear if name.startswith("experts.0.")]
    layers: list[Any] = experts or [module for _, module in linear]
    hidden, mlp = layers[0].in_features, layers[0].out_features
    return hidden, mlp, sum(map(weights_of, layers)) == 3 * hidden * mlp


def _told(block: nn.Module, names: tuple[str, ...]) -> int:
    """Return the first of some attributes that a block or one of its modules has, or 0."""
    found = (
        getattr(module, name)
        for name in names
        for module in block.modules()
        if hasattr(module, name)
    )
    return next((value for value in found if isinstance(value, int)), 0)
