"""A report that several threads share, as ComfyUI's split of CFG among GPUs does."""

from __future__ import annotations

import copy
import logging
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

THREADS, CALLS = 16, 500


@pytest.fixture
def report(product, monkeypatch):
    """Return a report in which a thread may be stopped between any two of its steps."""
    module = product("comfyui.core.report")
    calm = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield module.RunReport()
    sys.setswitchinterval(calm)


class Path:
    """As equal as the report's paths, and slow to compare: another thread gets its turn."""

    whose = ""

    def __init__(self, at):
        self.at = at

    def __hash__(self):
        return hash(self.at)

    def __eq__(self, other):
        return sum(range(50)) > 0 and self.at == other.at

    def describe(self, calls):
        return f"{self.at}: {calls}"


def test_no_call_is_lost_or_counted_twice(report):
    def count(_):
        for at in range(CALLS):
            report.add(Path(at % 5))
            report.miss("blocks")

    in_threads(count)
    assert report.calls.total() == report.missed.total() == THREADS * CALLS
    assert [report.calls[Path(at)] for at in range(5)] == [THREADS * CALLS // 5] * 5


def test_lines_can_be_read_while_others_count(report):
    def count_and_read(thread):
        for at in range(CALLS // 5):
            report.add(Path((thread, at)))
            report.lines()

    in_threads(count_and_read)
    assert len(report.lines()) == THREADS * (CALLS // 5)


def test_a_warning_is_logged_once(report, caplog):
    with caplog.at_level(logging.WARNING):
        in_threads(lambda _: [report.warn(f"warning {at}") for at in range(50)])
    assert len(caplog.records) == len(report.warned) == 50


def test_copies_of_a_runs_options_share_its_report(report):
    options = copy.deepcopy({"report": report})
    assert options["report"] is report


def in_threads(work):
    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(work, range(THREADS)))
