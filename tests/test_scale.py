"""The softmax scale of long sequences."""

from __future__ import annotations

import math

import pytest

from clear_attention import proportional_scale


def test_at_the_trained_length_the_scale_is_the_usual_one():
    assert proportional_scale(4608, 128) == pytest.approx(128**-0.5)


def test_the_scale_grows_with_the_logarithm_of_the_length():
    assert proportional_scale(4608**2, 64) == pytest.approx(math.sqrt(2 / 64))


def test_below_the_trained_length_the_scale_is_smaller():
    assert proportional_scale(1024, 128) < 128**-0.5


@pytest.mark.parametrize(
    ("tokens", "head_dim", "pooled", "scale"),
    [
        (77 + 16 * 24, 32, False, 0.15073666573526975),
        (512 + 16 * 24, 32, True, 0.18361221299474276),
        (77 + 8 * 16, 64, True, 0.11884754130805086),
    ],
    ids=["local", "pooled", "pooled, short"],
)
def test_the_scales_of_the_original_code_are_met(tokens, head_dim, pooled, scale):
    assert proportional_scale(tokens, head_dim, pooled=pooled) == pytest.approx(scale, rel=1e-6)
