"""Who sees whom on the grid: the circular window, and everything that derives from it."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Window:
    """The disc of image tokens that an image token sees: dy*dy + dx*dx < radius*radius, strictly.

    Discs of 45, 193, 793 and 3205 tokens belong to the radii 4, 8, 16 and 32 (CLEAR, section 3.2).

    Args:
        radius: in tokens, a positive integer. Radius 1 is the token itself.

    Raises:
        ValueError: the radius is no positive integer.
    """

    radius: int

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

    def covers(self, height: int, width: int) -> bool:
        """Tell whether every token of the grid sees every other, so that nothing is masked."""
        return (height - 1) ** 2 + (width - 1) ** 2 < self.radius**2

    def pairs(self, height: int, width: int) -> int:
        """Count the query-key pairs of the grid, border effects included."""
        return _pairs(self, height, width)

    def sees(self, dy: Tensor, dx: Tensor) -> Tensor:
        """Return a boolean tensor: which offsets lie inside the disc. Shapes broadcast."""
        return dy * dy + dx * dx < self.radius * self.radius

    def mask(self, height: int, width: int, device: torch.device | None = None) -> Tensor:
        """Return the grid's whole mask, ``[height*width, height*width]``, True where seen.

        Quadratic in the tokens: for the reference and for tests.
        """
        y = torch.arange(height, device=device).repeat_interleave(width)
        x = torch.arange(width, device=device).repeat(height)
        return self.sees(y[:, None] - y, x[:, None] - x)


def radius_to_see(dy: Tensor, dx: Tensor) -> Tensor:
    """Return the smallest radius whose window sees these offsets: the integer above the distance.

    Args:
        dy: offsets in rows, integers on the CPU (not every device has the float64 that this needs).
        dx: offsets in columns, likewise. Shapes broadcast.
    """
    return (dy * dy + dx * dx).double().sqrt().long() + 1


@functools.lru_cache(maxsize=256)
def _pairs(window: Window, height: int, width: int) -> int:
    return sum(
        max(0, height - abs(dy)) * max(0, width - abs(dx))
        for dy in range(-window.reach, window.radius)
        for dx in range(-window.half_width(dy), window.half_width(dy) + 1)
    )
