"""Self-generated data: the teacher paints what the student learns from.

Real photographs train worse: they are not what the teacher would have painted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....distill.config import Generation
from ....distill.data.shards import Samples, ShardFolder
from .sampling import Painter, Prompt, encode, request_to_stop_kept, stack

Item = TypeVar("Item")
Progress = Callable[[int, int], None]
"""Told how many of how many samples there are."""

HELD_OUT_SEED = 1 << 32  # far from any seed of the training data


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
        progress: Told after each batch.
        should_stop: Asked before each batch; what is painted then is kept.

    Returns:
        Whether all samples are there.
    """
    done = data.seeds()
    there = sum(first_seed + index in done for index in range(samples))
    progress(there, samples)
    for number, chunk in enumerate(chunks(range(samples), generation.shard)):
        size_px = generation.sizes_px[number % len(generation.sizes_px)]
        todo = [index for index in chunk if first_seed + index not in done]
        with torch.no_grad():
            encoded = {index: encode(clip, prompts[index % len(prompts)]) for index in todo}
        for indices in by_length(todo, encoded):
            painted: list[Tensor] = []
            for batch in chunks(indices, generation.batch):
                if should_stop():
                    break
                seeds = [first_seed + index for index in batch]
                with torch.no_grad(), request_to_stop_kept():
                    painted += painter.paint(model, [encoded[i] for i in batch], seeds, size_px)
                    progress(there + len(painted), samples)
            if painted:
                kept = indices[: len(painted)]
                data.add(
                    _samples(painted, [encoded[i] for i in kept], [first_seed + i for i in kept])
                )
                there += len(kept)
            if len(painted) < len(indices):
                return False
    return True


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
