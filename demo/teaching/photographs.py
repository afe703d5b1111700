"""The photographs that the demo's teacher learns, with captions, and squares cut from them.

One comes with scikit-image, the others with a Debian package of wallpapers, so that nothing is
downloaded from elsewhere. Origins and licences are listed in demo/README.md.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..codec.crops import folder_of

WALLPAPERS = Path("/usr/share/backgrounds")
DEBIAN_PACKAGE = "lomiri-wallpapers-16.04"
TEMPLATES = ("{}", "a photograph of {}", "a picture of {}", "{} in the picture", "a photo: {}")
SUFFIXES = (
    *("", "", "highly detailed", "soft light", "sharp focus", "beautiful", "in the morning"),
    *("high resolution", "colourful", "bright", "close-up", "on a fine day", "award-winning"),
)
SMALLEST_SQUARE = 0.92  # of the largest


@dataclass(frozen=True)
class Photograph:
    """One photograph.

    Attributes:
        file: Its path, or its name in scikit-image.
        phrases: What captions may call its subject.
        centre: Middle of the largest square that is cut, as shares of width and height.
        endless: Whether it goes on beyond its edges, mirrored, where a larger picture is wanted.
    """

    file: str
    phrases: tuple[str, ...]
    centre: tuple[float, float] = (0.5, 0.5)
    endless: bool = False

    def load(self, edge: int = 0) -> Image.Image:
        """Open the largest square around the centre.

        Args:
            edge: Pixels that are wanted; a photograph without end is repeated to have as many.

        Raises:
            FileNotFoundError: The package is not installed.
        """
        found = WALLPAPERS / self.file
        if not found.exists():
            found = folder_of("skimage") / "data" / self.file
        if not found.exists():
            raise FileNotFoundError(
                f"{self.file} is missing; it comes with a Debian package: "
                f"apt install {DEBIAN_PACKAGE}"
            )
        picture = opened(found)
        short = min(picture.size)
        left, top = (
            round(min(max(share * size - short / 2, 0), size - short))
            for share, size in zip(self.centre, picture.size, strict=True)
        )
        square = picture.crop((left, top, left + short, top + short))
        return mirrored(square, edge) if self.endless else square


@functools.lru_cache(maxsize=1)
def opened(path: Path) -> Image.Image:
    """Read a picture in RGB."""
    return Image.open(path).convert("RGB")


def mirrored(square: Image.Image, edge: int) -> Image.Image:
    """Repeat a square, every other time mirrored, until it is nearly as large as wanted."""
    times = max(1, round(edge / square.width))
    pixels = np.asarray(square)
    for axis in (0, 1):
        flipped = np.flip(pixels, axis)
        parts = [flipped if number % 2 else pixels for number in range(times)]
        pixels = np.concatenate(parts, axis)
    return Image.fromarray(pixels)


PHOTOGRAPHS = (
    Photograph("hubble_deep_field.jpg", ("galaxies", "distant galaxies in space"), endless=True),
    Photograph(
        "picosdeeuropa_by_Aitzol_Berasategi.jpg",
        ("mountains", "a path in the mountains", "rocky mountains"),
    ),
    Photograph(
        "life_by_Aitzol_Berasategi.jpg", ("a brook", "a brook in the forest", "a forest brook")
    ),
    Photograph(
        "sunset_by_Aitzol_Berasategi.jpg", ("a sunset", "a sunset over the hills"), (0.6, 0.5)
    ),
    Photograph(
        "seeding_by_Clements_Engelhardt.jpg",
        ("dandelions", "dandelions in a meadow", "a dandelion"),
        (0.4, 0.5),
    ),
    Photograph("Dragonfly_by_Bolly.jpg", ("leaves", "the leaves of a tree", "green leaves")),
)
UNSEEN = Photograph("aitzgorri_by_Aitzol_Berasategi.jpg", ("mountains",))
"""The one that the model has not learned, to compare enlarged pictures with."""


def captions(photograph: Photograph, draw: random.Random) -> Iterator[str]:
    """Write captions without end."""
    while True:
        caption = draw.choice(TEMPLATES).format(draw.choice(photograph.phrases))
        suffix = draw.choice(SUFFIXES)
        yield f"{caption}, {suffix}" if suffix else caption


def squares(picture: Image.Image, edge: int, draw: random.Random) -> Iterator[Tensor]:
    """Cut squares of slightly different size and place without end: ``[edge, edge, 3]``."""
    while True:
        size = picture.width * draw.uniform(SMALLEST_SQUARE, 1.0)
        left, top = (draw.uniform(0, picture.width - size) for _ in range(2))
        box = (left, top, left + size, top + size)
        crop = picture.resize((edge, edge), Image.Resampling.LANCZOS, box=box, reducing_gap=3)
        yield torch.from_numpy(np.asarray(crop, dtype=np.float32) / 255)
