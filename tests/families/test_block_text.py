"""Blocks as text: one reader for the node's dense blocks and the trainer's compared ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clear_attention.distill.tasks import compared_blocks
from clear_attention.families.block_text import (
    format_blocks,
    format_radii,
    parse_blocks,
    parse_radii,
    require_blocks,
)

COUNTS = {"double": 2, "single": 10}


def test_entries_are_single_blocks_and_ranges_that_include_their_ends():
    assert parse_blocks(" double 1, single.2 - 4 ,") == {
        ("double", 1),
        *(("single", index) for index in (2, 3, 4)),
    }
    assert parse_blocks(" ") == frozenset()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("single", 'What must look like "double 0-3, single 37", "joint 0-3", got \'single\''),
        ("single 5-2", "What must not run backwards, got 'single 5-2'"),
    ],
)
def test_a_mistake_names_the_setting_and_the_entry(text: str, sentence: str):
    with pytest.raises(ValueError) as error:
        parse_blocks(text, "What")
    assert sentence in str(error.value)


def test_compared_blocks_are_those_of_the_text_or_every_fourth_of_the_last_kind():
    assert compared_blocks("double 0-1", COUNTS) == {("double", 0), ("double", 1)}
    assert compared_blocks("", COUNTS) == {("single", 1), ("single", 5), ("single", 9)}
    assert compared_blocks("", {"double": 1, "single": 0}) == {("double", 0)}


@pytest.mark.parametrize("text", ["single 8-10", "joint 0"])
def test_compared_blocks_must_be_blocks_of_the_model(text: str):
    with pytest.raises(ValueError, match=r"which has double 0-1, single 0-9, got (single|joint) "):
        compared_blocks(text, COUNTS)


def test_kinds_of_which_a_model_has_no_block_are_not_offered():
    """HunyuanVideo 1.5 has no single blocks."""
    with pytest.raises(ValueError, match=r"which has double 0-53, got single 0\.$"):
        require_blocks({("single", 0)}, {"double": 54, "single": 0}, "Dense blocks")


def test_a_radius_stands_behind_a_block_or_a_range():
    text = "double 0-1: 8, single 0: 32,single.1-2:12"
    singles = {("single", 0): 32, ("single", 1): 12, ("single", 2): 12}
    assert parse_radii(text) == {("double", 0): 8, ("double", 1): 8} | singles
    assert format_radii(parse_radii(text)) == "double 0-1: 8, single 0: 32, single 1-2: 12"
    assert parse_radii(" , ") == {}
    assert format_radii({}) == ""


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("single 3", 'Radii must look like "double 0-3: 8, single 0: 32", with a radius of 1 or'),
        ("single 3: 0", "got 'single 3: 0'"),
        ("single 3: 2.5", "got 'single 3: 2.5'"),
        ("8", "got '8'"),
        ("single: 8", "Radii must look like \"double 0-3: 8, single 0: 32\", got 'single'"),
        ("single 0-99999999: 8", "Radii must look like"),
        ("single 5-2: 8", "Radii must not run backwards, got 'single 5-2'"),
        ("single 1-3: 8, single 2: 9", "must give each block one radius, got 8 and 9 for single 2"),
    ],
)
def test_a_mistake_in_radii_names_the_entry(text: str, sentence: str):
    with pytest.raises(ValueError) as error:
        parse_radii(text)
    assert sentence in str(error.value)


BLOCKS = st.tuples(st.sampled_from(["double", "joint", "single"]), st.integers(0, 60))


@given(st.dictionaries(BLOCKS, st.integers(1, 512)))
def test_radii_and_blocks_are_read_as_they_were_written(radii: dict[tuple[str, int], int]):
    assert parse_radii(format_radii(radii)) == radii
    assert parse_blocks(format_blocks(radii)) == set(radii)
