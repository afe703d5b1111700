"""Self-generated data: the teacher paints what the student learns from.

Real photographs train worse: they are not what the teacher would have painted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....distill.config import Generation
from ....distill.data.parts import Share
from ....distill.data.shards import Samples, ShardFolder
from .sampling import Painter, Prompt, encode, request_to_stop_kept, stack

Item = TypeVar("Item")
Progress = Callable[[int, int], None]
"""Told how many of how many samples there are."""

HELD_OUT_SEED = 1 << 32  # far from any seed of the training data


@dataclass(frozen=True)
class Piece:
    """Samples of one size that one process paints.

    Attributes:
        number: Of the piece, in order.
        indices: Of the samples.
        size_px: Height and width.
    """

    number: int
    indices: list[int]
    size_px: tuple[int, int]

    @property
    def cost(self) -> int:
        """Pixels to paint."""
        return len(self.indices) * math.prod(self.size_px)


def generate(
    model: ModelPatcher,
    clip: Any,
    painter: Painter,
    prompts: Sequence[str],
    data: ShardFolder,
    generation: Generation,
    *,
    samples: int,
    first_seed: int,
    share: Share,
    progress: Progress,
    should_stop: Callable[[], bool],
) -> bool:
    """Paint samples into a folder of shards, except those that it has.

    Args:
        model: The teacher.
        clip: Its text encoders.
        painter: How to sample.
        prompts: Taken in turn.
        data: Where samples go.
        generation: Sizes, and how many samples at once and per shard.
        samples: How many the folder shall hold.
        first_seed: Seed of the first; each next one has the next.
        share: What of them this process paints.
        progress: Told after each batch.
        should_stop: Asked before each batch; what is painted then is kept.

    Returns:
        Whether all samples of this process are there.
    """
    done = data.seeds()
    missing = [index for index in range(samples) if first_seed + index not in done]
    own = share.of(pieces(generation, missing), cost=lambda piece: piece.cost)
    part = share.part_of(data)
    there = samples - len(missing)
    whole = there + sum(len(piece.indices) for piece in own)
    progress(there, whole)
    for piece in own:
        with torch.no_grad():
            texts = {index: encode(clip, prompts[index % len(prompts)]) for index in piece.indices}
        for group, indices in enumerate(by_length(piece.indices, texts)):
            painted: list[Tensor] = []
            for batch in chunks(indices, generation.batch):
                if should_stop():
                    break
                seeds = [first_seed + index for index in batch]
                with torch.no_grad(), request_to_stop_kept():
                    painted += painter.paint(
                        model, [texts[index] for index in batch], seeds, piece.size_px
                    )
                    progress(there + len(painted), whole)
            if painted:
                kept = indices[: len(painted)]
                seeds = [first_seed + index for index in kept]
                made = _samples(painted, [texts[index] for index in kept], seeds)
                share.add(part, made, piece.number * generation.shard + group)
                there += len(kept)
            if len(painted) < len(indices):
                return False
    return True


def pieces(generation: Generation, missing: Sequence[int]) -> list[Piece]:
    """Cut missing samples into what becomes a shard, or one for each length of text."""
    found: dict[int, list[int]] = {}
    for index in missing:
        found.setdefault(index // generation.shard, []).append(index)
    sizes = generation.sizes_px
    return [Piece(number, indices, sizes[number % len(sizes)]) for number, indices in found.items()]


def _samples(latents: Sequence[Tensor], prompts: Sequence[Prompt], seeds: Sequence[int]) -> Samples:
    """Round samples to what is kept of them."""
    text = stack(prompts)
    return Samples(
        latent=torch.stack(list(latents)).half(),
        context=text.context.bfloat16(),  # T5's range is not float16's
        pooled=text.pooled.bfloat16(),
        seed=torch.tensor(seeds),
    )


def by_length(indices: Sequence[int], encoded: dict[int, Prompt]) -> list[list[int]]:
    """Group samples by the length of their text, for only equal ones fit into a shard."""
    groups: dict[int, list[int]] = {}
    for index in indices:
        groups.setdefault(encoded[index].context.shape[1], []).append(index)
    return list(groups.values())


def chunks(items: Sequence[Item], size: int) -> Iterator[list[Item]]:
    """Cut a sequence into pieces."""
    rest = iter(items)
    while piece := list(islice(rest, size)):
        yield piece
