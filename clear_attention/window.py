"""Who sees whom on the grid: the circular window, and everything that derives from it."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor


@dataclass(frozen=True)
class Window:
    """The disc of image tokens that an image token sees: dy*dy + dx*dx < radius*radius, strictly.

    Discs of 45, 193, 793 and 3205 tokens belong to the radii 4, 8, 16 and 32 (CLEAR, section 3.2).

    On an axis that wraps around, the last token lies beside the first, and the distance between
    two tokens is that of the shorter way. A window wider than the grid sees each token once.

    Args:
        radius: In tokens, a positive integer. Radius 1 is the token itself.
        wrap_height: Whether the last row lies beside the first one.
        wrap_width: Whether the last column lies beside the first one.

    Raises:
        ValueError: The radius is no positive integer.
    """

    radius: int
    wrap_height: bool = False
    wrap_width: bool = False

    def __post_init__(self) -> None:
        if type(self.radius) is not int or self.radius < 1:
            raise ValueError(f"Window.radius must be a positive integer, got {self.radius!r}.")

    @property
    def reach(self) -> int:
        """Largest distance in rows or columns at which a token is still seen."""
        return self.radius - 1

    def half_width(self, dy: int) -> int:
        """Return the largest dx seen at a distance of `dy` rows, -1 when that row is not seen."""
        room = self.radius * self.radius - dy * dy
        return math.isqrt(room - 1) if room > 0 else -1

    @property
    def tokens(self) -> int:
        """Number of tokens in a disc that lies wholly inside the grid."""
        return sum(2 * self.half_width(dy) + 1 for dy in range(-self.reach, self.radius))

    @property
    def wraps(self) -> bool:
        """Whether an axis wraps around."""
        return self.wrap_height or self.wrap_width

    def covers(self, height: int, width: int) -> bool:
        """Tell whether every token of the grid sees every other, so that nothing is masked."""
        rows = height // 2 if self.wrap_height else height - 1
        columns = width // 2 if self.wrap_width else width - 1
        return rows**2 + columns**2 < self.radius**2

    def pairs(self, height: int, width: int, band: range | None = None) -> int:
        """Count the query-key pairs of the grid, border effects included.

        Args:
            height: Of the grid.
            width: Of the grid.
            band: The rows whose tokens are queries; None is all.
        """
        return _pairs(self, height, width, range(height) if band is None else band)

    def sees(self, dy: Tensor, dx: Tensor) -> Tensor:
        """Return a boolean tensor: which offsets lie inside the disc. Shapes broadcast."""
        return dy * dy + dx * dx < self.radius * self.radius

    def sees_in(self, height: int, width: int, dy: Tensor, dx: Tensor) -> Tensor:
        """Return which of a grid's tokens are seen from which: `sees`, the shorter way round.

        Args:
            height: Of the grid.
            width: Of the grid.
            dy: Rows from one token of the grid to another.
            dx: Columns, likewise. Shapes broadcast.
        """
        dy = dy.abs().minimum(height - dy.abs()) if self.wrap_height else dy
        dx = dx.abs().minimum(width - dx.abs()) if self.wrap_width else dx
        return self.sees(dy, dx)

    def sees_across(self, height: int, width: int, dy: Tensor, dx: Tensor) -> Tensor:
        """Return what is seen of a grid that is continued beyond its wrapped edges.

        There a token lies at several offsets, of which the shortest counts: each is seen once.
        Arguments are those of `sees_in`.
        """
        seen = self.sees(dy, dx)
        for wraps, length, d in ((self.wrap_height, height, dy), (self.wrap_width, width, dx)):
            if wraps:
                seen = seen & (2 * d > -length) & (2 * d <= length)
        return seen

    def mask(self, height: int, width: int, device: torch.device | None = None) -> Tensor:
        """Return the grid's whole mask, ``[height*width, height*width]``, True where seen.

        Quadratic in the tokens: for the reference and for tests.
        """
        y = torch.arange(height, device=device).repeat_interleave(width)
        x = torch.arange(width, device=device).repeat(height)
        return self.sees_in(height, width, y[:, None] - y, x[:, None] - x)


def radius_to_see(dy: Tensor, dx: Tensor) -> Tensor:
    """Return the smallest radius whose window sees these offsets: the integer above the distance.

    Args:
        dy: Offsets in rows, integers on the CPU (not every device has the float64 that this needs).
        dx: Offsets in columns, likewise. Shapes broadcast.
    """
    return (dy * dy + dx * dx).double().sqrt().long() + 1


@functools.lru_cache(maxsize=256)
def _pairs(window: Window, height: int, width: int, band: range) -> int:
    rows = _pairs_at(height, window.wrap_height, band)[: window.radius]
    columns = list(accumulate(_pairs_at(width, window.wrap_width, range(width))))
    return sum(
        count * columns[min(window.half_width(dy), len(columns) - 1)]
        for dy, count in enumerate(rows)
    )


def _pairs_at(length: int, wraps: bool, band: range) -> list[int]:
    """Count the pairs of a place in the band and one on the axis at each distance from 0 on."""
    queries = len(band)
    if not wraps:
        reached = (
            max(0, band.stop - max(band.start, distance))  # towards the start of the axis
            + max(0, min(band.stop, length - distance) - band.start)
            for distance in range(1, length)
        )
        return [queries, *reached]
    furthest = length // 2
    pairs = [queries, *[2 * queries] * furthest]
    if length % 2 == 0:
        pairs[furthest] = queries  # the same place either way
    return pairs
