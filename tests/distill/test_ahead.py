"""What a run will take: each part counted by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from clear_attention.distill.ahead import rehearsal
from clear_attention.distill.ahead.disk import There, disk, saves
from clear_attention.distill.ahead.duration import Pass, calculated, duration, validations
from clear_attention.distill.config import Generation, Optimiser, RunConfig, Training
from clear_attention.distill.config_file import read
from clear_attention.distill.data.batches import Batch
from clear_attention.distill.tasks import Distillation
from tools import distill_table
from tools.host import ROOT

from .toy import ADAMW, LOSS, STUDENT, TRAINING, Toy, samples

ONE = Pass(teacher=5.0, student=3.0, update=17.0, step=2.0)


def config(**changes) -> RunConfig:
    training = {k: changes.pop(k) for k in list(changes) if hasattr(Training, k)}
    return RunConfig(
        output=Path("out"),
        folder=Path("run"),
        training=Training(**{"steps": 10, "batch": 4, **training}),
        generation=Generation(**{"steps": 5, **changes}),
        optimiser=Optimiser("adamw"),
    )


def test_a_calculated_update_is_two_ways_there_and_one_back():
    parts = dict(tokens=2.0, full=3.0, local=1.0, trained=0.25)
    one = calculated(**parts, recomputed=False)
    student = 2 * 1.25 + 1  # what is trained is a layer of its own beside the frozen one
    back = 2 * (1 + 2 * 0.25) + 2.5 * 1
    assert (one.teacher, one.student, one.update) == (5, student, 5 + student + back)
    assert calculated(**parts, recomputed=True).update - one.update == student


def test_a_teacher_in_main_memory_is_fetched_three_times_by_an_update():
    parts = dict(tokens=2.0, full=3.0, local=1.0, trained=0.25, recomputed=True)
    here, there = calculated(**parts), calculated(**parts, fetched=0.5)
    assert there.update - here.update == 3 * 0.5
    assert there.teacher == here.teacher  # painting has it on the device
    assert there.student - here.student == 2 * 0.5  # a validation's two ways


def test_the_recipe_for_16_gb_fetches_eight_bits_of_the_teacher_for_each_picture():
    config = read(ROOT / "recipes" / "flux_dev_16gb.toml")
    here = dataclasses.replace(config, training=dataclasses.replace(config.training, offload=False))
    card, weights = distill_table.RUNS["flux_dev_16gb"]
    times = [distill_table.duration_of(each, card, weights) for each in (config, here)]
    seconds = 11_901_408_320 / 25e9
    assert times[0].training - times[1].training == pytest.approx(2000 * 4 * 3 * seconds)
    assert times[0].painting == times[1].painting
    assert "| RTX 4080, 16 GB | rank 64, fp8 | 2000 x 4 | " in distill_table.table()


def test_training_is_updates_of_a_batch_and_a_step_each():
    found = duration(config(), ONE, missing=0, held_out=0)
    assert found.training == 10 * (4 * 17 + 2)
    assert (found.painting, found.validation, found.total) == (0, 0, found.training)
    assert duration(config(), ONE, missing=0, held_out=0, batch=2.5).training == 10 * (2.5 * 17 + 2)


def test_painting_is_steps_of_the_teacher_with_guidance_twice():
    assert duration(config(), ONE, missing=3, held_out=0).painting == 3 * 5 * 5
    assert duration(config(cfg=3.0), ONE, missing=3, held_out=0).painting == 2 * 3 * 5 * 5


@pytest.mark.parametrize(("every", "times"), [(0, 1), (5, 2), (4, 3)])
def test_validations_pass_through_both_and_paint_both(every, times):
    plain = duration(config(validate_every=every), ONE, missing=0, held_out=6)
    assert plain.validation == times * 6 * (5 + 3)
    for held_out, shown in ((6, 4), (2, 2)):
        given = dict(missing=0, held_out=held_out)
        for cfg, calls in ((1.0, 5), (3.0, 10)):
            settings = config(validate_every=every, cfg=cfg)
            shows = duration(settings, ONE, **given, shows=True).validation
            hides = duration(settings, ONE, **given).validation
            assert shows - hides == times * shown * calls * (5 + 3)
    some = duration(config(validate_every=every, validation_samples=2), ONE, missing=0, held_out=6)
    assert some.validation == times * 2 * (5 + 3)


@pytest.mark.parametrize("every", [0, 1, 3, 4, 10, 11])
@pytest.mark.parametrize("done", [0, 3, 4, 7, 9, 10, 12])
def test_validations_are_counted_as_the_trainer_makes_them(every, done):
    training = config(validate_every=every).training
    made = [n for n in range(done + 1, 11) if n == 10 or (every and n % every == 0)]
    assert validations(training, done) == len(made)


def test_what_is_done_takes_no_time_and_processes_share_the_rest():
    whole = duration(config(), ONE, missing=2, held_out=4)
    half = duration(config(), ONE, missing=2, held_out=4, processes=2)
    assert half.training == 10 * (4 * 17 / 2 + 2)  # each steps
    assert half.validation == whole.validation / 2
    assert half.painting == whole.painting / 2
    rest = duration(config(), ONE, missing=2, held_out=4, done=7)
    assert rest.training == pytest.approx(0.3 * whole.training)
    assert duration(config(), ONE, missing=0, held_out=4, shows=True, done=12).total == 0


@pytest.fixture
def rehearse(monkeypatch):
    """Rehearse on three pictures; each call of the model takes as long as all before it."""
    calls: list[tuple[int, bool, bool]] = []
    task = Distillation(Toy(), TRAINING, STUDENT, LOSS)
    velocity = task.denoiser.velocity

    def counted(noisy, sigma, samples, *, local=None, **kwargs):
        calls.append((len(noisy), local is not None, torch.is_grad_enabled()))
        return velocity(noisy, sigma, samples, local=local, **kwargs)

    monkeypatch.setattr(task.denoiser, "velocity", counted)
    monkeypatch.setattr(rehearsal, "clock", lambda: float(1 << len(calls)))
    drawn = samples(3)
    batch = Batch(drawn, torch.randn(drawn.latent.shape), torch.full((3,), 0.5))

    def rehearse(**given):
        before = [each.detach().clone() for each in task.parameters()]
        found = rehearsal.rehearse(task, batch, ADAMW, **given)
        after = list(task.parameters())
        assert any(not torch.equal(one, two) for one, two in zip(before, after, strict=True))
        return found, calls

    return rehearse


UPDATE = [(3, False, False), (3, True, True)]


def test_a_rehearsal_counts_the_second_run_of_each_way_for_one_picture(rehearse):
    found, calls = rehearse(painted=2)
    teacher, student = (2, False, False), (2, True, False)
    assert calls == [*UPDATE, *UPDATE, teacher, teacher, student, student]
    # Of the second runs: after 2, 5 and 7 calls, until 4, 6 and 8.
    ways = [(64 - 32) / 2, (256 - 128) / 2, (16 - 4) / 3]
    assert found == Pass(*ways, step=0)


def test_where_little_is_left_the_first_update_is_a_bound(rehearse):
    asked = []

    def left(one):
        asked.append(one)
        return seconds

    seconds = 3 * rehearsal.FEW - 0.01
    found, calls = rehearse(left=left)
    assert calls == UPDATE
    assert found == Pass(*(3 * [(4 - 1) / 3]), step=0, at_most=True)
    assert asked == [found]
    told = duration(config(), found, missing=1, held_out=1)
    assert told.at_most and told.training == 10 * 4 * 1
    seconds *= 2**4  # the clock's later calls take longer
    assert not rehearse(left=left)[0].at_most


def test_the_mean_is_that_of_all_pictures():
    other = Pass(teacher=1.0, student=1.0, update=1.0, step=2.0)
    assert rehearsal.mean([ONE, other], [3, 1]) == Pass(4.0, 2.5, 13.0, 2.0)
    bound = dataclasses.replace(other, at_most=True)
    assert rehearsal.mean([ONE, bound], [3, 1]).at_most


def test_sizes_between_those_rehearsed_take_what_lies_between():
    known = {100: ONE, 200: Pass(9.0, 7.0, 21.0, 2.0), 400: Pass(1.0, 1.0, 1.0, 1.0)}
    assert rehearsal.between(known, 100) == ONE
    assert rehearsal.between(known, 400) == known[400]
    assert rehearsal.between(known, 125) == Pass(6.0, 4.0, 18.0, 2.0)
    assert rehearsal.between(
        dict.fromkeys(known, dataclasses.replace(ONE, at_most=True)), 300
    ).at_most


def test_the_disk_holds_data_one_state_more_than_is_kept_and_two_files():
    found = disk(config(save_every=2), trained=100, latents=7 * 30, texts=2 * 20)
    assert found.data == (7 * 30 + 2 * 20) * 2
    assert found.states == 3 * (1 + 2) * 100 * 4  # two kept, one being written; AdamW
    assert found.files == 2 * 100 * 2
    averaged = config(ema_decay=0.9, keep_states=1, save_every=2)
    averaged = dataclasses.replace(averaged, optimiser=Optimiser())
    assert disk(averaged, trained=100, latents=0, texts=0).states == 2 * 6 * 100 * 4


@pytest.mark.parametrize(
    ("there", "states", "files"),
    [
        (There(done=10, states=2, file=True, best=True), 0, 0),
        (There(done=10, states=2), 0, 1),  # the run's own is written from the last state
        (There(done=6, states=2, file=True), 1, 1),  # one makes way for the next
        (There(done=1, states=1, file=True, best=True), 2, 0),
        (There(done=9, states=4, file=True, best=True), 1, 0),  # more than are kept from now on
        (There(done=8, states=1, file=True, best=True), 1, 0),  # one is left to write
    ],
)
def test_what_is_on_the_disk_already_is_not_counted_again(there, states, files):
    found = disk(config(save_every=2), trained=100, latents=0, texts=0, there=there)
    assert (found.states, found.files) == (states * (1 + 2) * 100 * 4, files * 100 * 2)


@pytest.mark.parametrize("every", [1, 3, 4, 10, 11])
@pytest.mark.parametrize("done", [0, 3, 4, 9, 10, 12])
def test_states_are_counted_as_the_trainer_writes_them(every, done):
    made = [n for n in range(done + 1, 11) if n == 10 or n % every == 0]
    assert saves(config(save_every=every).training, done) == len(made)


def test_the_documentation_has_the_table_of_the_recipes():
    text = distill_table.DOCS.read_text(encoding="utf-8")
    between = text.split(distill_table.START)[1].split(distill_table.END)[0]
    assert between.strip() == distill_table.table(), "run python3 tools/distill_table.py"
