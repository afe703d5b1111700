"""The photographs that the demo's teacher learns, as crops with captions.

They come with scikit-image and scikit-learn, so that nothing is downloaded. Origins and licences
are listed in demo/README.md.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..codec.crops import folder_of

TEMPLATES = ("{}", "a photograph of {}", "a picture of {}", "{} in the picture", "a photo: {}")
SUFFIXES = (
    *("", "", "highly detailed", "soft light", "sharp focus", "beautiful", "in the morning"),
    *("high resolution", "colourful", "bright", "close-up", "on a fine day", "award-winning"),
)
SMALLEST_CROP = 0.85  # of the shorter edge


@dataclass(frozen=True)
class Photograph:
    """One photograph.

    Attributes:
        package: Package that ships it.
        file: Where it lies in the package.
        phrases: What captions may call its subject.
        centre: Middle of the square that crops are taken from, as shares of width and height.
    """

    package: str
    file: str
    phrases: tuple[str, ...]
    centre: tuple[float, float] = (0.5, 0.5)

    def load(self) -> Image.Image:
        """Open the largest square around the centre.

        Raises:
            ImportError: The package is not installed.
        """
        picture = Image.open(folder_of(self.package) / self.file).convert("RGB")
        edge = min(picture.size)
        left, top = (
            round(min(max(share * size - edge / 2, 0), size - edge))
            for share, size in zip(self.centre, picture.size, strict=True)
        )
        return picture.crop((left, top, left + edge, top + edge))


PHOTOGRAPHS = (
    Photograph("skimage", "data/astronaut.png", ("an astronaut", "a woman in a space suit")),
    Photograph("skimage", "data/chelsea.png", ("a cat", "the face of a cat", "a tabby cat")),
    Photograph("skimage", "data/coffee.png", ("a cup of coffee", "an espresso in a red cup")),
    Photograph("skimage", "data/rocket.jpg", ("a rocket", "a rocket on its launch pad at dusk")),
    Photograph("skimage", "data/hubble_deep_field.jpg", ("galaxies", "distant galaxies in space")),
    Photograph("skimage", "data/moon.png", ("the moon", "craters on the moon")),
    Photograph("sklearn", "datasets/images/flower.jpg", ("a dahlia", "an orange dahlia flower")),
    Photograph(
        "sklearn",
        "datasets/images/china.jpg",
        ("a pagoda", "a chinese pagoda by a lake"),
        (0.2, 0.5),
    ),
)


def captions(photograph: Photograph, draw: random.Random) -> Iterator[str]:
    """Write captions without end."""
    while True:
        caption = draw.choice(TEMPLATES).format(draw.choice(photograph.phrases))
        suffix = draw.choice(SUFFIXES)
        yield f"{caption}, {suffix}" if suffix else caption


def crops(picture: Image.Image, edge: int, draw: random.Random) -> Iterator[Tensor]:
    """Cut squares of slightly different size and place without end: ``[edge, edge, 3]``."""
    while True:
        size = picture.width * draw.uniform(SMALLEST_CROP, 1.0)
        left, top = (draw.uniform(0, picture.width - size) for _ in range(2))
        box = (left, top, left + size, top + size)
        crop = picture.resize((edge, edge), Image.Resampling.LANCZOS, box=box, reducing_gap=3)
        yield torch.from_numpy(np.asarray(crop, dtype=np.float32) / 255)
