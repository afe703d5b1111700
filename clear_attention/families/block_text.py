"""Blocks as text, such as "double 0-3, single 37" or "single 0: 32": read, checked, written."""

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
    example = '"double 0-3, single 37", "joint 0-3"'
    return frozenset(block for entry in _entries(text) for block in _run(entry, what, example))


def parse_radii(text: str, what: str = "Radii") -> dict[Block, int]:
    """Read a radius per block such as "double 0-3: 8, single 0: 32"; any word may be a kind.

    Args:
        text: Entries with commas between them; empty for none.
        what: Name of the setting, for messages.

    Raises:
        ValueError: An entry is no block or range of blocks with a radius of at least 1, or a block
            has two radii.
    """
    example = '"double 0-3: 8, single 0: 32"'
    radii: dict[Block, int] = {}
    for entry in _entries(text):
        blocks, _, radius = (part.strip() for part in entry.partition(":"))
        if not re.fullmatch(r"[1-9]\d{0,6}", radius):
            raise ValueError(
                f"{what} must look like {example}, with a radius of 1 or more behind each colon, "
                f"got {entry!r}."
            )
        for block in _run(blocks, what, example):
            if radii.setdefault(block, int(radius)) != int(radius):
                raise ValueError(
                    f"{what} must give each block one radius, got {radii[block]} and {radius} for "
                    f"{' '.join(map(str, block))}."
                )
    return radii


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
    return ", ".join(run for run, _ in _runs(dict.fromkeys(blocks)))


def format_radii(radii: Mapping[Block, int]) -> str:
    """Write a radius per block as `parse_radii` reads it, equal neighbours as ranges."""
    return ", ".join(f"{run}: {radius}" for run, radius in _runs(radii))


def _entries(text: str) -> list[str]:
    return [entry for entry in (part.strip() for part in text.split(",")) if entry]


def _run(entry: str, what: str, example: str) -> list[Block]:
    """Read a kind with an index, or a range of indices."""
    # Files bring such text too: a range must not fill the memory before a model is asked.
    match = re.fullmatch(r"([a-z]+)[\s._:]*(\d{1,4})(?:\s*-\s*(\d{1,4}))?", entry.lower())
    if match is None:
        raise ValueError(f"{what} must look like {example}, got {entry!r}.")
    kind, first, last = match[1], int(match[2]), int(match[3] or match[2])
    if last < first:
        raise ValueError(f"{what} must not run backwards, got {entry!r}.")
    return [(kind, index) for index in range(first, last + 1)]


def _runs(values: Mapping[Block, int | None]) -> list[tuple[str, int | None]]:
    """Return runs of neighbouring blocks that have one value, in the order of their names."""
    runs: list[tuple[str, int, int, int | None]] = []
    for (kind, index), value in sorted(values.items(), key=lambda item: item[0]):
        before = runs[-1] if runs else None
        if before is not None and (before[0], before[2] + 1, before[3]) == (kind, index, value):
            runs[-1] = (kind, before[1], index, value)
        else:
            runs.append((kind, index, index, value))
    return [
        (f"{kind} {first}" if first == last else f"{kind} {first}-{last}", value)
        for kind, first, last, value in runs
    ]
