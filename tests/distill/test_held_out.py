"""Validation: each held-out picture once, in parts as an update's, and the best is kept."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parent))

import toy

from clear_attention.distill import log
from clear_attention.distill.data.held_out import HeldOut
from clear_attention.distill.data.shards import ShardFolder
from clear_attention.distill.updates.best import Best


@pytest.fixture
def data(tmp_path: Path) -> ShardFolder:
    """Seven pictures of two sizes."""
    folder = ShardFolder(tmp_path / "held_out", {})
    folder.add(toy.samples(5, seed=1))
    folder.add(toy.samples(2, seed=2, grid=4))
    return folder


def held_out(data: ShardFolder, **changes: object) -> HeldOut:
    return HeldOut(data, dataclasses.replace(toy.TRAINING, **changes))


@pytest.mark.parametrize("accumulate", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("processes", [1, 2])
def test_each_picture_is_in_one_part_none_larger_than_an_updates(accumulate, processes, data):
    pictures = held_out(data, accumulate=accumulate)
    parts = pictures.parts(processes)
    assert sorted(number for part in parts for number in part) == list(range(7))
    of_update = -(-toy.TRAINING.batch // (processes * accumulate))
    assert max(map(len, parts)) == min(of_update, 5)
    assert all(len(pictures.batch(part)) == len(part) for part in parts)
    seeds = [int(s) for part in parts for s in pictures.batch(part).samples.seed]
    assert sorted(seeds) == [0, 0, 1, 1, 2, 3, 4]


def test_parts_of_an_update_by_tokens_are_parts_of_a_validation(data):
    tokens = 2 * 3 * 3  # two pictures of 6 x 6 latent pixels, 2 x 2 to a token; or four of 4 x 4
    parts = held_out(data, batch_tokens=tokens).parts(1)
    assert sorted(map(len, parts)) == [1, 2, 2, 2]


def test_a_picture_has_its_noise_whatever_the_parts(data):
    whole, alone = held_out(data).batch([0, 1, 2, 3, 4]), held_out(data, accumulate=4).batch([3])
    assert torch.equal(whole.noise[3], alone.noise[0])
    assert torch.equal(whole.sigma[3], alone.sigma[0])
    assert not torch.equal(whole.noise[3], whole.noise[2])
    assert not torch.equal(whole.noise, held_out(data, seed=1).batch([0, 1, 2, 3, 4]).noise)


@pytest.mark.parametrize("step", [1, 2, 3])
def test_noise_levels_cover_the_range_for_the_pictures_of_each_prompt(step, tmp_path):
    """Prompts take turns, so that those of a prompt are every n-th picture."""
    folder = ShardFolder(tmp_path / "many", {})
    folder.add(toy.samples(48))
    levels = held_out(folder).sigma[::step].sort().values
    assert 0 < levels[0] < 3 / len(levels) and 1 - 3 / len(levels) < levels[-1] < 1
    assert levels.diff().max() < 3 / len(levels)
    normal = held_out(folder, timesteps="logit_normal", timestep_mean=0.4).sigma
    assert float(normal.logit().mean()) == pytest.approx(0.4, abs=0.1)
    assert float(normal.logit().std()) == pytest.approx(1, abs=0.15)


def test_fewer_pictures_are_the_first_ones(data):
    assert len(held_out(data)) == 7 and len(held_out(data, validation_samples=9)) == 7
    assert held_out(data, validation_samples=2).parts(1) == [[0, 1]]


def test_losses_do_not_depend_on_the_parts(tmp_path: Path):
    values = [
        toy.trainer(
            tmp_path / str(parts), dataclasses.replace(toy.TRAINING, accumulate=parts)
        ).validate()
        for parts in (1, 3, 4)
    ]
    for one in values[1:]:
        assert one == pytest.approx(values[0], rel=1e-5)


def test_the_best_is_the_smallest_held_out_error():
    best = Best("prediction")
    assert [
        best.take(step, {"prediction": e, "loss": -e}) for step, e in enumerate((3, 2, 2, 4))
    ] == [
        True,
        True,
        False,
        False,
    ]
    assert (best.error, best.step, best.worse) == (2, 1, 2)
    assert not best.take(5, {}) and best.worse == 2
    again = Best("prediction")
    again.recall([(s, "held_out", "prediction", e) for s, e in enumerate((3, 2, 2, 4))])
    again.recall([(9, "train", "prediction", 0.0), (9, "held_out", "loss", 0.0)])
    assert again == best


def scripted(trainer, errors):
    """Let a trainer find these held-out errors, one after the other."""
    given = iter(errors)
    trainer.validate = lambda: {"prediction": next(given), "loss": 0.0}
    return trainer


EVERY_THIRD = dataclasses.replace(toy.TRAINING, validate_every=3)


def test_files_are_written_with_each_state_and_at_each_best_validation(tmp_path: Path):
    trainer, written = scripted(toy.trainer(tmp_path, EVERY_THIRD), (4, 3, 5, 2)), []
    assert trainer.run(written=lambda best: written.append((trainer.step, best)))
    assert written == [
        *((3, False), (3, True)),
        *((6, False), (6, True)),
        *((9, False),),
        *((12, False), (12, True)),
    ]
    assert (trainer.best.error, trainer.best.step) == (2, 12)


def test_the_state_is_there_before_a_validation_that_fails(tmp_path: Path):
    """One that needs more memory than there is loses nothing."""
    trainer = toy.trainer(tmp_path, EVERY_THIRD)

    def fail():
        raise MemoryError

    trainer.validate = fail
    with pytest.raises(MemoryError):
        trainer.run()
    assert toy.trainer(tmp_path, EVERY_THIRD).resume() == 3


def test_patience_ends_a_run_and_a_run_that_goes_on_remembers_its_best(tmp_path: Path):
    patient = dataclasses.replace(EVERY_THIRD, patience=2)
    trainer = scripted(toy.trainer(tmp_path, patient), (4, 5))
    assert not trainer.run(should_stop=lambda: trainer.step == 7)
    again = scripted(toy.trainer(tmp_path, patient), (6, 1))
    assert again.resume() == 7
    assert again.run()
    assert again.step == 9  # 5 and 6 were no better than 4
    assert (again.best.error, again.best.step) == (4, 3)
    rows = log.read(tmp_path / "run")
    assert [row[3] for row in rows if row[1:3] == ("held_out", "prediction")] == [4, 5, 6]
    more = scripted(toy.trainer(tmp_path, EVERY_THIRD), (1,))
    assert more.resume() == 9 and more.run() and more.step == 12


def test_what_patience_ends_between_two_states_is_kept(tmp_path: Path):
    seldom = dataclasses.replace(EVERY_THIRD, patience=1, save_every=100)
    trainer, written = scripted(toy.trainer(tmp_path, seldom), (4, 5)), []
    assert trainer.run(written=lambda best: written.append((trainer.step, best)))
    assert written == [(3, True), (6, False)]
    assert toy.trainer(tmp_path, seldom).resume() == 6


@pytest.mark.parametrize("keep", [1, 3])
def test_as_many_states_are_kept_as_asked_for(keep: int, tmp_path: Path):
    toy.trainer(tmp_path, dataclasses.replace(toy.TRAINING, keep_states=keep)).run()
    names = [path.name for path in sorted((tmp_path / "run").glob("state-*"))]
    assert names == [f"state-{step:07}.safetensors" for step in (3, 6, 9, 12)][-keep:]
