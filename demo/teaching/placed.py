"""Parts of large pictures that keep their places in them: what the demo's teacher trains on.

A part of 384 pixels costs what a picture of 384 pixels costs, but its tokens have the rotary
positions that they have in the whole. So the teacher learns pictures of 2048 pixels without ever
seeing one at once.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from clear_attention.distill.config import Training
from clear_attention.distill.data.batches import Batch, draw_sigma, seed_of
from clear_attention.distill.data.shards import Samples
from clear_attention.distill.tasks import FlowMatching
from clear_attention.sampling.pyramid import AUTHORS_NTK

from ..codec.latents import BLOCK, encode
from ..nodes import text
from ..nodes.sizes import PATCH
from ..students import TRAINED_PX
from .photographs import PHOTOGRAPHS, Photograph, captions, squares

TOKEN_PX = BLOCK * PATCH


@dataclass(frozen=True)
class Part:
    """How pictures are seen.

    Attributes:
        picture_px: Edge of the whole.
        part_px: Edge of what is seen of it.
        share: How often, as a share of all updates.
        pictures: How many of each photograph, which differ a little.
        ntk_factors: Factors on the rotary base, one of which is drawn.
    """

    picture_px: int
    part_px: int
    share: float
    pictures: int
    ntk_factors: tuple[float, ...] = (1.0,)


PARTS = (
    Part(TRAINED_PX, TRAINED_PX, 0.36, 96),
    Part(768, 768, 0.08, 24, (1.0, AUTHORS_NTK)),
    Part(512, TRAINED_PX, 0.08, 48, (1.0, AUTHORS_NTK)),
    Part(768, TRAINED_PX, 0.12, 24, (1.0, AUTHORS_NTK)),
    Part(1024, TRAINED_PX, 0.12, 16, (1.0, AUTHORS_NTK)),
    Part(1536, TRAINED_PX, 0.12, 10, (AUTHORS_NTK,)),
    Part(2048, TRAINED_PX, 0.12, 6, (AUTHORS_NTK,)),
)
"""Beyond 1024 pixels always with the rotary base of CLEAR High Resolution, as workflows have it."""


@dataclass(frozen=True, eq=False)
class PlacedBatch(Batch):
    """A batch of parts from the same place of their pictures.

    Attributes:
        at: Row and column of their first token.
        ntk_factor: Factor on the rotary base.
    """

    at: tuple[int, int] = (0, 0)
    ntk_factor: float = 1.0

    def _rows(self, rows: slice) -> Batch:
        return self._placed(super()._rows(rows))

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        return self._placed(super().to(device))

    def _placed(self, batch: Batch) -> Batch:
        return PlacedBatch(**vars(batch), at=self.at, ntk_factor=self.ntk_factor)


class PlacedTraining(FlowMatching):
    """Flow matching on parts with the positions that they have in the whole."""

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the flow-matching error."""
        if not isinstance(batch, PlacedBatch):
            return super().forward(batch)
        row, column = batch.at
        denoiser: Any = self.denoiser  # of the host
        options = denoiser.patcher.model_options["transformer_options"]
        options["rope_options"] = {"shift_y": float(row), "shift_x": float(column)}
        positions: Any = self.network.pe_embedder
        theta = positions.theta
        positions.theta = theta * batch.ntk_factor
        try:
            return super().forward(batch)
        finally:
            positions.theta = theta
            del options["rope_options"]


class PlacedBatches:
    """Draws batches; all pictures are in memory as latents, of which parts are cut."""

    def __init__(
        self,
        training: Training,
        photographs: Sequence[Photograph] = PHOTOGRAPHS,
        parts: Sequence[Part] = PARTS,
    ) -> None:
        """Read and encode the photographs.

        Args:
            training: Size of a batch, seed and noise levels.
            photographs: What is learned.
            parts: How it is seen.
        """
        self.training, self.photographs, self.parts = training, photographs, parts
        self.pictures = {
            (part.picture_px, photograph): latents(photograph, part)
            for photograph in photographs
            for part in {part.picture_px: part for part in parts}.values()  # each size once
        }

    def identity(self, samples: int | None = None) -> dict[str, Any]:
        """Return what the batches depend on."""
        return {
            "parts": [list(vars(part).values()) for part in self.parts],
            "photographs": [photograph.file for photograph in self.photographs],
        }

    def draw(self, step: int) -> Batch:
        """Return the batch of a step, the same on every call."""
        draw = random.Random(seed_of(self.training.seed, 0, step))
        (part,) = draw.choices(self.parts, [part.share for part in self.parts])
        tokens = part.part_px // TOKEN_PX
        size = max(1, self.training.batch_tokens // tokens**2)
        seen = draw.sample(self.photographs, min(size, len(self.photographs)))
        row, column = (draw.randint(0, part.picture_px // TOKEN_PX - tokens) for _ in range(2))
        rows, columns = (slice(at * PATCH, (at + tokens) * PATCH) for at in (row, column))
        factor = draw.choice(part.ntk_factors)
        choices = [draw.choice(self.pictures[part.picture_px, one]) for one in seen]
        latent = torch.stack([choice[:, rows, columns] for choice in choices])
        words = [text.words_of(next(captions(one, draw))) for one in seen]
        samples = Samples(
            latent=latent,
            context=torch.cat([text.embed(line) for line in words]),
            pooled=torch.cat([text.pool(line) for line in words]),
            seed=torch.zeros(len(seen), dtype=torch.long),
        )
        of_noise = torch.Generator().manual_seed(seed_of(self.training.seed, step))
        noise = torch.randn(latent.shape, generator=of_noise)
        sigma = draw_sigma(self.training, len(seen), of_noise)
        return PlacedBatch(samples, noise, sigma, (row, column), factor)


def latents(photograph: Photograph, part: Part) -> list[Tensor]:
    """Encode slightly different squares of a photograph, float16."""
    draw = random.Random(f"0 {part.picture_px} {photograph.file}")
    picture = photograph.load(part.picture_px)
    cut = islice(squares(picture, part.picture_px, draw), part.pictures)
    return [encode(square[None])[0].half() for square in cut]
