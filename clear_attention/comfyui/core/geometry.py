"""From a latent and a sequence length to a TokenLayout."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ...families.family import TEXT_FIRST, Part
from ...layout import TokenLayout
from ...parallel.attention import Seat
from ...queries import ALL, Queries


@dataclass(frozen=True)
class Geometry:
    """The grid of one model call, in tokens.

    Attributes:
        height: Rows of the grid; a latent of odd height is padded by the model.
        width: Columns of the grid.
        references: Tokens of all reference pictures that are counted apart from text.
        order: Order of text, image, padding and references in a sequence.
        pads_to: The image is filled up behind to a multiple of so many tokens.
        frames: Grids of a video, one behind the other.
        cached: Whose keys may come without queries.
        keys: Of the picture's own calls, where a block has others that see less; else None.
    """

    height: int
    width: int
    references: int = 0
    order: tuple[Part, ...] = TEXT_FIRST
    pads_to: int = 1
    frames: int = 1
    cached: Literal["text", "references"] = "references"
    keys: int | None = None

    @property
    def image(self) -> int:
        """Tokens of the picture."""
        return self.frames * self.height * self.width

    @property
    def padding(self) -> int:
        """Tokens that fill the picture up."""
        return -self.image % self.pads_to

    @property
    def counted(self) -> int:
        """Tokens of a sequence that are not text."""
        return self.image + self.padding + self.references

    def of_rank(self, seat: Seat) -> BandGeometry:
        """Return the geometry of a rank's sequences.

        Args:
            seat: Of the rank.
        """
        return BandGeometry(**vars(self), seat=seat)

    def are_own(self, keys: int) -> bool:
        """Return whether so many keys are those of the picture's own calls, as far as is known."""
        return self.keys in (None, keys)

    def layout(self, tokens: int) -> TokenLayout | None:
        """Return the layout of a sequence, or None when it cannot hold the grid as one picture.

        What the latents do not account for is text: prompts of any length, and the tokens that
        image prompts add in front.
        """
        text = tokens - self.counted
        if text < 0 or self.frames > 1:
            return None
        lengths = {"text": text, "image": 0, "padding": self.padding}
        lengths["references"] = self.references
        place = self.order.index("image")
        front, behind = (
            sum(lengths[part] for part in parts)
            for parts in (self.order[:place], self.order[place:])
        )
        return TokenLayout(front, self.height, self.width, extra=behind)

    def text(self, layout: TokenLayout) -> slice:
        """Return where the text of a layout lies; references that are counted apart are none.

        Args:
            layout: Of this geometry.
        """
        if self.order.index("text") < self.order.index("image"):
            return layout.text_slice
        return slice(layout.tokens - dict(self.behind(layout)).get("text", 0), layout.tokens)

    def behind(self, layout: TokenLayout) -> tuple[tuple[str, int], ...]:
        """Return what lies behind the grid of a layout, by the name that users know, and how much.

        Args:
            layout: Of a sequence.
        """
        lengths = {"padding": self.padding, "references": self.references}
        lengths["text"] = layout.extra - self.padding - self.references
        names = {"padding": "filling", "references": "reference", "text": "text"}
        parts = self.order[self.order.index("image") + 1 :]
        return tuple((names[part], lengths[part]) for part in parts if lengths[part])

    def queries(self, layout: TokenLayout, tokens: int) -> Queries | None:
        """Return which tokens of a layout a sequence of queries holds, or None.

        Args:
            layout: Of the keys.
            tokens: Number of queries; those whose keys and values are cached are missing.
        """
        missing = layout.tokens - tokens
        if missing == 0:
            return ALL
        if self.cached == "references" and missing == layout.extra:
            return Queries(extra=False)
        if self.cached == "text" and 0 < missing <= layout.text:
            return Queries(first_text=missing)
        return None


@dataclass(frozen=True)
class BandGeometry(Geometry):
    """The grid of a model call of which this rank computes a band; layouts are of the whole.

    Attributes:
        seat: Of the rank.
    """

    seat: Seat = field(kw_only=True)

    @property
    def counted(self) -> int:
        partition, rank = self.seat.partition, self.seat.rank
        elsewhere = len(partition.all_shared) - len(partition.shared(rank))
        return partition.image(rank) + self.padding + self.references - elsewhere

    def queries(self, layout: TokenLayout, tokens: int) -> Queries | None:
        held = self.seat.partition.tokens(self.seat.rank, layout)
        return ALL if tokens == held else None
