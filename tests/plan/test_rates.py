"""The micro-benchmark: what it remembers, what it measures, and how it ends."""

from __future__ import annotations

import pytest
import torch
from plan_cases import SMALL_FLUX, SMALL_SD3, job, machine

from clear_attention.plan import machine as timing
from clear_attention.plan.machine import Found, TimedPart
from clear_attention.plan.rates import measure, with_windows


@pytest.mark.parametrize("network", [SMALL_FLUX, SMALL_SD3], ids=["flux", "sd3"])
def test_every_rate_is_measured(network):
    rates = measure(network, job(40, 40), machine())
    numbers = {name: value for name, value in vars(rates).items() if isinstance(value, float)}
    (of_window,) = rates.windows.values()
    assert all(0 < value < 1e-2 for value in (*numbers.values(), of_window.seconds)), numbers
    assert of_window.backend == "tiled"


def test_nothing_is_measured_twice():
    calls = []
    here = machine(check=lambda: calls.append(1))
    first = measure(SMALL_FLUX, job(20, 20), here)
    before = len(calls)
    assert measure(SMALL_FLUX, job(20, 20), here) == first
    assert len(calls) == before > 0


def test_another_dtype_is_measured_anew():
    here = machine()
    there = machine(dtype=torch.bfloat16)
    measure(SMALL_FLUX, job(), here)
    before = set(here.known)
    there.known.update(here.known)
    measure(SMALL_FLUX, job(), there)
    assert len(there.known) == 2 * len(before)


def test_it_can_be_stopped_between_two_measurements():
    calls = []

    def check():
        calls.append(1)
        if len(calls) == 5:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        measure(SMALL_FLUX, job(), machine(check))
    assert len(calls) == 5


def test_small_windows_take_the_backend_that_suits_them():
    here = machine()
    small, large = job(6, 6, radius=4), job(60, 60, radius=4)
    rates = measure(SMALL_FLUX, small, here)
    assert [rate.backend for rate in rates.windows.values()] == ["masked"]
    other = with_windows(rates, SMALL_FLUX, large, here)
    assert [rate.backend for rate in other.windows.values()] == ["tiled"]
    assert other.linear == rates.linear
    assert not measure(SMALL_FLUX, job(radius=None), here).windows


def test_each_window_of_a_call_is_measured():
    call = job(60, 60, radius=4, radii={("single", 0): 9, ("single", 1): 9, ("single", 7): 2})
    rates = measure(SMALL_FLUX, call, machine())
    assert [window.radius for window in rates.windows] == [4, 9]


@pytest.mark.parametrize(
    ("found", "most", "serves"),
    [
        (Found(100, True, 1.0), 100, True),
        (Found(100, True, 1.0), 199, True),
        (Found(100, True, 1.0), 200, False),  # it might be faster on a longer one
        (Found(100, False, 1.0), 10_000, True),
        (Found(100, False, 1.0), 51, True),
        (Found(100, False, 1.0), 50, False),
    ],
)
def test_a_sample_serves_calls_that_it_is_like(found, most, serves):
    assert found.serves(most) is serves


@pytest.mark.parametrize("power", [1, 2])
def test_the_rate_is_the_time_for_a_unit_of_work(power, monkeypatch):
    """A part that takes 20 microseconds per token of a clock of its own."""
    lengths, now = [], [0.0]
    monkeypatch.setattr(timing, "clock", lambda: now[0])

    def part(tokens):
        lengths.append(tokens)

        def run():
            now[0] += 2e-5 * tokens
            return torch.zeros(1)

        return TimedPart(run, 2 * tokens)

    rate = machine().per_unit("slow", 10**6, part, power)
    assert rate == pytest.approx(1e-5)
    assert lengths == sorted(lengths) and lengths[-1] < 10_000


def test_a_sample_is_never_longer_than_the_call():
    lengths = []

    def part(tokens):
        lengths.append(tokens)
        return TimedPart(lambda: torch.zeros(1), 1)

    machine().per_unit("nothing", 1000, part)
    assert max(lengths) == 1000
