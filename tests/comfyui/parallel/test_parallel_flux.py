"""One picture on several devices through the host's sampler: the picture of one device."""

from __future__ import annotations

import pytest


LIMIT = 1e-6


def relative(actual, expected):
    return float((actual - expected).norm() / expected.norm())


@pytest.fixture
def compared(sample, nodes):
    """Sample on one device and on several, and return their relative distance."""

    def compare(model, devices="cpu,cpu", shares="auto", **kwargs):
        expected = sample(model, **kwargs)
        actual = sample(nodes.CLEARParallel(model, devices, shares), **kwargs)
        return relative(actual, expected)

    return compare


@pytest.mark.parametrize("devices", ["cpu,cpu", "cpu,cpu,cpu", "cpu,cpu,cpu,cpu"])
def test_several_devices_paint_the_picture_of_one(devices, compared, flux_model, nodes, lines):
    model = nodes.CLEARAttention(flux_model("b"), radius=3)
    assert compared(model, devices) < LIMIT
    print(lines())
    assert any("parallel, each of" in line for line in lines())
