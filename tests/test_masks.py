"""Masks are read once: what they hide is kept, and the cheap ones are found."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mask_cases import KINDS, draw_mask
from torch import Tensor

from clear_attention import Pooling, Queries, TokenLayout, Window, attention, read_mask
from clear_attention.masks import HIDDEN, general_mask

LAYOUT = TokenLayout(text=4, height=3, width=4, extra=2)
LOWEST = torch.finfo(torch.float32).min


def over_keys(*hidden: int, low: float = -torch.inf) -> Tensor:
    """Return a mask ``[1, 1, 1, L]`` that hides some keys."""
    mask = torch.zeros(1, 1, 1, LAYOUT.tokens)
    mask[..., list(hidden)] = low
    return mask


def tensors(batch: int = 2, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (batch, 2, LAYOUT.tokens, 8)
    return [torch.randn(shape, generator=generator).to(dtype) for _ in range(3)]


@pytest.mark.parametrize("shape", [(1, 1, 1, 18), (2, 1, 18, 18), (18,), (18, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bool], ids=str)
def test_a_mask_that_changes_nothing_is_dropped(shape, dtype):
    assert read_mask(torch.full(shape, dtype == torch.bool, dtype=dtype), LAYOUT) is None


def test_keys_that_are_hidden_from_all_are_left_out():
    found = read_mask(over_keys(1, 17), LAYOUT)
    assert found.general is None and found.bias is None
    assert found.kept.tolist() == [0, 2, 3, 4]  # places among text and extra keys
    assert found.shared == 4
    assert torch.equal(found.others, over_keys(1, 17, low=LOWEST))


def test_keys_that_are_hidden_from_some_sequences_get_a_bias():
    mask = torch.cat((over_keys(0, 1), over_keys(1, 2)))
    found = read_mask(mask, LAYOUT)
    assert found.general is None
    assert found.kept.tolist() == [0, 2, 3, 4, 5]
    assert found.bias[:, 0, 0].tolist() == [[LOWEST, 0, 0, 0, 0], [0, LOWEST, 0, 0, 0]]


def test_a_square_mask_with_equal_picture_rows_is_one_over_keys():
    mask = over_keys(3).repeat(2, 1, LAYOUT.tokens, 1)
    mask[:, :, 0, 5:9] = -2  # text rows are their own
    found = read_mask(mask, LAYOUT)
    assert found.general is None and found.bias is None
    assert found.kept.tolist() == [0, 1, 2, 4, 5]
    assert torch.equal(found.rows(text=True), mask[:, :, :4].clamp(min=LOWEST))
    assert torch.equal(found.rows(text=False), mask[:, :, 16:].clamp(min=LOWEST))


@pytest.mark.parametrize(
    "mask",
    [over_keys(4, low=-0.5), torch.eye(18), over_keys(3).mT],
    ids=["a picture key", "each its own", "all keys of a text row"],
)
def test_a_mask_over_pictures_stays_general(mask):
    mask = mask.expand(1, 1, mask.shape[-2], 18).clone()
    if mask.shape[2] > 1:
        mask[..., 7, 3] = -1  # one picture row alone
    found = read_mask(mask, LAYOUT)
    assert found.general is not None and found.kept is None and found.bias is None


def test_rows_are_those_of_the_queries():
    asked = Queries(text=False, first_row=1, rows=1)
    mask = torch.zeros(1, 1, 6, LAYOUT.tokens)
    mask[:, :, :4, 2] = -torch.inf  # the row's tokens
    mask[:, :, 4:, 9] = -1  # extra
    found = read_mask(mask, LAYOUT, asked)
    assert found.general is None and found.kept.tolist() == [0, 1, 3, 4, 5]
    assert torch.equal(found.rows(text=False), mask[:, :, 4:])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("low", [-torch.inf, LOWEST, HIDDEN])
def test_whatever_is_low_enough_hides(dtype, low):
    q, k, v = tensors(dtype=dtype)
    window = Window(2)
    found = attention(q, k, v, LAYOUT, window, mask=over_keys(1, low=low), backend="tiled")
    k, v = k.clone(), v.clone()
    k[:, :, 1], v[:, :, 1] = 9, -1000
    other = attention(q, k, v, LAYOUT, window, mask=over_keys(1, low=low), backend="tiled")
    assert torch.equal(found, other)


def test_nothing_is_looked_into_where_it_would_cost():
    mask = over_keys(1)
    assert read_mask(mask.clone().requires_grad_(), LAYOUT).general is not None
    counts = []

    def model(x: Tensor) -> Tensor:
        counts.append(read_mask(mask, LAYOUT).general is not None)
        return x + 1

    torch.compile(model, backend="eager")(torch.ones(1))
    assert counts[-1]


def test_a_mask_may_be_compiled():
    q, k, v = tensors()
    mask, window = over_keys(1), Window(2)

    def model(q: Tensor) -> Tensor:
        return attention(2 * q, k, v, LAYOUT, window, mask=mask)

    found = torch.compile(model, backend="eager", fullgraph=True)(q)
    torch.testing.assert_close(found, model(q))


@pytest.mark.parametrize("backend", ["reference", "masked", "tiled", "flex"])
def test_a_row_from_which_all_is_hidden_harms_no_other(backend):
    mask = torch.zeros(2, 1, LAYOUT.tokens, LAYOUT.tokens)
    mask[0, :, 2] = -torch.inf  # a text query sees nothing
    mask[1, :, 4:16, :4] = -torch.inf  # image queries of one sequence see no text and no extra
    mask[1, :, 4:16, 16:] = -torch.inf
    q, k, v = (x.requires_grad_() for x in tensors())
    out, lse = attention(q, k, v, LAYOUT, Window(2), mask=mask, backend=backend, return_lse=True)
    grads = torch.autograd.grad(out.square().sum(), (q, k, v))
    assert all(x.isfinite().all() for x in (out, lse, *grads))
    torch.testing.assert_close(out[0, :, 2], v[0].mean(1))
    alone = attention(*(x[1:] for x in (q, k, v)), LAYOUT, Window(2), mask=mask[1:])
    torch.testing.assert_close(out[1:], alone)


@given(data=st.data(), kind=st.sampled_from(KINDS))
def test_what_is_read_is_what_was_given(data, kind):
    """The same scores, as far as numbers go that can be seen."""
    mask = data.draw(draw_mask(kind, LAYOUT, batch=2, heads=2))
    found, whole = read_mask(mask, LAYOUT), general_mask(mask, LAYOUT).general
    dense = torch.zeros(1) if found is None else found.to(torch.float64).dense()
    assert (found is None or found.general is None) == (kind != "over pictures")
    seen = torch.exp(whole.double()) == torch.exp(dense.double())
    assert seen.all()


@pytest.mark.parametrize("pooling", [None, Pooling(2)], ids=["local", "pooled"])
def test_a_mask_that_was_read_serves_many_calls(pooling):
    q, k, v = tensors()
    mask = torch.cat((over_keys(0, 1), over_keys(1, 2)))
    read = read_mask(mask, LAYOUT)
    for dtype in (torch.float64, torch.bfloat16):
        inputs = [x.to(dtype) for x in (q, k, v)]
        found, expected = (
            attention(*inputs, LAYOUT, Window(2), pooling=pooling, mask=each, backend="tiled")
            for each in (read, mask)
        )
        assert torch.equal(found, expected)
