"""Means with standard errors, shares, paired differences, and the table that shows them."""

from __future__ import annotations

import math
import statistics

import pytest

from clear_attention.compare.measurement import ANOTHER_SEED, Distance, Measurement, columns
from clear_attention.compare.summary import Comparison, Mean
from clear_attention.compare.table import aligned, percent, table

TEACHER = "model, full attention"


def distance(error, squared=0.01, ssim=0.9, **embeddings):
    levels = (error, 2 * error, 3 * error, 2 * error)
    return Distance(levels, (1.0, 1.0, 1.0, 1.0), squared, ssim, embeddings)


def measured(name, picture, given, seconds=2.0, computed=1.0, fault=""):
    return Measurement(name, picture, given, seconds, computed, fault)


def comparison(errors=(0.01, 0.03), others=(1.0, 1.0), more=()):
    rows = []
    for at, (error, other) in enumerate(zip(errors, others, strict=True)):
        rows += [
            measured(TEACHER, str(at), None),
            measured(ANOTHER_SEED, str(at), distance(other, 0.1, 0.5)),
            measured("r = 8", str(at), distance(error), 1.0, 0.25),
        ]
    return Comparison((*rows, *more), TEACHER)


@pytest.mark.parametrize("values", [[1.0, 2.0, 4.0], [3.0, 3.0]])
def test_a_mean_has_the_standard_error_of_the_textbook(values):
    mean = Mean.of(values)
    assert mean.value == pytest.approx(statistics.mean(values))
    assert mean.error == pytest.approx(statistics.stdev(values) / len(values) ** 0.5)


def test_one_value_has_no_error_and_none_has_no_mean():
    assert math.isnan(Mean.of([2.0]).error) and Mean.of([2.0]).value == 2
    assert math.isnan(Mean.of([]).value)


def test_decibels_are_those_of_the_mean_with_an_error_to_first_order():
    ratio = Mean(0.01, 1e-5, 9).in_decibels()
    assert ratio.value == pytest.approx(20)
    # What a step of one standard error changes.
    assert ratio.error == pytest.approx(20 + 10 * math.log10(0.01 + 1e-5), rel=1e-3)
    assert Mean(0.0, math.nan, 1).in_decibels().value == math.inf


def test_the_velocity_error_is_the_mean_over_levels_and_pictures():
    found = comparison().mean("r = 8", lambda each: each.mean_velocity)
    assert found.value == pytest.approx(0.04)  # twice the mean of 0.01 and 0.03
    assert comparison().share("r = 8", lambda each: each.mean_velocity) == pytest.approx(0.02)


def test_a_picture_with_a_fault_is_in_no_mean_and_in_no_share():
    failed = [
        measured(TEACHER, "2", None),
        measured(ANOTHER_SEED, "2", distance(100.0)),
        measured("r = 8", "2", None, 1.0, 0.25, "black"),
    ]
    whole, with_fault = comparison(), comparison(more=failed)
    for measure in (lambda each: each.mean_velocity, lambda each: each.squared):
        assert with_fault.mean("r = 8", measure) == whole.mean("r = 8", measure)
        assert with_fault.share("r = 8", measure) == whole.share("r = 8", measure)
    text = table(with_fault)
    assert "- r = 8, picture 2: black" in text
    assert "3, 1 failed" in text
    assert "failed" not in table(whole)


def test_a_yardstick_with_a_fault_leaves_its_picture_out_of_the_share_alone():
    more = [
        measured(ANOTHER_SEED, "2", None, fault="black"),
        measured("r = 8", "2", distance(0.5), 1.0, 0.25),
    ]
    found = comparison(more=more)
    measure = lambda each: each.mean_velocity  # noqa: E731 - as callers write it
    assert found.share("r = 8", measure) == pytest.approx(0.02)
    assert found.mean("r = 8", measure).count == 3
    empty = Comparison((measured("r = 8", "0", distance(0.1)),), TEACHER)
    assert math.isnan(empty.share("r = 8", measure))


def test_differences_are_taken_picture_by_picture():
    """What makes a picture hard for both is not in their error."""
    more = [measured("r = 4", str(at), distance(e)) for at, e in enumerate((0.02, 0.04))]
    found = comparison(more=more).difference("r = 4", "r = 8", lambda each: each.mean_velocity)
    assert found.value == pytest.approx(0.02)
    assert found.error == pytest.approx(0, abs=1e-12)
    assert "more than r = 8" in table(comparison(more=more))
    assert "more than" not in table(comparison())


def test_the_table_has_every_number_where_its_title_says():
    lines = [line for line in table(comparison()).splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    velocities, pictures, work = (
        {row[0]: dict(zip(cells[at], row, strict=True)) for row in cells[at + 2 : at + 4]}
        for at in (0, 4, 8)
    )
    own = velocities["r = 8"]
    assert own["noise 0.9"].startswith("0.0200 ± 0.0100")
    assert own["mean"].startswith("0.0400 ±")
    assert own["of its power"] == "4.0 %" and own["of two seeds"] == "2.0 %"
    assert velocities[ANOTHER_SEED]["of two seeds"] == "100 %"
    assert pictures["r = 8"]["PSNR"].startswith("20.0") and pictures["r = 8"]["PSNR"].endswith("dB")
    assert pictures["r = 8"]["SSIM"].startswith("0.900")
    assert pictures["r = 8"]["of two seeds"] == "20 %"  # the last of that name: 0.1 of 0.5
    assert work["r = 8"]["speed"] == "2.00x"
    assert work["r = 8"]["pairs of attention"] == "25 %"
    assert work[TEACHER]["pictures"] == "2"


def test_every_line_of_a_table_is_as_wide_as_its_head():
    lines = table(comparison()).splitlines()
    blocks = "\n".join(lines).split("\n\n")
    assert all(len({len(line) for line in block.splitlines()}) == 1 for block in blocks)
    assert aligned([["a", "b"], ["1", "22"]]) == ["| a |  b |", "| - | -: |", "| 1 | 22 |"]


@pytest.mark.parametrize(
    ("share", "text"), [(0.004, "0.4 %"), (0.0996, "10 %"), (1.7, "170 %"), (math.nan, "-")]
)
def test_shares_have_a_digit_behind_the_point_where_they_are_small(share, text):
    assert percent(share) == text


@pytest.mark.parametrize("fault", ["", "black"])
def test_a_measurement_survives_its_row(fault):
    given = None if fault else distance(0.1, CLIP=0.25, DINO=1e-9)
    one = Measurement('r = 8, "odd"', "3: 7", given, 1.5, 0.125, fault, "a cat,\na dog")
    row = one.to_row()
    assert list(row) == [name for name in columns(["CLIP", "DINO"]) if name in row]
    whole = {name: row.get(name, "") for name in columns(["CLIP", "DINO"])}
    assert Measurement.of_row(whole) == one
