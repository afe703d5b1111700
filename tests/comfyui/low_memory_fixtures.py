"""A fixture and numbers for the tests of CLEAR Low Memory."""

from __future__ import annotations

import pytest
import torch

RADIUS = 4
SLICE = 64
GIB = 1 << 30


@pytest.fixture
def lengths(monkeypatch):
    """How many tokens each call of a widening layer had: those of q, k, v and of the MLPs."""
    seen: list[int] = []
    linear = torch.nn.functional.linear

    def counted(x, weight, bias=None):
        if x.ndim == 3 and weight.shape[0] >= 3 * weight.shape[1]:
            seen.append(x.shape[1])
        return linear(x, weight, bias)

    monkeypatch.setattr(torch.nn.functional, "linear", counted)
    return seen


def same(actual, expected):
    """Assert that two velocities differ by the rounding of float32 at most."""
    assert (actual - expected).abs().max() <= 2e-6 * expected.abs().max()
