"""How long tests wait for what they start."""

from __future__ import annotations

import pytest

from tools.patience import Patience, slowdown_by_load


class Machine:
    """A clock and a load, both set by hand."""

    def __init__(self) -> None:
        self.now, self.load = 100.0, 1.0

    def patience(self, seconds: float) -> Patience:
        return Patience("the page", seconds, slowdown=lambda: self.load, clock=lambda: self.now)


def test_on_an_idle_machine_the_limit_is_the_one_given():
    machine = Machine()
    patience = machine.patience(30)
    machine.now += 29
    assert not patience.over and patience.left == 1
    machine.now += 1
    assert patience.over


def test_load_that_comes_while_waiting_makes_the_limit_longer_for_good():
    machine = Machine()
    patience = machine.patience(30)
    machine.load = 10
    machine.now += 299
    assert not patience.over
    machine.load = 1
    assert not patience.over
    machine.now += 1
    assert patience.over


def test_the_sentence_names_what_was_waited_for_and_for_how_long():
    machine = Machine()
    patience = machine.patience(30)
    machine.now += 31
    assert patience.over
    assert str(patience) == "Waited 31 s for the page (30 s are allowed on an idle machine)."
    machine.load = 2.5
    assert not patience.over
    assert "2.5 times as many under the load of this one" in str(patience)


@pytest.mark.parametrize(("load", "factor"), [(0.5, 1.0), (4.0, 1.0), (20.0, 5.0)])
def test_each_core_is_shared_by_those_that_want_it(load, factor, monkeypatch):
    monkeypatch.setattr("os.getloadavg", lambda: (load, 0.0, 0.0), raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    assert slowdown_by_load() == factor


def test_without_a_load_average_the_limit_is_the_one_given(monkeypatch):
    monkeypatch.delattr("os.getloadavg", raising=False)
    assert slowdown_by_load() == 1.0
