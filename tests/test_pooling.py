"""The pooled branch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clear_attention import Pooling

sizes = st.integers(1, 11)
factors = st.integers(1, 5)


def weights(factor: int) -> torch.Tensor:
    return (torch.arange(factor * factor).view(factor, factor) + 1.0) / factor**3


def tokens(height: int, width: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height * 100 + width)
    return torch.randn(2, 3, height * width, 4, generator=generator).to(dtype)


@given(height=sizes, width=sizes, factor=factors)
def test_a_cell_is_the_weighted_sum_of_the_tokens_that_it_has(height, width, factor):
    grid = tokens(height, width).view(2, 3, height, width, 4)
    weight = weights(factor).double()
    expected = []
    for top in range(0, height, factor):
        for left in range(0, width, factor):
            cell = grid[:, :, top : top + factor, left : left + factor]
            part = weight[: cell.shape[2], : cell.shape[3]]
            share = part * weight.sum() / part.sum()
            expected.append(torch.einsum("yx,bhyxd->bhd", share, cell))
    pooled = Pooling(factor, weights(factor)).pool(tokens(height, width), height, width)
    torch.testing.assert_close(pooled, torch.stack(expected, 2), rtol=0, atol=1e-6)
    assert pooled.shape[2] == Pooling(factor).cells(height, width)


@given(height=sizes, width=sizes, factor=factors)
def test_without_weights_a_cell_is_the_mean(height, width, factor):
    constant = torch.full((1, 1, height * width, 1), 3.0)
    pooled = Pooling(factor).pool(constant, height, width)
    torch.testing.assert_close(pooled, torch.full_like(pooled, 3.0))


def test_the_published_shape_of_the_weights_is_read():
    published = weights(4).view(1, 1, 1, 4, 1, 4, 1)
    pooled = Pooling(4, published).pool(tokens(8, 12), 8, 12)
    torch.testing.assert_close(pooled, Pooling(4, weights(4)).pool(tokens(8, 12), 8, 12))


def test_half_precision_is_summed_in_float32():
    grid = tokens(16, 16, torch.bfloat16)
    pooled = Pooling(8, weights(8)).pool(grid, 16, 16)
    exact = Pooling(8, weights(8)).pool(grid.double(), 16, 16)
    assert pooled.dtype == torch.bfloat16
    torch.testing.assert_close(pooled, exact.bfloat16(), rtol=0, atol=0)


def test_weights_that_cancel_out_at_an_edge_are_left_as_they_are():
    weight = torch.tensor([[1.0, 5.0], [-1.0, 5.0]])
    pooled = Pooling(2, weight).pool(torch.tensor([2.0, 7.0]).view(1, 1, 2, 1), 2, 1)
    assert pooled.item() == 2.0 - 7.0


def test_gradients_reach_the_weights():
    weight = weights(3).double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda w, x: Pooling(3, w).pool(x, 4, 5), (weight, tokens(4, 5).requires_grad_())
    )


def test_a_cell_is_hidden_as_far_as_its_most_hidden_token():
    bias = torch.tensor([[0.0, -1.0, 2.0], [0.0, 0.0, 3.0], [0.0, 0.0, -torch.inf]])
    assert Pooling(2).pool_bias(bias.flatten(), 3, 3).tolist() == [-1.0, 2.0, 0.0, -torch.inf]


@pytest.mark.parametrize("factor", [0, -2, 1.5, None], ids=repr)
def test_impossible_factors_are_refused(factor):
    with pytest.raises(ValueError, match=r"Pooling\.factor must be a positive integer, got"):
        Pooling(factor)


def test_weights_of_another_factor_are_refused():
    with pytest.raises(ValueError, match=r"must have the shape \[4, 4\], got \[2, 8\]"):
        Pooling(4, torch.ones(2, 8))
