"""Held-out data of a validation: each picture once, at noise levels spread over the whole range."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...spread import spread
from ..config import Training
from .batches import Batch, Batches, own_noise, seed_of
from .source import Source

SALT = 1
"""Distinguishes the noise of validations from what is drawn from the same seed for training."""


class HeldOut:
    """The pictures of a validation, numbered; all validations of a run see the same noise."""

    def __init__(self, data: Source, training: Training) -> None:
        """List the pictures of a folder.

        Args:
            data: The samples.
            training: How many of them, size of a part, seed and noise levels.
        """
        self.batches, self.training = Batches(data, training), training
        places = [(b, row) for b, count in enumerate(self.batches.counts) for row in range(count)]
        self.places = places[: training.validation_samples or len(places)]
        # Those of each prompt, which are every n-th, are spread over the whole range as well.
        self.sigma = self._levels(spread(0, len(self.places), start=0.5)).float()

    def __len__(self) -> int:
        return len(self.places)

    def parts(self, processes: int) -> list[list[int]]:
        """Return the pictures in parts of one size of picture, none larger than an update's.

        Args:
            processes: That share an update.
        """
        found: list[list[int]] = []
        for bucket, size in enumerate(self.batches.sizes):
            numbers = [n for n, (its, _) in enumerate(self.places) if its == bucket]
            most = -(-size // (processes * self.training.accumulate))
            found += [numbers[first : first + most] for first in range(0, len(numbers), most)]
        return found

    def batch(self, numbers: Sequence[int]) -> Batch:
        """Return pictures of one part with their noise.

        Args:
            numbers: Of the pictures.
        """
        bucket = self.places[numbers[0]][0]
        rows = [self.places[number][1] for number in numbers]
        samples = self.batches.buckets[bucket].load(rows)
        painted = self.batches.buckets[bucket].painted
        noise = [
            own_noise(samples, row)
            if painted and self._has_own(number)
            else self._noise(number, samples.latent.shape[1:])
            for row, number in enumerate(numbers)
        ]
        return Batch(samples, torch.stack(noise), self.sigma[list(numbers)])

    def _has_own(self, number: int) -> bool:
        """Return whether a picture has its own noise; these are spread evenly over the numbers."""
        share = self.training.own_noise
        return int((number + 1) * share) > int(number * share)

    def _noise(self, number: int, shape: torch.Size) -> Tensor:
        draw = torch.Generator().manual_seed(seed_of(self.training.seed, SALT, number))
        return torch.randn(shape, generator=draw)

    def _levels(self, shares: Tensor) -> Tensor:
        """Return the noise levels below which training draws these shares of its own."""
        if self.training.timesteps == "logit_normal":
            return torch.sigmoid(torch.special.ndtri(shares) + self.training.timestep_mean)
        return shares
