"""How many tokens a block's linear layers take at a time."""

from __future__ import annotations

AUTO_SLICES = 16
"""So many slices need as much memory as one more hidden tensor, about."""

AUTO_LEAST = 1024
"""Fewer tokens leave a GPU idle between its kernels."""

AUTO_FROM = 8192
"""Smaller pictures fit everywhere, and would only get slower."""


def slice_size(tokens: int, slice_tokens: int) -> int:
    """Return how many tokens a slice has; 0 asks for the automatic choice."""
    if slice_tokens:
        return slice_tokens
    return tokens if tokens < AUTO_FROM else max(AUTO_LEAST, -(-tokens // AUTO_SLICES))


def slices(tokens: int, size: int) -> list[slice]:
    """Cut a number of tokens into slices of a size; the last one has what is left."""
    return [slice(start, min(start + size, tokens)) for start in range(0, tokens, size)]
