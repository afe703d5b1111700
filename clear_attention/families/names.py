"""Name tables: which tensors a CLEAR checkpoint has, and which rows of the host's they become.

A table is data, and everything that depends on names is read off it, in both directions.

A layer comes in one of two forms: as its whole weight and bias, or as a change B A of its weight,
in the names of an ordinary LoRA. Changes of biases are fused and named as the host has them: its
LoRA loader drops those of single projections.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from torch import Tensor

from .projections import BlockKind, Layer, Widths

PARAMETERS = ("weight", "bias")
LORA_PREFIX = "transformer."
DOWN, UP = "lora_A.weight", "lora_B.weight"
ALPHA = "alpha"  # may be absent; divided by the rank, it is a factor of B A
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
        own_widths: Widths of the kinds whose projections are not all as wide as the model.
    """

    hidden: int
    blocks: Mapping[str, int]
    pool_factor: int
    rank: int = 0
    own_widths: Mapping[str, Widths] = field(default_factory=dict)

    def widths(self, kind: BlockKind) -> Widths:
        """Return the widths of a kind's projections."""
        return self.own_widths.get(kind.name, Widths.square(self.hidden))

    def __str__(self) -> str:
        counts = " and ".join(f"{count} {kind}" for kind, count in self.blocks.items() if count)
        own = "".join(
            f", {kind} of width {widths.hidden} to {widths.query} and {widths.key}"
            for kind, widths in self.own_widths.items()
        )
        return f"width {self.hidden} with {counts} blocks{own}"


@dataclass(frozen=True)
class NameTable:
    """The names of one model family.

    Attributes:
        family: What metadata and code call it.
        title: What users call it.
        kinds: Its kinds of transformer blocks.
        width_per_block: By how much the model is wider for each block of the first kind, where the
            family ties the two; 0 where it does not.
        lora_prefix: In front of a layer's name in a LoRA, as the host's LoRA loader knows it.
        published: Whether there are files for it that do not name their family.
    """

    family: str
    title: str
    kinds: tuple[BlockKind, ...]
    width_per_block: int = 0
    lora_prefix: str = LORA_PREFIX
    published: bool = False

    @cached_property
    def _places(self) -> dict[str, tuple[BlockKind, Layer | None, str]]:
        layers = {
            name: (kind, layer, parameter)
            for kind in self.kinds
            for layer in kind.layers
            for name, parameter in self._names_of(layer)
        }
        return {**layers, **{kind.pooling: (kind, None, "") for kind in self.kinds}}

    def _names_of(self, layer: Layer) -> Iterator[tuple[str, str]]:
        """List all tensors that any form of checkpoint has of a layer, with what each one is."""
        for parameter in layer.parameters:
            yield f"{layer.file}.{parameter}", parameter
        for parameter in (DOWN, UP, ALPHA):
            yield f"{self.lora_prefix}{layer.file}.{parameter}", parameter
        if layer.biased:
            yield f"{HOST_PREFIX}{layer.host}.{BIAS_CHANGE}", BIAS_CHANGE

    def place(self, name: str) -> Place | None:
        """Find where a tensor of a checkpoint belongs; None if the name is not in the table."""
        match = BLOCK_NAME.fullmatch(name)
        found = self._places.get(f"{match[1]}{{}}{match[3]}") if match else None
        return Place(found[0], int(match[2]), *found[1:]) if match and found else None

    def names(self, size: ModelSize) -> Iterator[str]:
        """Name all tensors that a checkpoint for a model of this size must have."""
        prefix = self.lora_prefix if size.rank else ""
        for kind in self.kinds:
            for index in range(size.blocks[kind.name]):
                for layer in kind.layers:
                    parts = (DOWN, UP) if size.rank else layer.parameters
                    yield from (f"{prefix}{layer.file.format(index)}.{part}" for part in parts)
                if size.pool_factor:
                    yield kind.pooling.format(index)

    def slices(self, size: ModelSize) -> dict[str, HostSlice]:
        """Map every trained tensor's name, pooling apart, to the host's rows that it becomes."""
        return {
            f"{layer.file.format(index)}.{parameter}": HostSlice(
                f"{layer.host.format(index)}.{parameter}",
                (0, kind.row(layer, widths), layer.shape(widths)[0]),
            )
            for kind in self.kinds
            for widths in [size.widths(kind)]
            for index in range(size.blocks[kind.name])
            for layer in kind.layers
            for parameter in layer.parameters
        }

    def shapes(self, size: ModelSize) -> dict[str, tuple[int, int]]:
        """Map every trained layer's name to its rows and columns."""
        return {
            layer.file.format(index): layer.shape(size.widths(kind))
            for kind in self.kinds
            for index in range(size.blocks[kind.name])
            for layer in kind.layers
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
