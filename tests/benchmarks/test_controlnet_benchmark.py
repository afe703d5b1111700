"""The ControlNet benchmark, without its nets."""

from __future__ import annotations

from benchmarks.cpu import controlnet


def test_exponents_are_those_of_the_sizes_that_were_timed_in_whatever_order(monkeypatch):
    monkeypatch.setattr(controlnet, "narrow_net", lambda: 2)
    monkeypatch.setattr(controlnet, "local", lambda net: 1)
    monkeypatch.setattr(controlnet, "ask", lambda power, grid: (None, float(grid**2) ** power))
    told = controlnet.alone([192, 64, 128], rounds=1)
    assert told == controlnet.alone([64, 128, 192], rounds=1)
    assert "full 2.00 (64 to 128), clear 1.00 (64 to 192)." in told
