"""The training and the held-out data of a run: the teacher paints what is missing of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from comfy.model_patcher import ModelPatcher

from ....distill.config import ConfigError, RunConfig
from ....distill.data.parts import ALONE, Share, take_in
from ....distill.data.shards import MANIFEST, ShardFolder
from ....distill.data.source import Source, Together
from ...families import require_family
from ..teacher import fingerprint_of
from ..watcher import Watcher
from .generation import HELD_OUT_SEED, generate
from .pictures import Captioned, captioned, encode_missing, with_captions
from .pictures import split as split_pictures
from .sampling import Painter

TRAIN, HELD_OUT = "train", "held_out"
PICTURES, PICTURES_HELD_OUT = "pictures", "pictures_held_out"

PAINTED, PHOTOGRAPHS = "painted pictures", "pictures of a folder"
"""Kinds of data, for people."""

INDEPENDENT = ("samples", "held_out_samples", "batch", "shard")
"""Settings of the generation that do not change a sample."""


def paint_missing(
    model: ModelPatcher,
    clip: Any,
    painter: Painter,
    config: RunConfig,
    prompts: Sequence[str],
    watcher: Watcher,
    share: Share = ALONE,
) -> bool:
    """Let the teacher paint a process's share of what is missing; return whether it is there.

    Raises:
        ValueError: The data that is there was made with other settings.
    """
    generation, teacher = config.generation, fingerprint_of(model)
    train, held_out = split(prompts, generation.held_out)
    seed = generation.seed
    # Both before the first picture: either may have been made with other settings.
    folders = [
        ShardFolder(config.data_folder / name, made_with(config, chosen, teacher))
        for name, chosen in ((TRAIN, train), (HELD_OUT, held_out))
    ]
    for data, chosen, samples, first_seed, own in (
        (folders[0], train, generation.samples, seed, share),
        (
            *(folders[1], held_out, generation.held_out_samples),
            *(seed + HELD_OUT_SEED, share.from_behind()),
        ),
    ):
        whole = generate(
            model,
            clip,
            painter,
            chosen,
            data,
            generation,
            samples=samples,
            first_seed=first_seed,
            share=own,
            progress=partial(watcher.progress, f"painting {data.folder.name} data"),
            should_stop=watcher.should_stop,
        )
        if not whole:
            return False
    return True


def split(prompts: Sequence[str], held_out: int) -> tuple[Sequence[str], Sequence[str]]:
    """Split prompts into those to train on and the last ones, to validate on.

    At least one is trained on; one that is alone serves for both.
    """
    train = len(prompts) - min(held_out, len(prompts) - 1)
    return prompts[:train], prompts[train:] or prompts


def made_with(config: RunConfig, prompts: Sequence[str], teacher: str) -> dict[str, Any]:
    """Return what data depends on: more samples, larger batches or a moved file do not spoil it."""
    settings = {
        name: value for name, value in asdict(config.generation).items() if name not in INDEPENDENT
    }
    words = hashlib.sha256("\n".join(prompts).encode()).hexdigest()[:16]
    guidance = config.training.guidance
    return {**settings, "prompts": words, "guidance": guidance, "teacher": teacher}


def encode_pictures(
    model: ModelPatcher,
    clip: Any,
    vae: Any,
    config: RunConfig,
    watcher: Watcher,
    share: Share = ALONE,
) -> bool:
    """Encode a process's share of the pictures that are missing; return whether it is there.

    Raises:
        ConfigError: The folder cannot be used, see `require_pictures`.
        ValueError: The data that is there was made with other settings.
    """
    if config.pictures.folder is None:
        return True
    require_pictures(clip, vae, config)
    listed = split_pictures(captioned(config.pictures), config.pictures.held_out)
    made = {"area_px": config.pictures.area_px, "family": require_family(model).data.key}

    def folder_of(name: str, chosen: Sequence[Captioned]) -> ShardFolder:
        """Open a folder for just these: a picture may not move from validation to training."""
        seeds = " ".join(str(seed) for seed in sorted(each.seed for each in chosen))
        listing = f"{len(chosen)}, {hashlib.sha256(seeds.encode()).hexdigest()[:16]}"
        return ShardFolder(config.data_folder / name, {**made, "pictures": listing})

    return all(
        encode_missing(
            clip,
            vae,
            chosen,
            folder_of(name, chosen),
            config.generation.shard,
            share=own,
            progress=partial(watcher.progress, f"encoding {name.replace('_', ' ')}"),
            should_stop=watcher.should_stop,
        )
        for name, chosen, own in (
            (PICTURES, listed[0], share),
            (PICTURES_HELD_OUT, listed[1], share.from_behind()),
        )
        if chosen
    )


def require_pictures(clip: Any, vae: Any, config: RunConfig) -> None:
    """Check that a run's folder of pictures can be used, if it has one.

    Raises:
        ConfigError: There is no VAE or text encoder, there are no pictures, or one has no caption.
    """
    if config.pictures.folder is None:
        return
    if vae is None or clip is None:
        lacking = "VAE: connect one, or name its loader under loaders.vae"
        lacking = lacking if vae is None else "text encoder: name its loader under loaders.clip"
        raise ConfigError(f"Pictures of a folder need the model's {lacking}.")
    with_captions(config.pictures.folder)


def take_in_parts(config: RunConfig) -> None:
    """Make what several processes added to a run's data one with it; for one process.

    Raises:
        ValueError: A part is damaged, or was made with other settings than the folder.
    """
    for name in (TRAIN, HELD_OUT, PICTURES, PICTURES_HELD_OUT):
        take_in(config.data_folder / name)


def open_data(config: RunConfig, teacher: str) -> tuple[Source, Source | None]:
    """Open a run's data: to train on, and to validate on, if there is any.

    Raises:
        ValueError: Another model painted it, or there is none.
    """
    data = _opened(config, TRAIN, PICTURES)
    if data is None:
        raise ValueError(f"{config.data_folder} holds no data: name prompts, or pictures.folder.")
    painted = data.painted if isinstance(data, Together) else data
    painter = painted.made_with.get("teacher", teacher)  # other data has none, such as photographs
    if painter != teacher:
        raise ValueError(
            f"{painted.folder} was painted by another model: its fingerprint is {painter}, that of "
            f"the model to distil is {teacher}. Take that model or another folder of data."
        )
    return data, _opened(config, HELD_OUT, PICTURES_HELD_OUT)


def kinds_in(identity: Mapping[str, Any]) -> list[str]:
    """Name the kinds of pictures of which data was made, see `Source.identity`."""
    alone = PHOTOGRAPHS if "area_px" in identity.get("made_with", {}) else PAINTED
    return [alone, PHOTOGRAPHS] if PICTURES in identity else [alone]


def kinds_of(config: RunConfig, prompts: Sequence[str]) -> list[str]:
    """Name the kinds of pictures that a run will learn from.

    Args:
        config: The run.
        prompts: What the teacher paints; empty takes the data that is there.
    """
    painted = bool(prompts) or (config.data_folder / TRAIN / MANIFEST).exists()
    folder = config.pictures.folder is not None
    return [PAINTED] * painted + [PHOTOGRAPHS] * folder


def _opened(config: RunConfig, painted: str, pictures: str) -> ShardFolder | Together | None:
    wanted = (painted, pictures) if config.pictures.folder is not None else (painted,)
    folders = {
        name: ShardFolder(config.data_folder / name)
        for name in wanted
        if (config.data_folder / name / MANIFEST).exists()
    }
    if not folders:
        return None
    if len(folders) == 1:
        return next(iter(folders.values()))
    return Together(folders[painted], {"pictures": folders[pictures]})
