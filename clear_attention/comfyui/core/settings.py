"""What the nodes ask for: plain data that travels in a model's transformer_options."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from ...families.names import Block
from ...pooling import Pooling
from ...window import Window

DIRECTIONS = {"both": (True, True), "horizontal": (False, True), "vertical": (True, False)}
"""What the user chooses -> whether the height and the width wrap around."""


@dataclass(frozen=True)
class Settings:
    """How the attention of one model runs; every field's default changes nothing.

    Attributes:
        window: The disc of an image token, or None for full attention.
        pool_factor: Edge of a pooled cell in tokens, 0 for no pooled branch.
        pool_weights: Learned pooling per block; a block without an entry pools by the mean.
        start_percent: Share of the sampling schedule at which CLEAR begins.
        end_percent: Share of the sampling schedule at which CLEAR ends.
        dense_blocks: Blocks that keep full attention.
        min_tokens: Pictures with fewer image tokens keep full attention.
        backend: "auto" or the name of a backend.
        proportional: Grow the softmax scale with the sequence length.
        wrap_height: Whether the last row of the picture lies beside the first one.
        wrap_width: Whether the last column lies beside the first one.
        observers: Plain functions that follow each model call, as `core.override.Observer` says.
        node_ids: Nodes that show the report, in the order in which they were applied.
    """

    window: Window | None = None
    pool_factor: int = 0
    pool_weights: dict[Block, Pooling] = field(default_factory=dict)
    start_percent: float = 0.0
    end_percent: float = 1.0
    dense_blocks: frozenset[Block] = frozenset()
    min_tokens: int = 0
    backend: str = "auto"
    proportional: bool = False
    wrap_height: bool = False
    wrap_width: bool = False
    observers: tuple[Callable[..., None], ...] = ()
    node_ids: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.window is not None:  # of whichever node, before or after the one that wraps it
            window = Window(self.window.radius, self.wrap_height, self.wrap_width)
            object.__setattr__(self, "window", window)

    @property
    def needs_block(self) -> bool:
        """Whether the attention must know which block is running."""
        return bool(self.pool_weights or self.dense_blocks)

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
        unknown = [b for b in self.dense_blocks if b[1] >= block_counts.get(b[0], 0)]
        if unknown:
            has = ", ".join(f"{kind} 0-{count - 1}" for kind, count in block_counts.items())
            raise ValueError(
                f"Dense blocks must be blocks of the model, which has {has}, got "
                f"{' '.join(map(str, min(unknown)))}."
            )

    def pooling(self, block: Block | None) -> Pooling | None:
        """Return the pooled branch of a block, or None."""
        if self.pool_factor < 2:
            return None
        learned = self.pool_weights.get(block) if block else None
        return learned or Pooling(self.pool_factor)


def parse_blocks(text: str) -> frozenset[Block]:
    """Read a list of blocks such as "double 0-3, single 37"; any word may be a kind.

    Raises:
        ValueError: An entry is no kind with an index or a range of indices.
    """
    blocks: set[Block] = set()
    for entry in filter(None, (part.strip() for part in text.split(","))):
        match = re.fullmatch(r"([a-z]+)[\s._:]*(\d+)(?:\s*-\s*(\d+))?", entry.lower())
        if match is None:
            raise ValueError(
                f'Dense blocks must look like "double 0-3, single 37", "joint 0-3", got {entry!r}.'
            )
        kind, first, last = match[1], int(match[2]), int(match[3] or match[2])
        if last < first:
            raise ValueError(f"A range of blocks must not run backwards, got {entry!r}.")
        blocks.update((kind, index) for index in range(first, last + 1))
    return frozenset(blocks)


def format_blocks(blocks: Iterable[Block]) -> str:
    """Write blocks as `parse_blocks` reads them, neighbours as ranges."""
    runs: list[tuple[str, int, int]] = []
    for kind, index in sorted(blocks):
        if runs and runs[-1][0] == kind and runs[-1][2] == index - 1:
            runs[-1] = (kind, runs[-1][1], index)
        else:
            runs.append((kind, index, index))
    return ", ".join(
        f"{kind} {first}" if first == last else f"{kind} {first}-{last}"
        for kind, first, last in runs
    )
