"""From a latent and a sequence length to a TokenLayout."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from ...layout import TokenLayout

LATENT_PX = 8  # pixels per latent pixel, in all families that CLEAR knows


@dataclass(frozen=True)
class Geometry:
    """The grid of one model call, in tokens.

    Attributes:
        height: Rows of the grid; a latent of odd height is padded by the model.
        width: Columns of the grid.
        references: Tokens of all reference pictures, behind the grid.
    """

    height: int
    width: int
    references: int = 0

    def layout(self, tokens: int) -> TokenLayout | None:
        """Return the layout of a sequence, or None when it is too short to hold the grid.

        What the latents do not account for is text: prompts of any length, and the tokens that
        image prompts add in front.
        """
        text = tokens - self.height * self.width - self.references
        if text < 0:
            return None
        return TokenLayout(text, self.height, self.width, extra=self.references)


def geometry_of(latent: Tensor, references: Iterable[Tensor], patch: int) -> Geometry:
    """Measure a latent ``[..., height, width]`` and its references, in latent pixels."""
    height, width = _grid(latent, patch)
    sizes = (_grid(reference, patch) for reference in references)
    return Geometry(height, width, sum(rows * columns for rows, columns in sizes))


def _grid(latent: Tensor, patch: int) -> tuple[int, int]:
    return -(-latent.shape[-2] // patch), -(-latent.shape[-1] // patch)
