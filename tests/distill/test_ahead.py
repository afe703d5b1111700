"""What a run will take: each part counted by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from clear_attention.distill.ahead.disk import disk
from clear_attention.distill.ahead.duration import Pass, duration
from clear_attention.distill.config import Generation, Optimiser, RunConfig, Training
from tools import distill_table

ONE = Pass(tokens=2.0, full=3.0, local=1.0, trained=0.25)


def config(**changes) -> RunConfig:
    training = {k: changes.pop(k) for k in list(changes) if hasattr(Training, k)}
    return RunConfig(
        output=Path("out"),
        folder=Path("run"),
        training=Training(**{"steps": 10, "batch": 4, **training}),
        generation=Generation(**{"steps": 5, **changes}),
        optimiser=Optimiser("adamw"),
    )


def test_an_update_is_two_ways_there_and_one_back():
    found = duration(config(), ONE, missing=0, held_out=0)
    back = 2 * 1.25 + 2.5 * 1
    assert found.training == 10 * 4 * ((2 + 3) + (2 + 1) + back)
    again = duration(config(gradient_checkpointing=True), ONE, missing=0, held_out=0)
    assert again.training - found.training == 10 * 4 * (2 + 1)
    assert (found.painting, found.validation, found.total) == (0, 0, found.training)


def test_painting_is_steps_of_the_teacher_with_guidance_twice():
    assert duration(config(), ONE, missing=3, held_out=0).painting == 3 * 5 * 5
    assert duration(config(cfg=3.0), ONE, missing=3, held_out=0).painting == 2 * 3 * 5 * 5


@pytest.mark.parametrize(("every", "times"), [(0, 1), (5, 2), (4, 3)])
def test_validations_pass_through_both_and_paint_both(every, times):
    plain = duration(config(validate_every=every), ONE, missing=0, held_out=6)
    assert plain.validation == times * 6 * (5 + 3)
    shown = duration(config(validate_every=every), ONE, missing=0, held_out=6, shows=True)
    assert shown.validation - plain.validation == times * 4 * 5 * (5 + 3)


def test_what_is_done_takes_no_time_and_processes_share_the_rest():
    whole = duration(config(), ONE, missing=2, held_out=4)
    half = duration(config(), ONE, missing=2, held_out=4, processes=2)
    assert (half.training, half.validation) == (whole.training / 2, whole.validation / 2)
    assert half.painting == whole.painting / 2
    rest = duration(config(), ONE, missing=2, held_out=4, done=7)
    assert rest.training == pytest.approx(0.3 * whole.training)
    assert duration(config(), ONE, missing=0, held_out=0, done=12).total == 0


def test_the_disk_holds_data_one_state_more_than_is_kept_and_two_files():
    found = disk(config(), trained=100, latents=7 * 30, texts=2 * 20)
    assert found.data == (7 * 30 + 2 * 20) * 2
    assert found.states == 3 * (1 + 2) * 100 * 4  # two kept, one being written; AdamW
    assert found.files == 2 * 100 * 2
    averaged = dataclasses.replace(config(ema_decay=0.9, keep_states=1), optimiser=Optimiser())
    assert disk(averaged, trained=100, latents=0, texts=0).states == 2 * 6 * 100 * 4


def test_the_documentation_has_the_table_of_the_recipes():
    text = distill_table.DOCS.read_text(encoding="utf-8")
    between = text.split(distill_table.START)[1].split(distill_table.END)[0]
    assert between.strip() == distill_table.table(), "run python3 tools/distill_table.py"
