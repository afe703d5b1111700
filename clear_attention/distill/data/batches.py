"""What one update sees, drawn from nothing but the seed and the number of the step.

There is no state to save: a run that goes on after a kill draws what it would have drawn, and each
of several processes draws the whole batch and takes its share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ...families import DEFAULT
from ..config import Training
from .shards import Samples
from .source import Source

SALT = 0
"""Distinguishes what is drawn for updates from what is drawn from the same seed otherwise."""

PATCH_AREA = DEFAULT.patch**2  # latent pixels per token


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples with the noise and the noise levels at which the model sees them.

    Attributes:
        samples: The clean latents and their conditioning.
        noise: ``[B, C, H, W]`` float32, standard normal.
        sigma: ``[B]`` float32 in (0, 1].
    """

    samples: Samples
    noise: Tensor
    sigma: Tensor

    def __len__(self) -> int:
        return len(self.samples)

    def part(self, index: int, parts: int) -> Batch:
        """Return every ``parts``-th sample from number ``index`` on."""
        return self._rows(slice(index, None, parts))

    def first(self, count: int) -> Batch:
        """Return the first samples."""
        return self._rows(slice(count))

    def _rows(self, rows: slice) -> Batch:
        mine = Samples(**{name: value[rows] for name, value in vars(self.samples).items()})
        return Batch(mine, self.noise[rows], self.sigma[rows])

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        samples = Samples(**{name: value.to(device) for name, value in vars(self.samples).items()})
        return Batch(samples, self.noise.to(device), self.sigma.to(device))


class DrawsBatches(Protocol):
    """What a trainer takes its batches from."""

    def draw(self, step: int) -> Batch:
        """Return the batch of a step, the same on every call."""
        ...

    def identity(self, samples: int | None = None) -> dict[str, Any]:
        """Return what distinguishes its samples from others, see `ShardFolder.identity`."""
        ...


class Batches:
    """Draws batches of one size of picture each; sizes come up by their number of batches."""

    def __init__(self, data: Source, training: Training) -> None:
        """Draw from a folder.

        Args:
            data: The samples.
            training: Size of a batch, seed and noise levels.
        """
        self.data, self.training = data, training
        self.buckets = data.buckets()
        if not self.buckets:
            raise ValueError(f"{data.folder} holds no samples.")
        self.sizes = [self._batch_size(bucket.latent) for bucket in self.buckets]
        counts = self.counts = [len(bucket) for bucket in self.buckets]
        self.weights = torch.tensor([n / b for n, b in zip(counts, self.sizes, strict=True)])

    def draw(self, step: int) -> Batch:
        """Return the batch of a step, the same on every call."""
        draw = torch.Generator().manual_seed(seed_of(self.training.seed, SALT, step))
        bucket = int(torch.multinomial(self.weights, 1, generator=draw))
        size = self.sizes[bucket]
        # Without repetition where there are enough.
        enough = self.counts[bucket] >= size
        chance = torch.ones(self.counts[bucket])
        rows = torch.multinomial(chance, size, replacement=not enough, generator=draw).tolist()
        samples = self.buckets[bucket].load(rows)
        noise = torch.randn(samples.latent.shape, generator=draw)
        sigma = draw_sigma(self.training, size, draw)
        if self.training.own_noise and self.buckets[bucket].painted:
            own = torch.rand(size, generator=draw) < self.training.own_noise
            for row in own.nonzero().flatten().tolist():
                noise[row] = own_noise(samples, row)
        return Batch(samples, noise, sigma)

    def identity(self, samples: int | None = None) -> dict[str, Any]:
        """Return what distinguishes the samples from others, see `ShardFolder.identity`."""
        return self.data.identity(samples)

    def _batch_size(self, latent: tuple[int, ...]) -> int:
        if not self.training.batch_tokens:
            return self.training.batch
        tokens = latent[-1] * latent[-2] // PATCH_AREA
        return max(1, self.training.batch_tokens // tokens)


def draw_sigma(training: Training, size: int, draw: torch.Generator) -> Tensor:
    """Draw the noise levels of a batch, ``[B]`` float32 in (0, 1]."""
    if training.timesteps == "logit_normal":
        return torch.sigmoid(torch.randn(size, generator=draw) + training.timestep_mean)
    return torch.randint(1, 1001, (size,), generator=draw) / 1000  # as the paper's code


def own_noise(samples: Samples, row: int) -> Tensor:
    """Return the noise from which a sample was painted, ``[C, H, W]``: what the host drew for it.

    A sampler never sees a picture in other noise. That a model is right in new noise does not make
    it right in this one, in which the picture has its layout.
    """
    draw = torch.Generator().manual_seed(int(samples.seed[row]))
    return torch.randn(samples.latent.shape[1:], generator=draw)


def seed_of(*numbers: int) -> int:
    """Mix numbers into one seed, so that neighbours have nothing in common."""
    mixed = 0x9E3779B97F4A7C15
    for number in numbers:
        mixed = ((mixed ^ number) * 0xBF58476D1CE4E5B9) % 2**64
        mixed ^= mixed >> 31
    return mixed % 2**63
