"""Pictures of a folder with their captions, encoded once, in sizes of about one area."""

from __future__ import annotations

import hashlib
import math
import struct
import zlib
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ....atomic_files import reason_of
from ....distill.config import ConfigError, Pictures
from ....distill.data.parts import Share
from ....distill.data.shards import Samples, ShardFolder
from .generation import Progress, by_length, chunks
from .sampling import Prompt, encode, request_to_stop_kept, stack

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
CAPTION = ".txt"
STEP_PX = 64
"""What the edges of all sizes are multiples of: enough for every model's tokens."""
WIDEST = 2.5  # aspect ratio of the widest size

SHOWN = 3  # names in a message

UNREADABLE = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, struct.error, zlib.error),
    Image.DecompressionBombError,
)
"""What Pillow's decoders raise for files that are no pictures, or damaged ones."""


@dataclass(frozen=True)
class Captioned:
    """A picture and what it shows.

    Attributes:
        path: The picture.
        caption: Of the text file beside it.
        size_px: Height and width to which it is scaled and cropped.
        seed: A number of its own, from its name and contents.
    """

    path: Path
    caption: str
    size_px: tuple[int, int]
    seed: int


def captioned(settings: Pictures) -> list[Captioned]:
    """Read the pictures of a folder and its folders, by their names.

    Raises:
        ConfigError: The folder has no pictures, one of them has no caption, or cannot be read.
    """
    assert settings.folder is not None
    return [_read(path, settings.area_px) for path in with_captions(settings.folder)]


def with_captions(folder: Path) -> list[Path]:
    """List the pictures of a folder and its folders, by their names.

    Raises:
        ConfigError: The folder has no pictures, or one of them has no caption.
    """
    paths = files_in(folder)
    if not paths:
        raise ConfigError(
            f"pictures.folder must hold pictures ({', '.join(SUFFIXES)}), got {folder}."
        )
    silent = [path.name for path in paths if not path.with_suffix(CAPTION).is_file()]
    if silent:
        more = f" and {len(silent) - SHOWN} more" if len(silent) > SHOWN else ""
        raise ConfigError(
            f"Each picture must have a text file with its caption beside it, of the same name; "
            f"{', '.join(silent[:SHOWN])}{more} have none: write it, or move the picture away."
        )
    return paths


def files_in(folder: Path) -> list[Path]:
    """List the files of pictures in a folder and its folders, by their names."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def split(pictures: Sequence[Captioned], held_out: int) -> tuple[list[Captioned], list[Captioned]]:
    """Part pictures into those to train on and those to validate on, spread over all names."""
    if held_out >= len(pictures):
        raise ConfigError(
            f"pictures.held_out must be smaller than the number of pictures, {len(pictures)}, got "
            f"{held_out}."
        )
    kept = {(2 * n + 1) * len(pictures) // (2 * held_out) for n in range(held_out)}
    train = [each for n, each in enumerate(pictures) if n not in kept]
    return train, [each for n, each in enumerate(pictures) if n in kept]


def encode_missing(
    clip: Any,
    vae: Any,
    pictures: Sequence[Captioned],
    data: ShardFolder,
    shard: int,
    *,
    share: Share,
    progress: Progress,
    should_stop: Callable[[], bool],
) -> bool:
    """Encode pictures and captions into a folder of shards, except those that it has.

    Args:
        clip: The teacher's text encoders.
        vae: Its VAE.
        pictures: To encode.
        data: Where samples go.
        shard: Pictures per file.
        share: What of them this process encodes.
        progress: Told after each picture.
        should_stop: Asked before each shard.

    Returns:
        Whether all samples of this process are there.
    """
    done = data.seeds()
    missing = [each for each in pictures if each.seed not in done]
    pieces = list(enumerate(_pieces(missing, shard)))
    own = share.of(pieces, cost=lambda piece: len(piece[1]) * math.prod(piece[1][0].size_px))
    part = share.part_of(data)
    there = len(pictures) - len(missing)
    whole = there + sum(len(piece) for _, piece in own)
    progress(there, whole)
    for number, piece in own:
        if should_stop():
            return False
        latents: list[Tensor] = []
        texts: dict[int, Prompt] = {}
        with torch.no_grad(), request_to_stop_kept():
            texts = {n: encode(clip, each.caption) for n, each in enumerate(piece)}
            latents = [vae.encode(pixels(each)) for each in piece]
        if not latents:  # the user's request broke the encoding off
            return False
        for group, rows in enumerate(by_length(range(len(piece)), texts)):
            share.add(part, _samples(piece, latents, texts, rows), number * shard + group)
        there += len(piece)
        progress(there, whole)
    return True


def pixels(picture: Captioned) -> Tensor:
    """Return a picture scaled to cover its size, and cropped around the middle.

    Returns:
        ``[1, H, W, 3]`` in [0, 1].

    Raises:
        ConfigError: Its file is damaged.
    """
    height, width = picture.size_px
    with readable(picture.path), Image.open(picture.path) as image:
        turned = ImageOps.exif_transpose(image).convert("RGB")
        fitted = ImageOps.fit(turned, (width, height), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(fitted, dtype=np.float32) / 255)[None]


@contextmanager
def readable(path: Path) -> Generator[None]:
    """Turn what reading a damaged picture raises into one sentence.

    Raises:
        ConfigError: In place of it.
    """
    try:
        yield
    except UNREADABLE as error:
        known = isinstance(error, OSError) and error.strerror
        reason = known or "it is damaged, too large, or no picture"
        raise ConfigError(
            f"{path} cannot be read ({reason}): replace it, or move it away with its caption."
        ) from error


def size_near(width: int, height: int, area_px: int) -> tuple[int, int]:
    """Return the height and width, in steps of 64 pixels, nearest to an aspect ratio and an area.

    Args:
        width: Of the picture.
        height: Of the picture.
        area_px: Pixels wanted.
    """
    ratio = min(WIDEST, max(1 / WIDEST, width / height))
    wide = max(1, round(math.sqrt(area_px * ratio) / STEP_PX))
    high = max(1, round(area_px / (wide * STEP_PX) / STEP_PX))
    return high * STEP_PX, wide * STEP_PX


def _read(path: Path, area_px: int) -> Captioned:
    text = path.with_suffix(CAPTION)
    with readable(path):
        content = path.read_bytes()
        with Image.open(BytesIO(content)) as image:
            width, height = ImageOps.exif_transpose(image).size
    try:
        caption = " ".join(text.read_text("utf-8-sig").split())
    except UnicodeDecodeError as error:
        raise ConfigError(f"The caption {text} must be UTF-8 text: save it as such.") from error
    except OSError as error:
        raise ConfigError(f"The caption {text} cannot be read ({reason_of(error)}).") from error
    digest = hashlib.sha256(content + caption.encode()).digest()
    # Positive, and apart from the small numbers of what the teacher paints.
    seed = int.from_bytes(digest[:8], "big") % 2**61 + 2**61
    return Captioned(path, caption, size_near(width, height, area_px), seed)


def _pieces(pictures: Sequence[Captioned], shard: int) -> list[list[Captioned]]:
    """Cut pictures into what becomes a shard, or one for each length of caption."""
    groups: dict[tuple[int, int], list[Captioned]] = {}
    for each in pictures:
        groups.setdefault(each.size_px, []).append(each)
    return [piece for group in groups.values() for piece in chunks(group, shard)]


def _samples(
    piece: Sequence[Captioned],
    latents: Sequence[Tensor],
    texts: dict[int, Prompt],
    rows: Sequence[int],
) -> Samples:
    text = stack([texts[row] for row in rows])
    return Samples(
        latent=torch.cat([latents[row] for row in rows]).half().cpu(),
        context=text.context.bfloat16(),
        pooled=text.pooled.bfloat16(),
        seed=torch.tensor([piece[row].seed for row in rows]),
    )
