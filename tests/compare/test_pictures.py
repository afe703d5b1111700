"""Distances of pictures against what their formulas say, window by window and number by number."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clear_attention.compare import pictures
from clear_attention.compare.velocity import power, squared_difference, velocity


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ssim_by_hand(a, b, peak=1.0, size=11):
    """Return equation 13 of Wang et al., a window at a time, with weights made anew."""
    at = torch.arange(size, dtype=torch.float64) - size // 2
    weights = torch.exp(-(at[:, None] ** 2 + at**2) / (2 * 1.5**2))
    weights /= weights.sum()
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    found = []
    for channel in range(a.shape[0]):
        for top in range(a.shape[1] - size + 1):
            for left in range(a.shape[2] - size + 1):
                x, y = (each[channel, top : top + size, left : left + size] for each in (a, b))
                mean_x, mean_y = (weights * x).sum(), (weights * y).sum()
                var_x = (weights * (x - mean_x) ** 2).sum()
                var_y = (weights * (y - mean_y) ** 2).sum()
                both = (weights * (x - mean_x) * (y - mean_y)).sum()
                above = (2 * mean_x * mean_y + c1) * (2 * both + c2)
                found.append(above / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)))
    return float(torch.stack(found).mean())


@pytest.mark.parametrize(
    ("height", "width", "size"), [(17, 14, 11), (11, 11, 11), (9, 20, 9), (8, 30, 7)]
)
@pytest.mark.parametrize("peak", [1.0, 7.0])
def test_structural_similarity_is_that_of_every_window_by_itself(height, width, size, peak):
    """On a side of fewer than 11 the window is smaller there alone, so that square ones compare."""
    a = noise(2, 3, min(height, width), min(height, width)) * peak
    b = (a + 0.3 * peak * noise(*a.shape, seed=1)).clamp(0, peak)
    found = pictures.ssim(a, b, peak)
    for at in range(2):
        # Sums of 121 products in another order, in float64; the result is float32.
        assert float(found[at]) == pytest.approx(ssim_by_hand(a[at], b[at], peak, size), abs=1e-6)


def test_similarity_is_1_for_equal_pictures_and_does_not_depend_on_their_order():
    a, b = noise(1, 3, 20, 15), noise(1, 3, 20, 15, seed=1)
    assert float(pictures.ssim(a, a)) == pytest.approx(1, abs=1e-6)
    assert float(pictures.ssim(a, b)) == float(pictures.ssim(b, a)) < 0.2
    turned = pictures.ssim(a.transpose(2, 3), b.transpose(2, 3))
    assert float(turned) == pytest.approx(float(pictures.ssim(a, b)), abs=1e-6)


def test_similarity_sees_a_lost_contrast_that_keeps_the_mean():
    a = noise(1, 1, 24, 24)
    blurred = a.mean() + 0.5 * (a - a.mean())
    # Of equal means: 2 k / (1 + k^2), up to c2, for a contrast of k = 1/2.
    assert float(pictures.ssim(a, blurred)) == pytest.approx(0.8, abs=0.02)


def test_pictures_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"of one shape, got \[1, 3, 8, 8\] and \[1, 3, 8, 9\]"):
        pictures.ssim(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 9))
    with pytest.raises(ValueError, match="must be of one shape"):
        squared_difference(torch.zeros(2, 3), torch.zeros(1, 3))


@pytest.mark.parametrize(("squared", "decibels"), [(1.0, 0.0), (0.01, 20.0), (0.0, math.inf)])
def test_a_tenth_of_the_squared_difference_is_ten_decibels(squared, decibels):
    assert pictures.psnr(squared) == pytest.approx(decibels)


def test_the_distance_of_embeddings_is_that_of_their_directions():
    a = torch.tensor([[1.0, 0.0], [3.0, 4.0], [1.0, 1.0]])
    b = torch.tensor([[0.0, 2.0], [6.0, 8.0], [-1.0, -1.0]])
    torch.testing.assert_close(pictures.cosine_distance(a, b), torch.tensor([1.0, 0.0, 2.0]))


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ([0.0, 0.5], ""),
        ([0.0, math.nan], "not a number"),
        ([math.inf, 0.5], "not a number"),
        ([0.0, 1 / 255], "black"),
        ([0.0, 3 / 255], ""),
    ],
)
def test_a_picture_that_cannot_be_compared_says_why(values, fault):
    assert pictures.fault_of(torch.tensor(values)) == fault


def test_a_latent_of_zeros_is_empty_and_a_negative_one_is_not_black():
    assert pictures.fault_of(torch.zeros(4), is_latent=True) == "empty"
    assert pictures.fault_of(torch.full((4,), -1.0), is_latent=True) == ""


@given(level=st.floats(0.05, 0.95), seed=st.integers(0, 99))
def test_the_velocity_leads_from_the_picture_to_its_noise(level, seed):
    """Where the model predicts the true picture: velocity = noise - picture, at every level."""
    clean, grain = noise(2, 3, 4, seed=seed), noise(2, 3, 4, seed=seed + 100)
    there = level * grain + (1 - level) * clean
    torch.testing.assert_close(velocity(there, clean, level), grain - clean)
    wrong = velocity(there, clean + 0.1, level)
    errors = squared_difference(wrong, grain - clean)
    torch.testing.assert_close(errors, torch.full((2,), (0.1 / level) ** 2), rtol=1e-4, atol=0)


def test_each_entry_of_a_batch_has_an_error_of_its_own():
    a = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    b = torch.tensor([[1.0, 0.0], [3.0, -3.0]])
    torch.testing.assert_close(squared_difference(a, b), torch.tensor([2.0, 9.0]))
    torch.testing.assert_close(power(b), torch.tensor([0.5, 9.0]))
    torch.testing.assert_close(power(b.half() * 100), torch.tensor([5e3, 9e4]))
    far, near = torch.tensor([[2048.0]]).half(), torch.tensor([[0.5]]).half()
    assert float(squared_difference(far, near)) == 2047.5**2  # the difference has more digits
    half = squared_difference(a.half() * 100, b.half() * 100)  # the square leaves half's range
    torch.testing.assert_close(half, torch.tensor([2e4, 9e4]))
