"""Where image queries look: measured against a dense float64 computation and the window's mask."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from clear_attention import TokenLayout, Window
from clear_attention.locality import measure as locality_module
from clear_attention.locality.measure import Locality, measure_locality, spread_queries

layouts = st.builds(
    TokenLayout,
    text=st.integers(0, 5),
    height=st.integers(1, 7),
    width=st.integers(1, 7),
    extra=st.integers(0, 4),
)


def random_qk(layout, batch=1, heads=2, depth=4, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, heads, layout.tokens, depth)
    return [torch.randn(shape, generator=generator, dtype=dtype) for _ in "qk"]


def dense_kept(q, k, layout, radius, scale=None, bias=0.0, rows=None):
    """Return what full attention puts on the tokens that CLEAR shows, per head."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    probs = (q.double() @ k.double().transpose(-1, -2) * scale + bias).softmax(-1)
    sees = torch.ones(layout.image, layout.tokens, dtype=torch.bool)
    sees[:, layout.image_slice] = Window(radius).mask(layout.height, layout.width)
    kept = (probs[:, :, layout.image_slice] * sees).sum(-1)
    return (kept if rows is None else kept[:, :, rows]).mean((0, 2))


@given(layout=layouts, batch=st.integers(1, 2), heads=st.integers(1, 3), seed=st.integers(0, 99))
def test_what_is_kept_is_what_the_window_shows_of_full_attention(layout, batch, heads, seed):
    q, k = random_qk(layout, batch, heads, seed=seed)
    found = measure_locality(q, k, layout, scale=0.7)
    for radius in range(1, found.covering_radius + 2):
        expected = dense_kept(q, k, layout, radius, scale=0.7)
        torch.testing.assert_close(found.kept_at(radius), expected, atol=1e-12, rtol=0)


@given(layout=layouts, seed=st.integers(0, 99))
def test_everything_adds_up_and_the_covering_radius_keeps_it(layout, seed):
    found = measure_locality(*random_qk(layout, seed=seed), layout)
    ones = torch.ones(2, dtype=torch.float64)
    torch.testing.assert_close(found.kept()[:, -1], ones)
    torch.testing.assert_close(found.kept_of_image()[:, -1], ones)
    assert Window(found.covering_radius).covers(layout.height, layout.width)
    if found.covering_radius > 1:
        assert not Window(found.covering_radius - 1).covers(layout.height, layout.width)


@given(layout=layouts, seed=st.integers(0, 99))
def test_the_share_of_the_image_alone_leaves_out_text_and_references(layout, seed):
    q, k = random_qk(layout, seed=seed)
    probs = (q @ k.transpose(-1, -2) / 2).softmax(-1)[:, :, layout.image_slice]
    image = probs[..., layout.image_slice]
    found = measure_locality(q, k, layout)
    for radius in (1, 2, 4, 99):
        within = (image * Window(radius).mask(layout.height, layout.width)).sum((0, 2, 3))
        torch.testing.assert_close(found.kept_of_image_at(radius), within / image.sum((0, 2, 3)))


@pytest.mark.parametrize(
    ("dy", "dx", "radius"), [(0, 0, 1), (0, 3, 4), (3, 0, 4), (3, 4, 6), (2, 2, 3), (1, 1, 2)]
)
def test_a_known_distance_is_found(dy, dx, radius):
    """Each query looks at exactly one token, `dy` rows and `dx` columns away."""
    layout = TokenLayout(2, 9, 10, extra=1)
    y = torch.arange(9).repeat_interleave(10)
    x = torch.arange(10).repeat(9)
    target = torch.where(y + dy < 9, y + dy, y - dy) * 10 + torch.where(x + dx < 10, x + dx, x - dx)
    k = torch.eye(layout.tokens)[None, None]
    q = torch.zeros_like(k)
    q[0, 0, layout.image_slice] = 1e4 * k[0, 0, layout.text + target]
    found = measure_locality(q, k, layout)
    assert found.block_radius(0.9) == found.block_radius(1.0) == radius
    assert found.head_radii(0.9).tolist() == [radius]
    assert found.kept_at(radius).tolist() == [1.0]
    assert radius == 1 or found.kept_at(radius - 1).tolist() == [0.0]


def test_a_head_that_looks_at_the_text_alone_keeps_everything():
    layout = TokenLayout(3, 4, 5)
    k = torch.zeros(1, 1, layout.tokens, 2)
    k[:, :, 0] = 1.0
    found = measure_locality(1e4 * torch.ones_like(k), k, layout)
    assert found.seen_by_all.tolist() == [1.0]
    assert found.block_radius(1.0) == 1
    assert found.kept_of_image_at(1).tolist() == [1.0]


@given(layout=layouts, share=st.floats(0.01, 1.0), seed=st.integers(0, 99))
def test_the_radius_for_a_share_is_the_smallest_that_keeps_it(layout, share, seed):
    found = measure_locality(*random_qk(layout, heads=3, seed=seed), layout)
    kept = [*found.kept(), found.kept().mean(0)]
    radii = [*found.head_radii(share).tolist(), found.block_radius(share)]
    for curve, radius in zip(kept, radii, strict=True):
        assert curve[radius - 1] >= share or radius == found.covering_radius
        assert radius == 1 or curve[radius - 2] < share


def test_a_share_that_rounding_leaves_out_of_reach_is_kept_by_the_covering_radius():
    almost = Locality(torch.zeros(1), torch.tensor([[0.5, 0.25, 0.2499999]]))
    assert almost.kept()[0, -1] < 1
    assert almost.block_radius(1.0) == 3
    assert almost.head_radii(1.0).tolist() == [3]


@pytest.mark.parametrize("queries", [1, 5, 13, 62, 63])
def test_a_choice_of_queries_is_measured_exactly(queries):
    layout = TokenLayout(4, 9, 7, extra=2)
    q, k = random_qk(layout, batch=2)
    rows = spread_queries(layout, queries, seed=3)
    found = measure_locality(q, k, layout, queries=queries, seed=3)
    for radius in (1, 3, 5, 20):
        expected = dense_kept(q, k, layout, radius, rows=rows)
        torch.testing.assert_close(found.kept_at(radius), expected)


@given(layout=layouts, seed=st.integers(0, 99), data=st.data())
def test_queries_are_spread_evenly(layout, seed, data):
    count = data.draw(st.integers(1, layout.image))
    chosen = spread_queries(layout, count, seed).tolist()
    for index, token in enumerate(chosen):
        run = range(index * layout.image // count, (index + 1) * layout.image // count)
        assert token in run
    assert chosen == spread_queries(layout, count, seed).tolist()


def test_another_seed_chooses_other_queries():
    layout = TokenLayout(0, 32, 32)
    assert not torch.equal(spread_queries(layout, 64, 0), spread_queries(layout, 64, 1))


def test_asking_for_more_queries_than_there_are_takes_all():
    layout = TokenLayout(2, 4, 3)
    q, k = random_qk(layout)
    every, more = measure_locality(q, k, layout), measure_locality(q, k, layout, queries=999)
    assert torch.equal(every.first_seen, more.first_seen)


@pytest.mark.parametrize("kind", ["boolean", "additive", "keys alone", "per batch and head"])
def test_what_a_mask_hides_gets_no_mass(kind):
    layout = TokenLayout(3, 5, 4, extra=2)
    q, k = random_qk(layout, batch=2)
    generator = torch.Generator().manual_seed(7)
    rows = 1 if kind == "keys alone" else layout.tokens
    leading = (2, 2) if kind == "per batch and head" else ()
    sees = torch.rand(*leading, rows, layout.tokens, generator=generator) < 0.6
    sees[..., 0] = True
    bias = torch.zeros(sees.shape, dtype=q.dtype).masked_fill(~sees, -torch.inf)
    if kind != "boolean":
        bias += torch.randn(sees.shape, generator=generator, dtype=q.dtype)
    found = measure_locality(q, k, layout, mask=sees if kind == "boolean" else bias, queries=11)
    chosen = spread_queries(layout, 11)
    for radius in (1, 2, 4, 9):
        expected = dense_kept(q, k, layout, radius, bias=bias, rows=chosen)
        torch.testing.assert_close(found.kept_at(radius), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_summed_in_float32(dtype):
    layout = TokenLayout(7, 13, 11)
    q, k = random_qk(layout, depth=32, dtype=dtype)
    found = measure_locality(q, k, layout)
    assert found.first_seen.dtype == torch.float32
    expected = dense_kept(q, k, layout, 4)
    torch.testing.assert_close(found.kept_at(4).double(), expected, atol=1e-5, rtol=0)


def test_strides_do_not_matter():
    layout = TokenLayout(2, 5, 6)
    q, k = random_qk(layout, batch=2)
    wide = torch.cat((q, k), -1).transpose(1, 2).contiguous().transpose(1, 2)
    found = measure_locality(wide[..., :4], wide[..., 4:], layout)
    torch.testing.assert_close(found.first_seen, measure_locality(q, k, layout).first_seen)


class LargestTensor(TorchDispatchMode):
    """Watches how many elements the largest result has."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.numel = max(self.numel, out.numel())
        return out


def test_memory_is_linear_in_the_tokens(monkeypatch):
    layout = TokenLayout(16, 40, 40)
    q, k = random_qk(layout, heads=1)
    whole = measure_locality(q, k, layout)
    monkeypatch.setattr(locality_module, "PLAIN_SCORES", 2**14)
    with LargestTensor() as largest:
        chunked = measure_locality(q, k, layout)
    assert largest.numel <= 2**14 < layout.tokens**2 // 100
    torch.testing.assert_close(chunked.first_seen, whole.first_seen)


def test_measurements_of_different_grids_are_averaged_by_radius():
    small, large = TokenLayout(1, 2, 2), TokenLayout(1, 5, 6)
    found = [measure_locality(*random_qk(layout), layout) for layout in (small, large)]
    mean = Locality.mean(found)
    for radius in range(1, mean.covering_radius + 1):
        expected = (found[0].kept_at(radius) + found[1].kept_at(radius)) / 2
        torch.testing.assert_close(mean.kept_at(radius), expected)


def test_tensors_that_do_not_fit_are_refused():
    layout = TokenLayout(2, 3, 4)
    q, k = random_qk(layout)
    with pytest.raises(ValueError, match=r"must be \[B, H, 14, D\] .* got \[1, 2, 13, 4\]"):
        measure_locality(q[:, :, 1:], k[:, :, 1:], layout)
    with pytest.raises(ValueError, match=r"must be \[B, H, 14, D\]"):
        measure_locality(q, k[:, :1], layout)
    with pytest.raises(ValueError, match="queries must be at least 1, got 0"):
        measure_locality(q, k, layout, queries=0)
