"""Which tokens of a layout ask: all of them, or text, extra and a band of the grid's rows."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from .layout import TokenLayout


@dataclass(frozen=True)
class Queries:
    """The queries of a call whose keys are a whole layout, in the layout's order.

    A cache of keys and values asks for the grid without its text, a GPU among several for its own
    rows. Who sees whom does not change: a part of the queries gives that part of the output.

    Args:
        text: Whether the text tokens are among them.
        extra: Whether the extra tokens are.
        first_row: The first of the grid's rows that is.
        rows: How many rows are, 0 for none; None is all from `first_row` on.
        first_text: The first text token that is; those in front of it are not.

    Raises:
        ValueError: A row or a token is no integer or negative.
    """

    text: bool = True
    extra: bool = True
    first_row: int = 0
    rows: int | None = None
    first_text: int = 0

    def __post_init__(self) -> None:
        for name in ("first_row", "rows", "first_text"):
            value, free = getattr(self, name), name == "rows"
            if not (free and value is None) and (type(value) is not int or value < 0):
                raise ValueError(f"Queries.{name} must be an integer of at least 0, got {value!r}.")

    def band(self, layout: TokenLayout) -> range:
        """Return the grid's rows that ask.

        Raises:
            ValueError: The grid has fewer rows.
        """
        rows = layout.height - self.first_row if self.rows is None else self.rows
        if rows < 0 or self.first_row + rows > layout.height:
            asked = "all" if self.rows is None else self.rows
            raise ValueError(
                f"Queries must lie in the grid's {layout.height} rows, got {asked} rows from row "
                f"{self.first_row} on."
            )
        return range(self.first_row, self.first_row + rows)

    def image(self, layout: TokenLayout) -> int:
        """Count the image queries."""
        return len(self.band(layout)) * layout.width

    def others(self, layout: TokenLayout) -> int:
        """Count the text and extra queries."""
        return self._texts(layout) + layout.extra * self.extra

    def _texts(self, layout: TokenLayout) -> int:
        return max(0, layout.text - self.first_text) * self.text

    def tokens(self, layout: TokenLayout) -> int:
        """Count the queries."""
        return self.image(layout) + self.others(layout)

    def are_all(self, layout: TokenLayout) -> bool:
        """Tell whether every token of the layout asks."""
        return self.tokens(layout) == layout.tokens

    def text_slice(self, layout: TokenLayout) -> slice:
        """Return the positions of the text tokens among the queries."""
        return slice(0, self._texts(layout))

    def image_slice(self, layout: TokenLayout) -> slice:
        """Return the positions of the image tokens among the queries."""
        start = self._texts(layout)
        return slice(start, start + self.image(layout))

    def extra_slice(self, layout: TokenLayout) -> slice:
        """Return the positions of the extra tokens among the queries."""
        start = self.image_slice(layout).stop
        return slice(start, start + layout.extra * self.extra)

    def positions(self, layout: TokenLayout) -> list[slice]:
        """Return where the queries lie in the layout: text, image, extra; parts may be empty."""
        band = self.band(layout)
        start, width = layout.text, layout.width
        return [
            slice(layout.text - self._texts(layout), layout.text),
            slice(start + band.start * width, start + band.stop * width),
            slice(layout.tokens - layout.extra * self.extra, layout.tokens),
        ]

    def of(self, tokens: Tensor, layout: TokenLayout, dim: int = 2) -> Tensor:
        """Select the queries out of a tensor over the whole layout: a view where they are adjacent.

        Args:
            tokens: ``[B, H, layout.tokens, ...]``.
            layout: Where the tokens lie.
            dim: Dimension of the tokens.
        """
        parts = [rows for rows in self.positions(layout) if rows.stop > rows.start]
        adjacent = all(one.stop == other.start for one, other in pairwise(parts))
        if not parts:
            return tokens.narrow(dim, 0, 0)
        if adjacent:
            return tokens.narrow(dim, parts[0].start, parts[-1].stop - parts[0].start)
        chosen = [tokens.narrow(dim, rows.start, rows.stop - rows.start) for rows in parts]
        return torch.cat(chosen, dim)


ALL = Queries()
