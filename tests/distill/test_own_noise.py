"""Samples in the noise from which they were painted, as a sampler sees them."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parent))

import toy

from clear_attention.distill.data.batches import Batch, Batches
from clear_attention.distill.data.held_out import HeldOut
from clear_attention.distill.data.shards import ShardFolder

PAINTED = {"sampler": "euler"}
STEPS = range(20)


@pytest.fixture
def painted(tmp_path: Path) -> ShardFolder:
    return filled(tmp_path / "painted", PAINTED)


def filled(folder: Path, made_with: dict[str, str]) -> ShardFolder:
    data = ShardFolder(folder, made_with)
    data.add(dataclasses.replace(toy.samples(8), seed=torch.arange(100, 108)))
    return data


def with_share(share: float):
    return dataclasses.replace(toy.TRAINING, own_noise=share)


def own(batch: Batch) -> list[bool]:
    """Say of which samples the noise is that of their seed."""
    found: list[bool] = []
    for seed, noise in zip(batch.samples.seed.tolist(), batch.noise, strict=True):
        torch.manual_seed(seed)  # as the host draws a picture's noise
        found.append(torch.equal(noise, torch.randn(1, *noise.shape)[0]))
    return found


def test_without_a_share_all_noise_is_new(painted: ShardFolder):
    batches = Batches(painted, toy.TRAINING)
    assert not any(any(own(batches.draw(step))) for step in STEPS)


def test_a_whole_share_gives_all_samples_their_own(painted: ShardFolder):
    batches = Batches(painted, with_share(1.0))
    assert all(all(own(batches.draw(step))) for step in STEPS)


def test_a_share_leaves_the_rest_of_a_batch_as_it_is(painted: ShardFolder):
    before, now = Batches(painted, toy.TRAINING), Batches(painted, with_share(0.5))
    count = 0
    for step in STEPS:
        old, new = before.draw(step), now.draw(step)
        assert torch.equal(old.samples.seed, new.samples.seed)
        assert torch.equal(old.sigma, new.sigma)
        kept = [torch.equal(*pair) for pair in zip(old.noise, new.noise, strict=True)]
        assert kept == [not each for each in own(new)]
        count += sum(own(new))
    assert 0.3 < count / (len(STEPS) * toy.TRAINING.batch) < 0.7


def test_photographs_have_no_noise_of_their_own(tmp_path: Path):
    photographs = filled(tmp_path, {"area_px": "4096"})
    batch = Batches(photographs, with_share(1.0)).draw(0)
    assert not any(own(batch))
    assert torch.equal(batch.noise, Batches(photographs, toy.TRAINING).draw(0).noise)


@pytest.mark.parametrize(("share", "with_own"), [(0.0, []), (0.5, [1, 3, 5, 7]), (1.0, range(8))])
def test_held_out_pictures_with_their_own_are_spread(share, with_own, painted: ShardFolder):
    batch = HeldOut(painted, with_share(share)).batch(range(8))
    assert [number for number, each in enumerate(own(batch)) if each] == list(with_own)
