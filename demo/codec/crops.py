"""Crops of the photographs that scikit-image and scikit-learn bring along, to train the codec."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

# Not camera.png: tests decode a part of it, as a photograph that the decoder has not seen.
SCIKIT_IMAGE = (
    *("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "hubble_deep_field.jpg"),
    *("retina.jpg", "ihc.png", "coins.png", "moon.png"),
)
SCIKIT_LEARN = ("china.jpg", "flower.jpg")

SCALES = (1.0, 0.7, 0.5, 0.35)
CHANNEL_ORDERS = torch.tensor([[0, 1, 2], [0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 2, 1], [2, 1, 0]])


def photographs() -> Iterator[Image.Image]:
    """Yield the photographs to train on, in RGB."""
    images, learn = folder_of("skimage") / "data", folder_of("sklearn") / "datasets" / "images"
    for path in [images / name for name in SCIKIT_IMAGE] + [learn / name for name in SCIKIT_LEARN]:
        with Image.open(path) as image:
            yield image.convert("RGB")


def folder_of(package: str) -> Path:
    """Find an installed package without importing it."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            f"{package} must be installed for its photographs: "
            "python -m pip install scikit-image scikit-learn"
        )
    return Path(spec.submodule_search_locations[0])


@dataclass(frozen=True)
class Crops:
    """Draws square crops of photographs at several scales.

    Attributes:
        pyramids: Of each photograph its sizes, ``[3, H, W]`` in bytes.
        edge_px: Of a crop.
    """

    pyramids: list[list[Tensor]]
    edge_px: int

    @classmethod
    def of_photographs(cls, edge_px: int) -> Crops:
        """Read the photographs."""
        return cls([list(pyramid(image, edge_px)) for image in photographs()], edge_px)

    def draw(self, count: int, draw: torch.Generator) -> Tensor:
        """Return crops ``[count, H, W, 3]`` in [0, 1], mirrored, turned and recoloured."""
        return torch.stack([self.draw_one(draw) for _ in range(count)])

    def draw_one(self, draw: torch.Generator) -> Tensor:
        """Return one crop ``[H, W, 3]``."""
        sizes = self.pyramids[below(len(self.pyramids), draw)]
        photo = sizes[below(len(sizes), draw)]
        top, left = (below(size - self.edge_px + 1, draw) for size in photo.shape[1:])
        crop = photo[:, top : top + self.edge_px, left : left + self.edge_px]
        crop = crop[CHANNEL_ORDERS[below(len(CHANNEL_ORDERS), draw)]]
        if below(2, draw):
            crop = crop.flip(2)
        return crop.rot90(below(4, draw), (1, 2)).permute(1, 2, 0).float() / 255


def pyramid(image: Image.Image, least_px: int) -> Iterator[Tensor]:
    """Yield a picture at all scales at which no edge is shorter than ``least_px``."""
    for scale in SCALES:
        width, height = (round(edge * scale) for edge in image.size)
        if min(width, height) >= least_px:
            yield pil_to_tensor(image.resize((width, height), Image.Resampling.LANCZOS))


def below(limit: int, draw: torch.Generator) -> int:
    """Draw a number from 0 to ``limit - 1``."""
    return int(torch.randint(limit, (), generator=draw))
