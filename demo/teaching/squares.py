"""Whole photographs at the trained size, with captions, as shards of training data."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from clear_attention.distill.data.shards import Samples, ShardFolder

from ..codec.latents import encode
from ..nodes import text
from ..students import TRAINED_PX
from .photographs import PHOTOGRAPHS, Photograph, captions, squares


def write_squares(
    folder: Path,
    count: int,
    seed: int,
    captioned: Callable[[Photograph, random.Random], Iterator[str]] = captions,
    printed: Callable[[Tensor], Tensor] = lambda pictures: pictures,
) -> ShardFolder:
    """Write squares of all photographs; go on where an earlier call was interrupted.

    Args:
        folder: Where to.
        count: Squares of each photograph.
        seed: Other squares for another one.
        captioned: Writes captions of a photograph without end.
        printed: What is made of the pictures, ``[N, H, W, 3]`` in [0, 1].
    """
    shards = ShardFolder(folder, {"squares": count, "edge": TRAINED_PX, "seed": seed})
    for photograph in PHOTOGRAPHS[len(shards.shards) :]:
        draw = random.Random(f"{seed} {photograph.file}")
        pictures = torch.stack(list(islice(squares(photograph.load(), TRAINED_PX, draw), count)))
        words = [text.words_of(line) for line in islice(captioned(photograph, draw), count)]
        shards.add(
            Samples(
                latent=encode(printed(pictures)).half(),
                context=torch.cat([text.embed(line) for line in words]),
                pooled=torch.cat([text.pool(line) for line in words]),
                seed=torch.arange(count),
            )
        )
    return shards
