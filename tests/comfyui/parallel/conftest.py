"""Fixtures: one device and several, sampled alike and compared."""

from __future__ import annotations

import pytest


def relative(actual, expected):
    """Return the root mean square of a difference, relative to what is expected."""
    return float((actual.double() - expected.double()).norm() / expected.double().norm())


@pytest.fixture
def compared(sample, nodes, lines):
    """Sample on one device and on several, and return the relative distance of the pictures.

    Fails where one device computed a call of the second run after all.
    """

    def compare(model, devices="cpu,cpu", shares="auto", paint=sample, behind=None, **kwargs):
        if paint is sample:
            kwargs = {"steps": 1, **kwargs}
        before = sum(line.startswith("parallel") for line in lines())
        several = nodes.CLEARParallel(model, devices, shares)
        if behind is not None:
            model, several = behind(model), behind(several)
        expected = paint(model, **kwargs)
        actual = paint(several, **kwargs)
        told = [line for line in lines() if line.startswith("parallel")][before:]
        assert len(told) == 1, told
        assert "each of" in told[0], told
        return relative(actual, expected)

    return compare
