"""Dimensions of any transformer for pictures, from the sizes of its blocks' layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from .description import Attends, Attention, Blocks, Live, Network
from .flux import doubles_of_flux, singles_of_flux

CutInto = Literal["", "mlp", "block"]

PLAIN, GATED = 2, 3
"""Tensors inside an MLP that exist at once: before and after the activation; a gate's two factors
and their product."""


@dataclass(frozen=True)
class Held:
    """Tensors that a host's block holds at once, which depends on how it is written.

    Attributes:
        attention: As wide as a token, during the attention.
        mlp: As wide as a token, during the MLP.
        inside: As wide as the inside of the MLP, 0 for what its kind needs at least.
    """

    attention: int = 6
    mlp: int = 4
    inside: int = 0


@dataclass(frozen=True)
class BlockSizes:
    """Blocks of one kind and their attention.

    Attributes:
        kind: Name of the attention.
        count: Number of blocks.
        hidden: Width of a token in the block.
        heads: Of the attention.
        head_dim: Width of one head.
        mlp: Width inside the MLP.
        gated: Whether the MLP multiplies two tensors of this width.
        image_only: Whether text does not pass through the block's attention.
        streams: Whether text and image have layers of their own.
        sliced: What CLEAR Low Memory computes in slices: only the ``mlp``, or the whole ``block``,
            which then is one of FLUX.
        second: Name of a second attention, to the image alone, or empty.
        held: Tensors that the block holds at once.
    """

    kind: str
    count: int
    hidden: int
    heads: int
    head_dim: int
    mlp: int
    gated: bool = False
    image_only: bool = False
    streams: bool = False
    sliced: CutInto = "mlp"
    second: str = ""
    held: Held = Held()

    @property
    def blocks(self) -> Blocks:
        """The blocks themselves."""
        if self.sliced == "block":
            return doubles_of_flux(self.count) if self.streams else singles_of_flux(self.count)
        attends: Attends = "image" if self.image_only else "all"
        inside = self.held.inside or (GATED if self.gated else PLAIN)
        attention = (Live(self.held.attention, 0, attends=attends),)
        if self.second:
            attention = (*attention, Live(self.held.attention + 1, 0, attends="image"))
        return Blocks(
            count=self.count,
            streams=3 if self.second else 2,
            heads=4 if self.second else 2,
            copies=3 if self.streams else 0,
            mlp_copies=0,
            moments=(*attention, Live(self.held.mlp, inside)),
            # The MLP's output is whole, its inside is that of a slice.
            sliced=(*attention, Live(self.held.mlp + 1, 0, part=Live(1, inside)))
            if self.sliced
            else (),
            slices_text=not self.streams,
            sliced_mlp=True,
            hidden=max(self.hidden, self.heads * self.head_dim),
            mlp=self.mlp,
            image_only=self.image_only,
        )

    @property
    def attentions(self) -> tuple[Attention, ...]:
        """Its attentions, the second one behind the first."""
        first = Attention(self.kind, self.count, self.image_only, self.heads, self.head_dim)
        if not self.second:
            return (first,)
        return first, replace(first, kind=self.second, image_only=True)


def transformer(
    *,
    blocks: Sequence[BlockSizes],
    image_weights: int,
    text_weights: int,
    latent_values: int,
    position_values: int,
    last_values: int = 0,
) -> Network:
    """Describe a transformer.

    Args:
        blocks: Its kinds of blocks, in the order in which they run.
        image_weights: Weights that each image token is multiplied with.
        text_weights: Weights that each text token is multiplied with.
        latent_values: Of the latent in one token.
        position_values: Of the rotary positions of one token, 0 without.
        last_values: Of a token that exist at once behind the blocks, where pixels are made.
    """
    last = Blocks(0, 0, 0, 0, 0, (Live(1, 0),), hidden=last_values, image_only=True)
    main = max(blocks, key=lambda each: each.count * each.hidden * each.mlp)
    return Network(
        hidden=main.hidden,
        heads=main.heads,
        mlp=main.mlp,
        image_weights=image_weights,
        text_weights=text_weights,
        blocks=(*(each.blocks for each in blocks if each.count), last),
        attentions=tuple(one for each in blocks if each.count for one in each.attentions),
        latent_values=latent_values,
        position_values=position_values,
    )
