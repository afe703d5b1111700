"""What people read of a plan: verdict, table, and what came of it."""

from __future__ import annotations

import dataclasses
import re
import sys

import pytest
from plan_cases import ROOMY, job, plan

from clear_attention.plan.figure import draw
from clear_attention.plan.outcome import TimedCall, outcome
from clear_attention.plan.report import duration
from clear_attention.units import gib

PLAN = plan()
WHOLE, SLICED = 1000, 600


def with_memory(budget, sliced=False):
    """Return a plan whose step needs 1000 bytes, 600 in slices."""
    clear = dataclasses.replace(PLAN.clear, memory=WHOLE, sliced_memory=SLICED)
    return dataclasses.replace(PLAN, clear=clear, budget=budget, slice_tokens=0 if sliced else None)


def budget(available, decoding=0, weights=0, streams=True):
    return dataclasses.replace(
        ROOMY, available=available, decoding=decoding, weights=weights, streams=streams
    )


@pytest.mark.parametrize(
    ("given", "sliced", "verdict"),
    [
        (budget(WHOLE), False, "fits"),
        (budget(WHOLE - 1), False, "slice"),
        (budget(SLICED), False, "slice"),
        (budget(SLICED - 1), False, "too large"),
        (budget(WHOLE, decoding=WHOLE + 1), False, "tile"),
        (budget(WHOLE, decoding=WHOLE), False, "fits"),
        (budget(WHOLE - 1, decoding=WHOLE), False, "slice and tile"),
        (budget(SLICED), True, "fits"),
        (budget(WHOLE, weights=9 * WHOLE), False, "fits"),
        (budget(WHOLE, weights=1, streams=False), False, "slice"),
        (budget(WHOLE + 1, weights=1, streams=False), False, "fits"),
    ],
)
def test_the_verdict_says_what_has_to_be_done(given, sliced, verdict):
    assert with_memory(given, sliced).verdict == verdict


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (budget(WHOLE - 1), ["CLEAR Low Memory"]),
        (budget(WHOLE, decoding=WHOLE + 1), ["VAE Decode (Tiled)"]),
        (budget(SLICED, decoding=WHOLE), ["CLEAR Low Memory", "VAE Decode (Tiled)"]),
        (budget(SLICED - 1), ["smaller picture"]),
        (budget(WHOLE, weights=1), ["from main memory"]),
        (budget(WHOLE + 1, weights=1), []),
    ],
)
def test_each_thing_to_do_is_one_sentence(given, words):
    advice = with_memory(given).advice()
    assert len(advice) == len(words)
    assert all(word in line for word, line in zip(words, advice, strict=True))


def test_the_table_states_both_attentions():
    lines = PLAN.table().splitlines()
    assert lines[0] == "A small FLUX; cpu, float32"
    assert "96 x 128 pixels, batch 1: 4 text + 8 x 6 image tokens of 16 pixels" in lines[1]
    rows = {line[:34].strip(): line[34:].split() for line in lines}
    assert rows[""] == [] or rows[""] == ["full", "CLEAR", "r", "=", "3"]
    assert rows["TFLOP per step, attention"] == [
        f"{each.attention_flop / 1e12:,.4g}" for each in (PLAN.full, PLAN.clear)
    ]
    assert rows["seconds per step"] == [f"{e.seconds:.3g}" for e in (PLAN.full, PLAN.clear)]
    assert PLAN.full.pairs == 52**2 > PLAN.clear.pairs
    assert "time for 20 steps" in rows and "Verdict: fits." in lines
    assert [line for line in lines if line.startswith("8192 x 8192")]


def test_the_sizes_grow_and_the_planned_one_is_among_them():
    costs = PLAN.over_sizes()
    full = [cost.seconds for cost, _ in costs.values()]
    assert list(costs) == [512, 1024, 2048, 4096, 8192]
    assert full == sorted(full)
    square = plan(call=job(32, 32))
    assert square.at(32).full == square.full
    assert square.at(32).clear == square.clear


def test_without_matplotlib_the_figure_says_what_to_install(monkeypatch):
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match="Run `pip install matplotlib`"):
        draw(PLAN)
    assert PLAN.table()


def call(seconds, batch=1, radius=3, height=8, width=6):
    return TimedCall(batch, height, width, radius, seconds)


def test_the_fastest_call_after_the_first_is_compared():
    expected = PLAN.clear.seconds
    (line,) = outcome(PLAN, [call(0.01), call(5.0), call(2 * expected), call(3 * expected)])
    assert f"{expected:.3g} s per step expected, {2 * expected:.3g} s measured" in line
    assert "the plan is 50 % too low" in line and "the best of 3 calls of 1 picture." in line
    assert "CLEAR r = 3" in line


def test_a_single_call_is_compared_as_it_is():
    (line,) = outcome(PLAN, [call(PLAN.full.seconds, radius=None)])
    assert "full attention" in line and "(as expected)" in line


def test_a_larger_batch_than_planned_is_expected_to_take_longer():
    (line,) = outcome(PLAN, [call(2 * PLAN.clear.seconds, batch=2)] * 2)
    assert "(as expected)" in line and "1 calls of 2 pictures" in line


def test_memory_is_compared_where_it_was_measured():
    expected = PLAN.budget.weights + PLAN.clear.memory
    line = outcome(PLAN, [call(1.0)], peak=round(expected / 1.25))[1]
    assert re.search(r"Memory at the peak: .* GiB expected, .* measured \(.* 25 % too high\)", line)


@pytest.mark.parametrize(
    ("calls", "words"),
    [
        ([], "the model was not called"),
        ([call(1.0, height=9)], "the run had 9 x 6 with radius 3"),
        ([call(1.0, width=5, radius=None)], "the run had 8 x 5 with full attention"),
        ([call(1.0, radius=4)], "the run had 8 x 6 with radius 4"),
    ],
)
def test_a_run_that_was_not_planned_is_not_compared(calls, words):
    (line,) = outcome(PLAN, calls)
    assert words in line and "measured" not in line


def test_numbers_are_written_for_people():
    assert [gib(2**20), gib(2**30), gib(3 * 2**29)] == ["1 MiB", "1 GiB", "1.5 GiB"]
    assert [duration(s) for s in (0.1234, 99.4, 125, 7322)] == [
        "0.123 s",
        "99.4 s",
        "2 min 05 s",
        "2 h 02 min",
    ]
