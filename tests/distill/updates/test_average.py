"""The running average: it forgets the start, then keeps its decay; exchanging leaves no trace."""

from __future__ import annotations

import pytest
import torch

from clear_attention.distill.updates.average import follow, in_place


@pytest.mark.parametrize(("step", "kept"), [(1, 2 / 11), (8, 0.5), (1000, 0.9)])
def test_an_average_keeps_less_of_itself_early_on(step: int, kept: float):
    average, parameters = {"w": torch.ones(3)}, {"w": torch.zeros(3, requires_grad=True)}
    follow(average, parameters, step, decay=0.9)
    torch.testing.assert_close(average["w"], torch.full((3,), kept))
    assert not average["w"].requires_grad


def test_after_an_error_parameters_and_averages_are_as_before():
    average, parameters = {"w": torch.ones(3)}, {"w": torch.zeros(3), "rest": torch.zeros(3)}
    with pytest.raises(RuntimeError), in_place(average, parameters):
        assert torch.equal(parameters["w"], torch.ones(3))
        raise RuntimeError
    assert torch.equal(parameters["w"], torch.zeros(3))
    assert torch.equal(average["w"], torch.ones(3))
