"""What the nodes ask for: plain data that travels in a model's transformer_options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from ...families.block_text import require_blocks
from ...families.names import Block
from ...pooling import Pooling
from ...window import Window

DEFAULT_RADIUS = 16
"""Of a window for which nobody asks for another one, in tokens."""

DIRECTIONS = {"both": (True, True), "horizontal": (False, True), "vertical": (True, False)}
"""What the user chooses -> whether the height and the width wrap around."""


@dataclass(frozen=True)
class WindowSettings:
    """What one window node asks for; a later window node replaces all of it, never a part.

    Attributes:
        radius: Of the disc of an image token, in tokens.
        pool_factor: Edge of a pooled cell in tokens, 0 for no pooled branch.
        pool_weights: Learned pooling per block; a block without an entry pools by the mean.
        radii: Of the blocks whose disc is another one; a block that stays dense needs none.
        start_percent: Share of the sampling schedule at which the window begins.
        end_percent: Share of the sampling schedule at which the window ends.
        dense_blocks: Blocks that keep full attention.
        min_tokens: Pictures with fewer image tokens keep full attention.
        backend: "auto" or the name of a backend.
        node_id: The node that asks for it, or None where it is unknown.
    """

    radius: int
    pool_factor: int = 0
    pool_weights: Mapping[Block, Pooling] = field(default_factory=dict)
    radii: Mapping[Block, int] = field(default_factory=dict)
    start_percent: float = 0.0
    end_percent: float = 1.0
    dense_blocks: frozenset[Block] = frozenset()
    min_tokens: int = 0
    backend: str = "auto"
    node_id: str | None = None

    @property
    def needs_block(self) -> bool:
        """Whether the attention must know which block is running."""
        return bool(self.radii or self.pool_weights or self.dense_blocks)

    @property
    def largest_radius(self) -> int:
        """The largest radius that a block can have."""
        return max(self.radius, *self.radii.values()) if self.radii else self.radius

    def radius_of(self, block: Block | None) -> int:
        """Return the radius of a block; `radius` where nobody says which block it is."""
        return self.radius if block is None else self.radii.get(block, self.radius)

    def check(self, block_counts: Mapping[str, int]) -> None:
        """Raise a ValueError for settings that could have no effect on a model.

        Args:
            block_counts: Number of blocks of each kind of the model.
        """
        if self.start_percent >= self.end_percent:
            raise ValueError(
                f"start_percent must be smaller than end_percent, got {self.start_percent:g} and "
                f"{self.end_percent:g}."
            )
        require_blocks(self.dense_blocks, block_counts, "Dense blocks")
        require_blocks(self.radii, block_counts, "Radii")

    def pooling(self, block: Block | None) -> Pooling | None:
        """Return the pooled branch of a block, or None."""
        if self.pool_factor < 2:
            return None
        learned = self.pool_weights.get(block) if block else None
        return learned or Pooling(self.pool_factor)

    def without_blocks(self) -> WindowSettings:
        """Return the settings for another network: what was learned or named per block is gone."""
        return replace(self, radii={}, pool_factor=0, pool_weights={}, dense_blocks=frozenset())


@dataclass(frozen=True)
class Settings:
    """How the attention of one model runs; every field's default changes nothing.

    Attributes:
        local: What the last window node asks for, or None for full attention.
        proportional: Grow the softmax scale with the sequence length.
        ntk_factor: On the base of the rotary positions; the positions themselves are a patch.
        wrap_height: Whether the last row of the picture lies beside the first one.
        wrap_width: Whether the last column lies beside the first one.
        name_blocks: Whether the host must say which block is running, whatever else needs it.
        observers: Plain functions that follow each model call, as `core.override.Observer` says.
        node_ids: Nodes that show the report, in the order in which they were applied.
        replaced: Nodes whose window a later one has replaced.
        about: Nodes and what is their own in the report: a line, or, with a colon at its end, what
            the report's lines about the node begin with.
    """

    local: WindowSettings | None = None
    proportional: bool = False
    ntk_factor: float = 1.0
    wrap_height: bool = False
    wrap_width: bool = False
    name_blocks: bool = False
    observers: tuple[Callable[..., None], ...] = ()
    node_ids: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    about: tuple[tuple[str, str], ...] = ()

    def window_of(self, block: Block | None) -> Window | None:
        """Return the disc of an image token, wrapped by whichever node: their order is free.

        Args:
            block: That attends, None where nobody says it.
        """
        return None if self.local is None else self._window(self.local.radius_of(block))

    @property
    def largest_window(self) -> Window | None:
        """The disc of the block that sees farthest, None for full attention."""
        return None if self.local is None else self._window(self.local.largest_radius)

    def _window(self, radius: int) -> Window:
        return Window(radius, self.wrap_height, self.wrap_width)

    def with_window(self, local: WindowSettings | None, node_id: str | None = None) -> Settings:
        """Return the settings with another window; None is full attention.

        Args:
            local: The window.
            node_id: Of the node that asks for it.
        """
        before = (*self.replaced, self.local.node_id if self.local is not None else None)
        replaced = tuple(dict.fromkeys(one for one in before if one and one != node_id))
        if local is not None and local.node_id != node_id:
            local = replace(local, node_id=node_id)
        return replace(self, local=local, replaced=replaced)
