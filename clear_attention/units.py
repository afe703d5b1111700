"""Units of memory, and how bytes are written for people."""

from __future__ import annotations

MIB = 1 << 20
GIB = 1 << 30


def gib(size: int) -> str:
    """Write bytes for people."""
    return f"{size / GIB:.3g} GiB" if size >= GIB / 10 else f"{size / MIB:.3g} MiB"
