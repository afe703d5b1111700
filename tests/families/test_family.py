"""What each family says of itself, without the host."""

from __future__ import annotations

import pytest

from clear_attention.families import DEFAULT, FAMILIES
from clear_attention.weights.checkpoint import TABLES

KEYS = {family.key: family for family in FAMILIES}


def test_every_family_has_a_key_and_a_title_of_its_own():
    assert len(KEYS) == len({family.title for family in FAMILIES}) == len(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES, ids=KEYS)
def test_the_names_are_those_of_the_familys_kinds(family):
    if family.names is not None:
        assert family.names.family == family.key
        assert [kind.name for kind in family.names.kinds] == [kind.name for kind in family.kinds]
    outer = {kind.name for kind in family.kinds if not kind.inside}
    assert {kind.inside for kind in family.kinds if kind.inside} <= outer


def test_checkpoints_are_read_for_every_family_with_names_in_its_order():
    assert [table.family for table in TABLES] == [key for key, one in KEYS.items() if one.names]


@pytest.mark.parametrize(
    ("key", "block", "image_only", "kind"),
    [
        ("sd3", "joint", True, "image"),
        ("sd3", "joint", False, "joint"),
        ("flux", "double", True, "double"),
        ("chroma", "single", True, "single"),
    ],
)
def test_only_a_family_with_a_second_attention_counts_it_as_another_kind(
    key, block, image_only, kind
):
    assert KEYS[key].kind_of(block, image_only=image_only) == kind


def test_a_token_of_every_family_is_16_or_32_pixels():
    assert DEFAULT.token_px == 16
    assert {family.key for family in FAMILIES if family.token_px != 16} == {
        "hidream_o1",
        "hunyuan_image",
        "wan_5b",
    }
    assert {family.token_px for family in FAMILIES} == {16, 32}
