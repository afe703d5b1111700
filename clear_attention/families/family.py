"""Family: what the library knows of a model architecture, as data, without the host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from .names import NameTable
from .network import Network, transformer

Part = Literal["text", "image", "padding", "references"]
Positions = Literal["rotary", "table"]

TEXT_FIRST: tuple[Part, ...] = ("text", "image", "padding", "references")
IMAGE_FIRST: tuple[Part, ...] = ("image", "padding", "references", "text")


@dataclass(frozen=True)
class AttentionKind:
    """Attentions of one kind, by the name that users, checkpoints and reports give them.

    Attributes:
        name: Such as ``double``; the name of the kind of blocks, unless `inside` is another's.
        inside: For a second attention that a block has among image tokens alone: the kind of
            that block. Empty for the attention of text and image.
        image_only: Whether text takes no part, in a block without another attention.
    """

    name: str
    inside: str = ""
    image_only: bool = False


@dataclass(frozen=True)
class Family:
    """A model architecture.

    Attributes:
        key: What metadata and code call it.
        title: What users call it.
        kinds: Its kinds of attention, in the order in which blocks of these kinds run.
        models: Published models of it, by the names that users know.
        head_dim: Of the published models.
        positions: ``rotary``, or ``table`` for a learned table of positions.
        network: Makes the planner's `Network` from the dimensions that `HostFamily` reads.
        names: Names of the weights in its CLEAR checkpoints; None where no such names exist.
        order: Order of the parts of its joint sequence. Parts in front of the grid need not be
            counted: what is not known is text.
        pads_to: The image is filled up behind to a multiple of so many tokens.
        cached: Whose keys and values may come from a cache, without queries.
        patch: Edge of a token in latent pixels.
        latent_px: Edge of a latent pixel in pixels.
        vae_values: Values that the host reckons its VAE to need for a pixel when it decodes.
    """

    key: str
    title: str
    kinds: tuple[AttentionKind, ...]
    models: str = ""
    head_dim: int = 128
    positions: Positions = "rotary"
    network: Callable[..., Network] = transformer
    names: NameTable | None = None
    order: tuple[Part, ...] = TEXT_FIRST
    pads_to: int = 1
    cached: Literal["text", "references"] = "references"
    patch: int = 2
    latent_px: int = 8
    vae_values: int = 2178

    @property
    def token_px(self) -> int:
        """Edge of a token in pixels."""
        return self.patch * self.latent_px

    @property
    def is_rotary(self) -> bool:
        """Whether positions are rotations of queries and keys."""
        return self.positions == "rotary"

    def is_image_only(self, kind: str) -> bool:
        """Return whether text takes no part in the attention of a kind of blocks."""
        return any(one.image_only for one in self.kinds if one.name == kind)

    def kind_of(self, block_kind: str, *, image_only: bool) -> str:
        """Return the kind of an attention.

        Args:
            block_kind: Kind of the block that calls it.
            image_only: Whether its tokens are those of the image alone.
        """
        inner = (kind.name for kind in self.kinds if image_only and kind.inside == block_kind)
        return next(inner, block_kind)
