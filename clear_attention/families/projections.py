"""Projections: the linear layers of a block's attention, in a checkpoint and in the host's model.

Checkpoints keep queries, keys and values apart; hosts may fuse them row by row into one layer.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

Role = Literal["to_q", "to_k", "to_v", "to_out.0"]

ROLES: tuple[Role, ...] = ("to_q", "to_k", "to_v", "to_out.0")
QKV = ("qkv", "qkv", "qkv")
"""Host's layers of queries, keys and values where one layer has them all."""


class Widths(NamedTuple):
    """Widths of the projections of one kind of attention.

    Keys and values are narrower than queries where several query heads share one of their heads.
    """

    hidden: int
    """Of what goes into queries, keys and values, and of what comes out."""
    query: int
    key: int
    """Of values, too."""

    @classmethod
    def square(cls, hidden: int) -> Widths:
        """Return the widths of projections that are all as wide as the model."""
        return cls(hidden, hidden, hidden)


@dataclass(frozen=True)
class Layer:
    """One trained linear layer; ``{}`` in the names stands for the block's index.

    Attributes:
        file: Name in the checkpoint, without ``.weight``.
        host: Name of the layer in the host's diffusion model, which may hold others besides.
        role: What it projects to.
        biased: Whether it has a bias.
    """

    file: str
    host: str
    role: Role
    biased: bool = True

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of its tensors."""
        return ("weight", "bias") if self.biased else ("weight",)

    def shape(self, widths: Widths) -> tuple[int, int]:
        """Return the rows and columns of its weight."""
        if self.role == "to_out.0":
            return widths.hidden, widths.query
        return (widths.query if self.role == "to_q" else widths.key), widths.hidden


@dataclass(frozen=True)
class BlockKind:
    """The trained tensors of one kind of attention.

    Attributes:
        name: What the rest of the pack calls it: ``double``, ``single``; ``joint``, ``image``.
        layers: Its projections; those that the host fuses, in the order of their rows.
        pooling: Name of the pooling weights in the checkpoint, ``{}`` for the block's index.
        optional: Whether a checkpoint may have none of these tensors.
        own_widths: Whether projections may be narrower or wider than the model.
    """

    name: str
    layers: tuple[Layer, ...]
    pooling: str
    optional: bool = False
    own_widths: bool = False

    def row(self, layer: Layer, widths: Widths) -> int:
        """Return the first row of a layer within the host's."""
        before = self.layers[: self.layers.index(layer)]
        return sum(each.shape(widths)[0] for each in before if each.host == layer.host)

    def rows(self, host: str, widths: Widths) -> int:
        """Count the trained rows of a layer of the host's."""
        return sum(each.shape(widths)[0] for each in self.layers if each.host == host)


def attention(
    name: str,
    host: str,
    layers: Sequence[str] = ROLES,
    *,
    file: str = "",
    biased: Collection[Role] = ROLES,
    optional: bool = False,
    own_widths: bool = False,
) -> BlockKind:
    """Describe one kind of attention.

    Args:
        name: See `BlockKind`.
        host: The host's module that has the projections, ``{}`` for the block's index.
        layers: Its layers of queries, keys, values and, where it has one to itself, output; a
            layer that fuses several comes several times.
        file: The checkpoint's name of the attention, whose layers are then called as in `ROLES`.
            Empty for the host's own names, and those of `ROLES` for what the host fuses.
        biased: Which of them have a bias.
        optional: See `BlockKind`.
        own_widths: See `BlockKind`.
    """

    def file_name(layer: str, role: Role) -> str:
        own = not file and layers.count(layer) == 1
        return f"{file or host}.{layer if own else role}"

    return BlockKind(
        name=name,
        layers=tuple(
            Layer(file_name(layer, role), f"{host}.{layer}", role, role in biased)
            for layer, role in zip(layers, ROLES, strict=False)
        ),
        pooling=f"{file or host}.processor.spatial_weight",
        optional=optional,
        own_widths=own_widths,
    )


def grouped(name: str, host: str, layers: Sequence[str] = ROLES, *, file: str = "") -> BlockKind:
    """Describe an attention without biases, whose heads of keys serve several heads of queries."""
    return attention(name, host, layers, file=file, biased=(), own_widths=True)
