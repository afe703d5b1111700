"""The lines about a shared run, and when they say that one device would be as fast."""

from __future__ import annotations

import pytest


@pytest.fixture
def described(product):
    """Return the line about ranks that computed and waited for so many seconds."""
    report = product("comfyui.parallel.ranks_report")

    def line(*seconds, calls=4, **more):
        ranks = [
            report.RankWork(f"cuda:{index}", 64, 2_900_000 * calls, waited, busy)
            for index, (busy, waited) in enumerate(seconds)
        ]
        return report.ranks_described(ranks, calls, more.pop("timed", calls), **more)

    return line


def test_a_line_names_each_device_with_rows_megabytes_and_waiting(described):
    assert described((8, 0.4), (8, 0.2)) == (
        "parallel: each of 4 model calls took 2.1 s: cuda:0 computed 64 of 128 rows of tokens, "
        "received 2.90 MB and waited 100.0 ms; cuda:1 computed 64 of 128 rows of tokens, received "
        "2.90 MB and waited 50.0 ms"
    )
    assert "of 128 columns" in described((8, 0.4), (8, 0.2), columns=True)


@pytest.mark.parametrize(
    ("seconds", "as_fast"),
    [
        ([(4.0, 4.0), (4.0, 4.0)], True),
        ([(4.1, 3.9), (4.1, 3.9)], False),
        ([(2.5, 7.5)] * 4, True),  # four devices that do the work of one
        ([(4.0, 6.0)] * 4, False),
        ([(1.0, 9.0), (10.0, 0.0)], False),
        ([(0.0, 10.0), (10.0, 0.0)], True),
    ],
)
def test_devices_that_do_no_more_than_one_would_are_named(seconds, as_fast, described):
    line = described(*seconds)
    assert ("One device alone would be about as fast" in line) == as_fast
    waited = sum(waited for _, waited in seconds) / sum(map(sum, seconds))
    assert (f"in {waited:.0%} of the time" in line) == as_fast


def test_times_are_those_of_the_calls_that_were_timed(described):
    assert "took 8.4 s" in described((8, 0.4), (8, 0.2), timed=1)
    assert "received 2.90 MB and waited 400.0 ms" in described((8, 0.4), (8, 0.2), timed=1)
