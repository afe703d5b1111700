"""Texts of a run's data that are damaged or missing: encoded again before the run goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch

from ....distill.config import RunConfig
from ....distill.data.shards import ShardFolder
from .datasets import HELD_OUT, PICTURES, PICTURES_HELD_OUT, TRAIN, split
from .generation import HELD_OUT_SEED
from .missing import data_in
from .pictures import captioned
from .sampling import encode

PromptOf = Callable[[int], str | None]
"""Returns the prompt or caption of a sample by its seed; None where it is not known."""


def renew_texts(clip: Any, config: RunConfig, prompts: Sequence[str]) -> None:
    """Encode the prompts and captions of a run again whose embedding is lost.

    Opens the file of each; they are encoded to the same bytes, which name the file.

    Args:
        clip: The teacher's text encoders.
        config: The run.
        prompts: What the teacher paints; empty where nothing is painted.

    Raises:
        ValueError: A shard is damaged, or prompts or text encoders are others than before.
    """
    if prompts:
        seed = config.generation.seed
        train, held_out = split(prompts, config.generation.held_out)
        _renew(clip, data_in(config, TRAIN), lambda s: train[(s - seed) % len(train)])
        first = seed + HELD_OUT_SEED
        _renew(clip, data_in(config, HELD_OUT), lambda s: held_out[(s - first) % len(held_out)])
    if config.pictures.folder is None:
        return

    @cache
    def captions() -> dict[int, str]:
        return {each.seed: each.caption for each in captioned(config.pictures)}

    for name in (PICTURES, PICTURES_HELD_OUT):
        _renew(clip, data_in(config, name), lambda seed: captions().get(seed))


def _renew(clip: Any, data: ShardFolder, prompt_of: PromptOf) -> None:
    seed_of = {name: seed for seed, name in data.texts_by_seed().items()}
    for name in data.texts.lost(seed_of):
        prompt = prompt_of(seed_of[name])
        if prompt is None:
            continue
        with torch.no_grad():
            text = encode(clip, prompt)
        data.texts.renew(name, text.context[0].bfloat16(), text.pooled[0].bfloat16())
