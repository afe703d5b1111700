"""The benchmarks of ranks in tiny sizes: what they compare, mark and leave out."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks.gpu.parallel import Result, device_lists, expected_seconds

pytestmark = pytest.mark.long

CPU = torch.device("cpu")


@pytest.fixture
def measured(benchmarked: dict[str, Any]) -> dict[str, Any]:
    """Code and text of the small command; cells without time and of wrong pictures; the CPU's."""
    return {**benchmarked, **benchmarked["parallel"]}


def rows(text: str, first: str) -> list[dict[str, str]]:
    """Read the rows of the table whose first column has this name."""
    found, head = [], []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("| "):
            head = head if line.startswith("|") else []
        elif cells[0] == first:
            head = cells
        elif head:
            found.append(dict(zip(head, cells, strict=True)))
    return found


def test_the_small_run_compares_ranks_with_one_device(measured):
    assert measured["code"] == 0, measured["printed"]
    assert "Tiny sizes: these times say nothing about any machine." in measured["printed"]
    table = rows(measured["printed"], "px")
    assert [(row["px"], row["devices"]) for row in table] == [
        (size, devices) for size in ("64 x 64", "128 x 128") for devices in ("cpu", "cpu,cpu")
    ]
    for row in table:
        assert float(row["s/step"]) > 0, row
    for row in table[1::2]:
        assert float(row["times faster"]) > 0
        assert 0 <= float(row["error"]) < 1e-6  # float32 on both sides
        assert len(row["MB received"].split(" / ")) == len(row["ms waited"].split(" / ")) == 2
    assert all(row["error"] == row["ms waited"] == "-" for row in table[::2])


def test_the_copies_of_a_single_device_stay_within_it(measured):
    (row,) = rows(measured["printed"], "from")
    assert (row["from"], row["to"], row["arrives whole"]) == ("cpu", "cpu", "yes")
    assert float(row["GB/s one way"]) > 0
    assert float(row["GB/s while as much comes back"]) > 0


def test_nothing_is_started_when_the_time_is_over(measured):
    assert measured["late"] == ["not run (time)"] * 4


def test_a_picture_of_ranks_that_differs_is_marked_and_not_timed(measured):
    one, two = measured["wrong"]
    assert float(one) > 0
    assert two == "**WRONG**"


def test_two_cores_are_compared_with_one(measured):
    (row,) = rows(measured["table"], "pixels")
    assert row["pixels"] == "128 x 128" and row["goal"] == "-"
    faster = float(row["one rank"]) / float(row["two ranks"])
    assert float(row["faster"].removesuffix(" x")) == pytest.approx(faster, rel=0.2)
    assert "whose load was 0.25 before the run" in measured["table"]


def test_ranks_that_change_the_picture_are_not_timed_on_a_cpu(measured):
    assert measured["refused"].startswith("Two ranks change the picture by ")


def test_a_run_that_would_end_too_late_is_expected_from_the_size_before():
    known = [
        Result(2048, 16, "cuda:0", 2.0),
        Result(2048, 16, "cuda:0,cuda:1", 1.0),
        Result(2048, 8, "cuda:0", 9.0),
        Result(4096, 16, "cuda:0", 8.0),
    ]
    assert expected_seconds(known, Result(4096, 16, "cuda:0,cuda:1")) == 3 * 1.5 * 4
    assert expected_seconds(known, Result(8192, 16, "cuda:0")) == 3 * 8 * 1.5 * 4
    assert expected_seconds(known, Result(2048, 32, "cuda:0")) == 0


def test_several_cards_are_tried_one_after_the_other(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert device_lists(torch.device("cuda")) == [
        "cuda:0",
        "cuda:0,cuda:0",
        "cuda:0,cuda:1",
        "cuda:0,cuda:1,cuda:2",
    ]
    assert device_lists(CPU) == ["cpu", "cpu,cpu"]
