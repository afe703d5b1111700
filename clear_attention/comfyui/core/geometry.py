"""From a latent and a sequence length to a TokenLayout."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from ...families.family import TEXT_FIRST, Part
from ...layout import TokenLayout


@dataclass(frozen=True)
class Geometry:
    """The grid of one model call, in tokens.

    Attributes:
        height: Rows of the grid; a latent of odd height is padded by the model.
        width: Columns of the grid.
        references: Tokens of all reference pictures.
        order: Order of text, image and references in a sequence.
    """

    height: int
    width: int
    references: int = 0
    order: tuple[Part, ...] = TEXT_FIRST

    def layout(self, tokens: int) -> TokenLayout | None:
        """Return the layout of a sequence, or None when it is too short to hold the grid.

        What the latents do not account for is text: prompts of any length, and the tokens that
        image prompts add in front.
        """
        text = tokens - self.height * self.width - self.references
        if text < 0:
            return None
        lengths = {"text": text, "image": 0, "references": self.references}
        place = self.order.index("image")
        front, behind = (
            sum(lengths[part] for part in parts)
            for parts in (self.order[:place], self.order[place:])
        )
        return TokenLayout(front, self.height, self.width, extra=behind)


def geometry_of(
    latent: Tensor,
    references: Iterable[Tensor],
    patch: int,
    order: tuple[Part, ...] = TEXT_FIRST,
) -> Geometry:
    """Measure a latent ``[..., height, width]`` and its references, in latent pixels."""
    height, width = _grid(latent, patch)
    sizes = (_grid(reference, patch) for reference in references)
    return Geometry(height, width, sum(rows * columns for rows, columns in sizes), order)


def _grid(latent: Tensor, patch: int) -> tuple[int, int]:
    return -(-latent.shape[-2] // patch), -(-latent.shape[-1] // patch)
