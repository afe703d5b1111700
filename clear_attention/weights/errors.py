"""The one error of this package, and how its sentences name things."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice

LONGEST_NAME = 80


class CheckpointError(ValueError):
    """A CLEAR checkpoint cannot be used; the message gives the reason and the remedy."""

    __module__ = "clear_attention"  # hosts show it, and packs are loaded under their path


def some(names: Collection[str], limit: int = 3) -> str:
    """Write out the first few of many names: ``'a', 'b', 'c' and 7 more``.

    Names come from files that nobody has checked: they are quoted, escaped and shortened.
    """
    shown = ", ".join(quoted(name) for name in islice(names, limit))
    left = len(names) - limit
    return f"{shown} and {left} more" if left > 0 else shown


def quoted(name: str) -> str:
    """Quote a name from a file: escaped, so that it can be printed anywhere, and shortened."""
    return ascii(name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}...")
