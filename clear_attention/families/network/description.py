"""What the planner plans: one call of a model, by the dimensions of its layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from ...layout import TokenLayout
from ...pooling import Pooling
from ...window import Window
from ..names import Block


@dataclass(frozen=True)
class Job:
    """One call of a model.

    Attributes:
        layout: The tokens of one picture.
        window: The disc, or None for full attention.
        pool_factor: Edge of a pooled cell in tokens, 0 without pooling.
        batch: Pictures in the call.
        dense: Blocks whose attentions stay full.
        radii: Of the blocks whose disc is another one.
        backend: "auto", or the name of the backend that is asked for.
        local_share: Share of a run's calls that have the window; the others are full.
    """

    layout: TokenLayout
    window: Window | None = None
    pool_factor: int = 0
    batch: int = 1
    dense: frozenset[Block] = frozenset()
    radii: Mapping[Block, int] = field(default_factory=dict)
    backend: str = "auto"
    local_share: float = 1.0

    @property
    def pooling(self) -> Pooling | None:
        """The pooled branch, or None."""
        return Pooling(self.pool_factor) if self.pool_factor > 1 else None

    def window_of(self, block: Block) -> Window | None:
        """Return the disc of a block, None where its attention stays full."""
        if self.window is None or block in self.dense:
            return None
        return replace(self.window, radius=self.radii.get(block, self.window.radius))

    def full(self) -> Job:
        """Return the same call with full attention."""
        return replace(self, window=None)

    def with_one(self, window: Window) -> Job:
        """Return the same call with one window for all blocks."""
        return replace(self, window=window, radii={}, dense=frozenset())

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
        sliced_mlp: Whether that is so of the MLP alone, and the attention is the host's.
        hidden: Width of a token in these blocks, 0 for that of the network.
        mlp: Width inside their MLP, 0 for that of the network.
        image_only: Whether text does not pass through them.
    """

    count: int
    streams: int
    heads: int
    copies: int
    mlp_copies: int
    moments: tuple[Live, ...]
    sliced: tuple[Live, ...] = ()
    slices_text: bool = False
    sliced_mlp: bool = False
    hidden: int = 0
    mlp: int = 0
    image_only: bool = False

    def layout(self, layout: TokenLayout) -> TokenLayout:
        """Return the tokens that pass through them."""
        return replace(layout, text=0) if self.image_only else layout


@dataclass(frozen=True)
class Attention:
    """Attentions of one kind.

    Attributes:
        kind: Of the blocks that have it, as in the model's checkpoints.
        count: How many there are.
        image_only: Whether text takes no part.
        heads: Of each, 0 for those of the network.
        head_dim: Width of one head, 0 for that of the network.
    """

    kind: str
    count: int
    image_only: bool = False
    heads: int = 0
    head_dim: int = 0

    def layout(self, layout: TokenLayout) -> TokenLayout:
        """Return the tokens that take part."""
        return replace(layout, text=0) if self.image_only else layout

    def windows(self, job: Job) -> Counter[Window | None]:
        """Return how many of them have each window in a call; None stands for full attention.

        Of blocks of which some have an attention more, these are the first ones.
        """
        return Counter(job.window_of((self.kind, index)) for index in range(self.count))


@dataclass(frozen=True)
class Network:
    """A model's dimensions.

    Attributes:
        hidden: Width of a token.
        heads: Of each attention; together they are as wide as a token where nothing else is said.
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

    def windows(self, job: Job) -> list[Window]:
        """Return the windows that its attentions have in a call, the smallest first."""
        found = {window for each in self.attentions for window in each.windows(job)}
        return sorted((one for one in found if one is not None), key=lambda one: one.radius)

    def radius_text(self, job: Job) -> str:
        """Write the radius of a call for people, or the smallest and the largest of several."""
        radii = [window.radius for window in self.windows(job)]
        return str(radii[0]) if len(radii) == 1 else f"{radii[0]} to {radii[-1]}"

    def heads_of(self, *, image_only: bool) -> tuple[int, int]:
        """Return the heads and their width of the attentions of all tokens or of the image."""
        found = next((one for one in self.attentions if one.image_only == image_only), None)
        return self.heads_in(found) if found else (self.heads, self.head_dim)

    def heads_in(self, attention: Attention) -> tuple[int, int]:
        """Return the heads and their width of the attentions of a kind."""
        return attention.heads or self.heads, attention.head_dim or self.head_dim
