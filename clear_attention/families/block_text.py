"""Blocks as text, such as "double 0-3, single 37": read, checked against a model, written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from .names import Block


def parse_blocks(text: str, what: str = "Blocks") -> frozenset[Block]:
    """Read a list of blocks such as "double 0-3, single 37"; any word may be a kind.

    Args:
        text: Entries with commas between them; empty for no blocks.
        what: Name of the setting, for messages.

    Raises:
        ValueError: An entry is no kind with an index or a range of indices.
    """
    blocks: set[Block] = set()
    for entry in filter(None, (part.strip() for part in text.split(","))):
        match = re.fullmatch(r"([a-z]+)[\s._:]*(\d+)(?:\s*-\s*(\d+))?", entry.lower())
        if match is None:
            raise ValueError(
                f'{what} must look like "double 0-3, single 37", "joint 0-3", got {entry!r}.'
            )
        kind, first, last = match[1], int(match[2]), int(match[3] or match[2])
        if last < first:
            raise ValueError(f"{what} must not run backwards, got {entry!r}.")
        blocks.update((kind, index) for index in range(first, last + 1))
    return frozenset(blocks)


def require_blocks(blocks: Iterable[Block], counts: Mapping[str, int], what: str) -> None:
    """Check that a model has all blocks.

    Args:
        blocks: What was asked for.
        counts: Number of blocks of each kind of the model.
        what: Name of the setting, for messages.

    Raises:
        ValueError: A block is none of the model.
    """
    unknown = [block for block in blocks if block[1] >= counts.get(block[0], 0)]
    if unknown:
        has = ", ".join(f"{kind} 0-{count - 1}" for kind, count in counts.items() if count)
        raise ValueError(
            f"{what} must be blocks of the model, which has {has}, got "
            f"{' '.join(map(str, min(unknown)))}."
        )


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
