"""Name tables: which tensors a CLEAR checkpoint has, and which rows of the host's they become.

Checkpoints keep to_q, to_k and to_v apart; the host fuses them row by row into one tensor. A table
is data, and everything that depends on names is read off it, in both directions.

A layer comes in one of two forms: as its whole weight and bias, or as a change B A of its weight,
in the names of an ordinary LoRA. Changes of biases are fused and named as the host has them: its
LoRA loader drops those of single projections.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from torch import Tensor

PARAMETERS = ("weight", "bias")
LORA_PREFIX = "transformer."
DOWN, UP = "lora_A.weight", "lora_B.weight"
ALPHA = "alpha"  # may be absent; divided by the rank, it is a factor of B A
FORMS = (("", PARAMETERS), (LORA_PREFIX, (DOWN, UP, ALPHA)))
HOST_PREFIX = "diffusion_model."
BIAS_CHANGE = "diff_b"  # added to a fused layer's whole bias; may be absent
BLOCK_NAME = re.compile(r"([a-z_.]+\.)(0|[1-9]\d{0,2})(\.[A-Za-z_0-9.]+)")


class HostSlice(NamedTuple):
    """Rows of one of the host's tensors, in the form in which its model patches take them."""

    key: str
    """Such as ``double_blocks.0.img_attn.qkv.weight``."""
    offset: tuple[int, int, int]
    """Dimension, first row, number of rows."""


Block = tuple[str, int]
"""A transformer block by kind and index, such as ("double", 3)."""


@dataclass(frozen=True)
class Layer:
    """One trained linear layer; ``{}`` in the names stands for the block's index.

    Attributes:
        file: Name in the checkpoint, without ``.weight``.
        host: Name of the fused layer in the host's diffusion model.
        part: Which ``hidden`` rows of the fused layer, counted in units of ``hidden``.
    """

    file: str
    host: str
    part: int


@dataclass(frozen=True)
class BlockKind:
    """The trained tensors of one kind of transformer block.

    Attributes:
        name: What the rest of the pack calls it: ``double``, ``single``; ``joint``, ``image``.
        layers: Linear layers from hidden to hidden, each with a weight and a bias.
        pooling: Name of the pooling weights in the checkpoint, ``{}`` for the block's index.
        optional: Whether a checkpoint may have none of these tensors.
    """

    name: str
    layers: tuple[Layer, ...]
    pooling: str
    optional: bool = False

    def parts(self, host: str) -> int:
        """Count the trained layers that a fused layer of the host's consists of."""
        return sum(layer.host == host for layer in self.layers)


@dataclass(frozen=True)
class Place:
    """Where a tensor of a checkpoint belongs; no layer means the block's pooling weights."""

    kind: BlockKind
    index: int
    layer: Layer | None
    parameter: str


@dataclass(frozen=True)
class ModelSize:
    """The size of a model, as far as its CLEAR checkpoint tells.

    Attributes:
        hidden: Width of the model.
        blocks: Number of blocks of each kind.
        pool_factor: Edge of a pooled cell in tokens; 0 without a pooled branch.
        rank: Rank of the changes; 0 for whole weights.
    """

    hidden: int
    blocks: Mapping[str, int]
    pool_factor: int
    rank: int = 0

    def __str__(self) -> str:
        counts = " and ".join(f"{count} {kind}" for kind, count in self.blocks.items() if count)
        return f"width {self.hidden} with {counts} blocks"


@dataclass(frozen=True)
class NameTable:
    """The names of one model family.

    Attributes:
        family: What metadata and code call it.
        title: What users call it.
        kinds: Its kinds of transformer blocks.
        width_per_block: By how much the model is wider for each block of the first kind, where the
            family ties the two; 0 where it does not.
    """

    family: str
    title: str
    kinds: tuple[BlockKind, ...]
    width_per_block: int = 0

    @cached_property
    def _places(self) -> dict[str, tuple[BlockKind, Layer | None, str]]:
        layers = {
            f"{prefix}{layer.file}.{parameter}": (kind, layer, parameter)
            for prefix, parameters in FORMS
            for kind in self.kinds
            for layer in kind.layers
            for parameter in parameters
        }
        biases = {
            f"{HOST_PREFIX}{layer.host}.{BIAS_CHANGE}": (kind, layer, BIAS_CHANGE)
            for kind in self.kinds
            for layer in kind.layers
        }
        pooling = {kind.pooling: (kind, None, "") for kind in self.kinds}
        return {**layers, **biases, **pooling}

    def place(self, name: str) -> Place | None:
        """Find where a tensor of a checkpoint belongs; None if the name is not in the table."""
        match = BLOCK_NAME.fullmatch(name)
        found = self._places.get(f"{match[1]}{{}}{match[3]}") if match else None
        return Place(found[0], int(match[2]), *found[1:]) if match and found else None

    def names(self, size: ModelSize) -> Iterator[str]:
        """Name all tensors that a checkpoint for a model of this size must have."""
        prefix, parts = (LORA_PREFIX, (DOWN, UP)) if size.rank else ("", PARAMETERS)
        for kind in self.kinds:
            for index in range(size.blocks[kind.name]):
                for layer in kind.layers:
                    yield from (f"{prefix}{layer.file.format(index)}.{part}" for part in parts)
                if size.pool_factor:
                    yield kind.pooling.format(index)

    def slices(self, size: ModelSize) -> dict[str, HostSlice]:
        """Map every trained tensor's name, pooling apart, to the host's rows that it becomes."""
        return {
            f"{layer.file.format(index)}.{parameter}": HostSlice(
                f"{layer.host.format(index)}.{parameter}",
                (0, layer.part * size.hidden, size.hidden),
            )
            for kind in self.kinds
            for index in range(size.blocks[kind.name])
            for layer in kind.layers
            for parameter in PARAMETERS
        }

    def from_host(self, state: Mapping[str, Tensor], size: ModelSize) -> dict[str, Tensor]:
        """Cut a checkpoint's trained tensors, pooling apart, out of the host's fused ones.

        Args:
            state: The host's tensors by name, with whatever else the model has.
            size: The model's width and number of blocks.

        Returns:
            Views of the given tensors, by the checkpoint's names.
        """
        return {
            name: state[rows.key].narrow(*rows.offset) for name, rows in self.slices(size).items()
        }

    def pooling_weights(self, tensors: Mapping[str, Tensor]) -> dict[Block, Tensor]:
        """Copy each block's pooling weights ``w[dy, dx]``, ``[factor, factor]``, from a checkpoint.

        Views would share memory with the whole file, which whoever copies them would copy along.
        """
        places = ((self.place(name), tensor) for name, tensor in tensors.items())
        return {
            (place.kind.name, place.index): tensor[0, 0, 0, :, 0, :, 0].clone()
            for place, tensor in places
            if place and place.layer is None
        }

    def pooling_tensors(self, weights: Mapping[Block, Tensor]) -> dict[str, Tensor]:
        """Name and shape pooling weights as a checkpoint has them; undoes `pooling_weights`."""
        names = {kind.name: kind.pooling for kind in self.kinds}
        return {
            names[kind].format(index): weight[None, None, None, :, None, :, None]
            for (kind, index), weight in weights.items()
        }
