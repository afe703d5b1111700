"""What is missing of a run's painted data: pictures, and the text embeddings of their prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ....distill.config import RunConfig
from ....distill.data.shards import MANIFEST, ShardFolder
from .datasets import HELD_OUT, PICTURES, PICTURES_HELD_OUT, TRAIN, split
from .generation import HELD_OUT_SEED
from .pictures import files_in


@dataclass(frozen=True)
class Missing:
    """Counts of what is to be made.

    Attributes:
        pictures: To paint.
        texts: Prompts and captions whose embedding no folder has yet; each is stored once.
        encoded: Pictures of a folder to encode.
    """

    pictures: int = 0
    texts: int = 0
    encoded: int = 0

    def __add__(self, other: Missing) -> Missing:
        return Missing(
            self.pictures + other.pictures,
            self.texts + other.texts,
            self.encoded + other.encoded,
        )


def missing_in(config: RunConfig, prompts: Sequence[str]) -> Missing:
    """Count what is missing of a run's training and held-out data.

    Args:
        config: The run.
        prompts: What the teacher paints; empty where nothing is painted.
    """
    found = _missing_of_folder(config)
    return found + _missing_of_prompts(config, prompts) if prompts else found


def _missing_of_folder(config: RunConfig) -> Missing:
    if config.pictures.folder is None:
        return Missing()
    folders = [data_in(config, name) for name in (PICTURES, PICTURES_HELD_OUT)]
    todo = max(0, len(files_in(config.pictures.folder)) - sum(map(len, folders)))
    return Missing(texts=todo, encoded=todo)  # captions are taken to differ


def _missing_of_prompts(config: RunConfig, prompts: Sequence[str]) -> Missing:
    generation, seed = config.generation, config.generation.seed
    train, held_out = split(prompts, generation.held_out)
    return _missing(data_in(config, TRAIN), train, generation.samples, seed) + _missing(
        data_in(config, HELD_OUT), held_out, generation.held_out_samples, seed + HELD_OUT_SEED
    )


def held_out_of(config: RunConfig, prompts: Sequence[str]) -> int:
    """Count the pictures that a run will validate with, painted ones and those of a folder.

    Args:
        config: The run.
        prompts: What the teacher paints; empty takes the data that is there.
    """
    asked = config.generation.held_out_samples if prompts else 0
    of_folder = config.pictures.held_out if config.pictures.folder is not None else 0
    return max(asked, len(data_in(config, HELD_OUT))) + of_folder


def data_in(config: RunConfig, name: str) -> ShardFolder:
    """Open one of a run's folders of data, empty where there is none."""
    folder = config.data_folder / name
    return ShardFolder(folder, None if (folder / MANIFEST).exists() else {})


def _missing(data: ShardFolder, prompts: Sequence[str], samples: int, first_seed: int) -> Missing:
    done = data.seeds()
    todo = [index for index in range(samples) if first_seed + index not in done]
    needed = {prompts[index % len(prompts)] for index in todo}
    # The texts are those of this folder's prompts, but not known by them.
    fresh = len(set(prompts[:samples])) - len(data.texts)
    return Missing(len(todo), min(len(needed), max(0, fresh)))
