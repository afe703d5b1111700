"""Layers: which tokens each layer of a model is applied to, told by the layers' names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

Tokens = Literal["once", "text", "all", "image"]

MODULATION = (".mod", "_mod.", "modulation", "norm1.", "norm2.", "norm3.")
"""Parts of the names of layers that make shifts, scales and gates of all tokens at once."""


@dataclass(frozen=True)
class Layers:
    """Parts of names by which layers are sorted; the first entry that fits counts.

    A name stands between dots and has no number of a block, as in ``.layers.attention.qkv.``.
    Layers that nothing fits are applied once per call outside of blocks. Inside of these, they are
    applied to the tokens that the block takes; to the image alone if it has others for the text.

    Attributes:
        once: Applied to one vector per call.
        text: Applied to each text token.
        both: Applied to each token.
        image: Applied to each image token.
        repeats: Part of a name -> how often such a layer runs for a token, from the model.
    """

    once: tuple[str, ...] = MODULATION
    text: tuple[str, ...] = ()
    both: tuple[str, ...] = ()
    image: tuple[str, ...] = ()
    repeats: Mapping[str, Callable[[Any], int | Fraction]] = field(default_factory=dict)

    def tokens(self, name: str, default: Tokens) -> Tokens:
        """Return which tokens a layer is applied to.

        Args:
            name: Of the layer, without the number of its block.
            default: Where no entry fits.
        """
        entries: tuple[tuple[Tokens, tuple[str, ...]], ...] = (
            ("once", self.once),
            ("text", self.text),
            ("all", self.both),
            ("image", self.image),
        )
        dotted = f".{name}."
        for tokens, parts in entries:
            if any(part in dotted for part in parts):
                return tokens
        return default

    def times(self, name: str, model: Any) -> int | Fraction:
        """Return how often a layer of a model runs for a token."""
        dotted = f".{name}."
        return next((of(model) for part, of in self.repeats.items() if part in dotted), 1)


def pixels(model: Any) -> int:
    """Return how many pixels a token has, for layers that run for each of them."""
    return model.patch_size**2
