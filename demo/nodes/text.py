"""A text encoder without weights: every word is a fixed random direction.

It takes the place of T5 and CLIP in the demo. Like T5 for FLUX it pads short prompts, but to 32
tokens instead of 256; a longer prompt gives more.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .sizes import POOLED_DIM, TEXT_DIM

MIN_TOKENS = 32
PADDING = "<padding>"

Tokens = dict[str, list[list[tuple[str, float]]]]


def words_of(text: str) -> list[str]:
    """Split a prompt into lower-case words."""
    return re.findall(r"\w+", text.lower())


def word_vector(word: str, dim: int) -> Tensor:
    """Draw the direction of a word, the same in every run and on every machine."""
    seed = int.from_bytes(hashlib.sha256(f"{dim}:{word}".encode()).digest()[:8], "big") >> 1
    return torch.randn(dim, generator=torch.Generator().manual_seed(seed))


def embed(words: list[str]) -> Tensor:
    """Embed words and pad them: ``[1, max(32, words), TEXT_DIM]``."""
    padded = words + [PADDING] * (MIN_TOKENS - len(words))
    vectors = {word: word_vector(word, TEXT_DIM) for word in set(padded)}
    return torch.stack([vectors[word] for word in padded])[None]


def pool(words: list[str]) -> Tensor:
    """Sum a prompt up in one vector of unit variance: ``[1, POOLED_DIM]``."""
    vectors = [word_vector(word, POOLED_DIM) for word in words or [PADDING]]
    return (torch.stack(vectors).sum(dim=0) / len(vectors) ** 0.5)[None]


class DemoCLIP:
    """What the nodes that encode text use of ComfyUI's CLIP object."""

    def clone(self) -> DemoCLIP:
        """Return a copy; there is no state."""
        return DemoCLIP()

    def tokenize(self, text: str, **_: Any) -> Tokens:
        """Split into words, once for each of the two encoders that FLUX has."""
        tokens = [(word, 1.0) for word in words_of(text)]
        return {"l": [tokens], "t5xxl": [tokens]}

    def encode_from_tokens_scheduled(
        self,
        tokens: Tokens,
        unprojected: bool = False,
        add_dict: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> list[list[Any]]:
        """Return a conditioning, with ``add_dict`` (such as the guidance) in it."""
        encoded = self.encode_from_tokens(tokens, return_dict=True)
        return [[encoded.pop("cond"), {**encoded, **(add_dict or {})}]]

    def encode_from_tokens(
        self, tokens: Tokens, return_pooled: bool | str = False, return_dict: bool = False
    ) -> Any:
        """Return the embedding, with the pooled vector where it is asked for."""
        cond = embed([word for word, _ in tokens["t5xxl"][0]])
        pooled = pool([word for word, _ in tokens["l"][0]])
        if return_dict:
            return {"cond": cond, "pooled_output": pooled}
        return (cond, pooled) if return_pooled else cond
