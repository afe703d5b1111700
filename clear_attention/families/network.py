"""What the planner plans: one call of a FLUX or an SD3, by the dimensions of its layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from ..layout import TokenLayout
from ..pooling import Pooling
from ..window import Window


@dataclass(frozen=True)
class Job:
    """One call of a model.

    Attributes:
        layout: The tokens of one picture.
        window: The disc, or None for full attention.
        pool_factor: Edge of a pooled cell in tokens, 0 without pooling.
        batch: Pictures in the call.
        dense: Number of attentions of each kind that stay full.
        backend: "auto", or the name of the backend that is asked for.
        local_share: Share of a run's calls that have the window; the others are full.
    """

    layout: TokenLayout
    window: Window | None = None
    pool_factor: int = 0
    batch: int = 1
    dense: Mapping[str, int] = field(default_factory=dict)
    backend: str = "auto"
    local_share: float = 1.0

    @property
    def pooling(self) -> Pooling | None:
        """The pooled branch, or None."""
        return Pooling(self.pool_factor) if self.pool_factor > 1 else None

    def full(self) -> Job:
        """Return the same call with full attention."""
        return replace(self, window=None)

    def local(self) -> Job:
        """Return the same call as it is where the window is on."""
        return replace(self, local_share=1.0)


Attends = Literal["", "all", "image"]


@dataclass(frozen=True)
class Live:
    """Tensors that exist at once, at some moment in a block, as multiples of their width.

    Attributes:
        hidden: Tensors as wide as the hidden size.
        mlp: Tensors as wide as the inside of the MLP.
        float32: Hidden tensors in float32, where the model computes in less.
        attends: Which tokens' attention is running; what it holds, its output included, comes on
            top, by the backend's own count.
        part: What exists besides, of the tokens of one slice.
    """

    hidden: int
    mlp: int
    float32: int = 0
    attends: Attends = ""
    part: Live | None = None


@dataclass(frozen=True)
class Blocks:
    """Blocks of one kind, which run alike; what happens to each token besides its products.

    Attributes:
        count: How many there are.
        streams: Times that a hidden tensor is normalised, modulated, gated and added.
        heads: Hidden tensors of queries and keys that are normalised and rotated.
        copies: Hidden tensors that are copied.
        mlp_copies: MLP tensors that are copied.
        moments: When memory may be at its peak.
        sliced: The same in slices of tokens, as CLEAR Low Memory computes the blocks; empty where
            it cannot.
        slices_text: Whether text lies among the tokens that are cut into slices.
    """

    count: int
    streams: int
    heads: int
    copies: int
    mlp_copies: int
    moments: tuple[Live, ...]
    sliced: tuple[Live, ...] = ()
    slices_text: bool = False


@dataclass(frozen=True)
class Attention:
    """Attentions of one kind.

    Attributes:
        kind: Of the blocks that have it, as in the model's checkpoints.
        count: How many there are.
        image_only: Whether text takes no part.
    """

    kind: str
    count: int
    image_only: bool = False

    def layout(self, layout: TokenLayout) -> TokenLayout:
        """Return the tokens that take part."""
        return replace(layout, text=0) if self.image_only else layout

    def dense(self, dense: Mapping[str, int]) -> int:
        """Return how many of them stay full."""
        return min(self.count, dense.get(self.kind, 0))


@dataclass(frozen=True)
class Network:
    """A model's dimensions.

    Attributes:
        hidden: Width of a token, heads x head_dim.
        heads: Of each attention.
        mlp: Width inside the MLP.
        image_weights: Weights that each image token is multiplied with.
        text_weights: Weights that each text token is multiplied with.
        blocks: In the order in which they run.
        attentions: Likewise.
        latent_values: Of the latent in one token.
        position_values: Of the rotary positions of one token, 0 without.
    """

    hidden: int
    heads: int
    mlp: int
    image_weights: int
    text_weights: int
    blocks: tuple[Blocks, ...]
    attentions: tuple[Attention, ...]
    latent_values: int
    position_values: int

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.hidden // self.heads


def flux(
    *,
    hidden: int,
    heads: int,
    mlp: int,
    double: int,
    single: int,
    latent_values: int,
    input_values: int,
    context: int,
    gated: bool = False,
) -> Network:
    """Describe a FLUX.

    Args:
        hidden: Width of a token.
        heads: Of each attention.
        mlp: Width inside the MLP.
        double: Number of blocks with streams of their own for text and image.
        single: Number of blocks with one stream.
        latent_values: Of the result in one token.
        input_values: Of the input in one token, more where a picture to be filled in is added.
        context: Width of an encoded text token.
        gated: Whether the MLP multiplies two halves, so that its first layer is twice as wide.
    """
    halves = 2 if gated else 1
    # qkv, proj and two layers of the MLP; single blocks have them as linear1 and linear2
    block = 4 * hidden**2 + (halves + 1) * hidden * mlp
    every = (double + single) * block
    inside = 2 * halves  # an activation's input and output; of a gate also its own result
    doubles = Blocks(
        count=double,
        streams=2,
        heads=2,
        copies=3,  # queries, keys and values of both streams are joined
        mlp_copies=0,
        # joining, rotation, attention: x, q k v, rotated q and k; MLP: x, attention, modulated
        moments=(Live(7, 0), Live(6, 0, float32=2), Live(6, 0, attends="all"), Live(3, inside)),
        sliced=_flux_sliced(Live(3, inside)),
    )
    singles = Blocks(
        count=single,
        streams=1,
        heads=2,
        copies=1,  # attention and MLP are joined
        mlp_copies=1,
        # rotation, attention, MLP, while linear1's output of q, k, v and MLP lives on
        moments=(
            Live(8, halves, float32=2),
            Live(8, halves, attends="all"),
            Live(5, inside),
        ),
        sliced=_flux_sliced(Live(4, inside)),
        slices_text=True,
    )
    return Network(
        hidden=hidden,
        heads=heads,
        mlp=mlp,
        image_weights=every + hidden * (input_values + latent_values),
        text_weights=every + hidden * context,
        blocks=tuple(each for each in (doubles, singles) if each.count),
        attentions=(Attention("double", double), Attention("single", single)),
        latent_values=latent_values,
        position_values=2 * hidden // heads,  # a rotation matrix for each pair of values
    )


def _flux_sliced(mlp: Live) -> tuple[Live, ...]:
    """Return the moments of a block in slices: x, q k v; then x and the attention's output."""
    return (
        Live(4, 0, part=Live(7, 0, float32=2)),
        Live(4, 0, attends="all"),
        Live(2, 0, part=mlp),
    )


def sd3(
    *,
    hidden: int,
    heads: int,
    mlp: int,
    joint: int,
    image: int,
    latent_values: int,
    context: int,
) -> Network:
    """Describe an SD3, whose last block drops the text after its attention.

    Args:
        hidden: Width of a token.
        heads: Of each attention.
        mlp: Width inside the MLP.
        joint: Number of blocks.
        image: Number of those that also attend to the image alone.
        latent_values: Of the latent in one token.
        context: Width of an encoded text token.
    """
    block = 4 * hidden**2 + 2 * hidden * mlp
    plain = Blocks(
        count=joint - image,
        streams=2,
        heads=2,
        copies=3,
        mlp_copies=0,
        # attention: x, qkv, normalised q and k, joined q k v; the MLP: output, two more x, insides
        moments=(Live(9, 0, attends="all"), Live(12, 2)),
        sliced=(
            Live(4, 0, part=Live(8, 0)),
            Live(4, 0, attends="all", part=Live(6, 0)),  # the last slice's q, k and v live on
            Live(2, 0, part=Live(6, 2)),
        ),
    )
    double = Blocks(
        count=image,
        streams=3,
        heads=4,
        copies=3,
        mlp_copies=0,
        # the same with q, k and v of a second attention, which runs when the first is done
        moments=(Live(14, 0, attends="all"), Live(15, 0, attends="image"), Live(18, 2)),
        sliced=(
            Live(7, 0, part=Live(12, 0)),
            Live(7, 0, attends="all", part=Live(11, 0)),
            Live(5, 0, attends="image", part=Live(11, 0)),
            Live(3, 0, part=Live(8, 2)),
        ),
    )
    attentions = (Attention("joint", joint), Attention("image", image, image_only=True))
    return Network(
        hidden=hidden,
        heads=heads,
        mlp=mlp,
        image_weights=joint * block + image * 4 * hidden**2 + 2 * hidden * latent_values,
        text_weights=(joint - 1) * block + 3 * hidden**2 + hidden * context,
        blocks=tuple(each for each in (double, plain) if each.count),
        attentions=tuple(each for each in attentions if each.count),
        latent_values=latent_values,
        position_values=0,
    )
