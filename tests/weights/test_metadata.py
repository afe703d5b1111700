"""Which radius and pooling factor a checkpoint is for."""

from __future__ import annotations

import pytest

from clear_attention.weights import CheckpointError, read
from clear_attention.weights.metadata import find_radii, find_radius

PUBLISHED = {
    "clear_local_8.safetensors": (8, 0),
    "clear_local_16.safetensors": (16, 0),
    "clear_local_32.safetensors": (32, 0),
    "clear_local_8_down_4.safetensors": (8, 4),
    "clear_local_16_down_4.safetensors": (16, 4),
}


@pytest.mark.parametrize(("name", "expected"), PUBLISHED.items())
def test_published_names_tell_radius_and_pooling(name, expected, published_file):
    checkpoint = read(published_file(name, factor=expected[1]))
    assert (checkpoint.radius, checkpoint.pool_factor) == expected
    assert (checkpoint.family, checkpoint.base) == ("flux", None)
    assert not checkpoint.has_metadata


@pytest.mark.parametrize(
    ("name", "radius"),
    [
        ("flux-clear_local_8 (1).safetensors", 8),
        ("CLEAR_LOCAL_16.SAFETENSORS", 16),
        ("my clear-local-32 fp16.safetensors", 32),
        ("clear_local_8_pruned.safetensors", 8),
        ("clear_local_16_down_4_copy.safetensors", 16),
    ],
)
def test_renamed_files_still_tell_their_radius(name, radius):
    assert find_radius(None, {}, name) == radius


@pytest.mark.parametrize("name", ["model.safetensors", "clear.safetensors", "local_x8.safetensors"])
def test_an_unknown_radius_is_asked_for(name):
    with pytest.raises(CheckpointError, match="set the radius input"):
        find_radius(None, {}, name)


@pytest.mark.parametrize(
    ("given", "metadata", "expected"),
    [(5, "16", 5), (5, "nonsense", 5), (None, "16", 16), (None, " 16 ", 16), (None, None, 8)],
)
def test_the_given_radius_wins_then_the_metadata_then_the_name(given, metadata, expected):
    known = {} if metadata is None else {"clear.radius": metadata}
    assert find_radius(given, known, "clear_local_8.safetensors") == expected


@pytest.mark.parametrize("radius", [0, -1, True, 2.5, "8"])
def test_a_given_radius_must_be_a_positive_integer(radius):
    with pytest.raises(CheckpointError, match="must be a positive whole number"):
        find_radius(radius, {}, "clear_local_8.safetensors")


@pytest.mark.parametrize(
    "text", ["0", "-8", "8.5", "eight", "", "\ud800", "9" * 5000, "\N{ARABIC-INDIC DIGIT EIGHT}"]
)
def test_a_radius_in_the_metadata_must_be_a_positive_integer(text):
    with pytest.raises(CheckpointError, match="must be a positive whole number"):
        find_radius(None, {"clear.radius": text}, "x.safetensors")


@pytest.mark.parametrize(
    "text", ["8", "single 0", "single 0: 0", "joint 0: 4", "\ud800", "single 9: 4"]
)
def test_radii_in_the_metadata_must_be_those_of_blocks(text):
    counts = {"double": 1, "single": 2}
    with pytest.raises(CheckpointError, match=r"x\.safetensors .*clear\.radii.*: its radii must"):
        find_radii({"clear.radii": text}, counts, "x.safetensors")
    assert find_radii({"clear.radii": "single 1: 4"}, counts, "x") == {("single", 1): 4}
    assert find_radii({}, counts, "x.safetensors") == {}


def test_a_published_name_must_have_a_positive_radius():
    with pytest.raises(CheckpointError, match="must be a positive whole number"):
        find_radius(None, {}, "clear_local_0.safetensors")


@pytest.mark.parametrize(
    ("name", "claim", "factor", "agrees"),
    [
        ("clear_local_8.safetensors", None, 0, True),
        ("clear_local_8.safetensors", None, 4, True),  # a shortened name
        ("clear_local_8_down_4.safetensors", None, 4, True),
        ("clear_local_8_down_4.safetensors", None, 2, False),
        ("clear_local_8_down_4.safetensors", None, 0, False),
        ("clear_local_8_down_4.safetensors", "2", 2, True),  # the metadata knows better
        ("clear_local_8_down_4.safetensors", "4", 2, False),
        ("clear_local_8.safetensors", "4", 0, False),
        ("clear_local_8.safetensors", "0", 4, False),
        ("clear_local_8.safetensors", "0", 0, True),
        ("clear_local_8.safetensors", "1", 0, True),
        ("clear_local_8.safetensors", "None", 0, True),
        ("clear_local_8.safetensors", "four", 4, False),
    ],
)
def test_pooling_that_contradicts_itself_is_an_error(name, claim, factor, agrees, published_file):
    metadata = None if claim is None else {"clear.radius": "8", "clear.pool_factor": claim}
    path = published_file(name, metadata=metadata, factor=factor)
    if agrees:
        assert read(path).pool_factor == factor
    else:
        with pytest.raises(CheckpointError, match="pooling factor"):
            read(path)
