"""Stretches of an axis, cut off at its edges or wrapped around."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from clear_attention.backends.axis import pieces


@given(
    start=st.integers(-30, 30),
    count=st.integers(0, 40),
    length=st.integers(1, 12),
    wraps=st.booleans(),
)
def test_pieces_are_the_stretch_in_as_few_parts_as_possible(start, count, length, wraps):
    found = {}
    parts = list(pieces(start, start + count, length, wraps))
    for part in parts:
        ats, places = (range(each.start, each.stop) for each in part)
        assert len(ats) == len(places) > 0
        found.update(zip(ats, places, strict=True))
    expected = {
        at: (start + at) % length for at in range(count) if wraps or 0 <= start + at < length
    }
    assert found == expected
    assert list(found) == sorted(found)
    for one, other in itertools.pairwise(parts):
        assert (one.places.stop, other.places.start) == (length, 0)
