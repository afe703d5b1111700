"""Blocks as text: one reader for the node's dense blocks and the trainer's compared ones."""

from __future__ import annotations

import pytest

from clear_attention.distill.tasks import compared_blocks
from clear_attention.families.block_text import parse_blocks, require_blocks

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
