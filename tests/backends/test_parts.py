"""Parts of the queries, groups of heads and masks over text, however attention is computed."""

from __future__ import annotations

import math

import pytest
import torch
from attention_cases import WAYS, Case, attend, cases, computed
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_cases import KINDS
from part_cases import Asked, asked_calls

from clear_attention import Queries, TokenLayout, attention
from clear_attention.backends import BACKENDS

# FlexAttention computes whole blocks on a CPU, which takes too long for many cases.
SLOW = "flex"
every_way = pytest.mark.parametrize("way", ["reference", *sorted({*WAYS} - {SLOW})])
TOLERANCE = {"rtol": 0, "atol": 1e-9}  # of float64: sums of some thousand terms of size 1000


def run(way, asked, *tensors):
    """Compute a call in one of the ways."""
    if way == "reference":
        return asked.compute(*tensors, way)
    with computed(way) as backend:
        return asked.compute(*tensors, backend)


def run_attention(way, *args, **kwargs):
    """Call `attention` in one of the ways."""
    if way == "reference":
        return attention(*args, **kwargs, backend=way)
    return attend(way, *args, **kwargs)


def gradients(way, asked):
    """Return the gradients of q, k and v in one of the ways, or as the reference has them."""
    tensors = [x.requires_grad_() for x in asked.tensors()]
    out, _ = asked.specify(*tensors) if way is None else run(way, asked, *tensors)
    upstream = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
    return torch.autograd.grad(out, tensors, upstream, materialize_grads=True)


def assert_close(found, expected):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, **TOLERANCE)


def kinds_of(way):
    """Return the masks that a way takes."""
    takes_all = "masked" in way or way == "reference"
    return KINDS if takes_all else KINDS[:-1]


@every_way
@settings(max_examples=15)
@given(data=st.data())
def test_any_part_group_and_mask_matches_the_whole(way, data):
    asked = data.draw(asked_calls(kinds_of(way)))
    tensors = asked.tensors()
    assert_close(run(way, asked, *tensors), asked.specify(*tensors))


@every_way
@settings(max_examples=8)
@given(data=st.data())
def test_gradients_are_those_of_the_whole(way, data):
    asked = data.draw(asked_calls(kinds_of(way)))
    assert_close(gradients(way, asked), gradients(None, asked))


PADDING = torch.zeros(2, 1, 1, 300).index_fill(-1, torch.tensor([1]), -torch.inf)
PADDING[1, ..., 0] = -torch.inf  # of the second sequence alone


@pytest.mark.parametrize(
    ("queries", "factor"),
    [(Queries(), 4), (Queries(extra=False, first_row=11, rows=3), 0)],
    ids=["all, pooled", "a band"],
)
def test_flex_does_what_the_others_do(queries, factor):
    layout = TokenLayout(4, 17, 17, extra=7)
    case = Case(layout, 4, factor, batch=2, heads=1, wraps=(True, False), dtype=torch.float64)
    asked = Asked(case, queries, groups=2, mask=PADDING[..., : layout.tokens].double())
    tensors = asked.tensors()
    assert_close(run(SLOW, asked, *tensors), asked.specify(*tensors))
    assert_close(gradients(SLOW, asked), gradients(None, asked))


@every_way
@settings(max_examples=10)
@given(data=st.data(), case=cases(wraps=(False, False), factor=0, dtype=torch.float64))
def test_bands_with_a_halo_are_the_whole(way, data, case):
    """As several GPUs compute a picture: each has its rows and those that its windows reach."""
    layout, window = case.geometry
    q, k, v = case.tensors()
    whole = run_attention(way, q, k, v, layout, window)
    cut = data.draw(st.integers(0, layout.height))
    bands = []
    for rows in (range(cut), range(cut, layout.height)):
        if not rows:
            continue
        held = range(
            max(0, rows.start - window.reach), min(layout.height, rows.stop + window.reach)
        )
        keys = Queries(first_row=held.start, rows=len(held))
        own = Queries(False, False, rows.start, len(rows))
        halo = Queries(False, False, rows.start - held.start, len(rows))
        local = TokenLayout(layout.text, len(held), layout.width, layout.extra)
        k_held, v_held = (keys.of(x, layout) for x in (k, v))
        bands.append(
            run_attention(way, own.of(q, layout), k_held, v_held, local, window, queries=halo)
        )
    torch.testing.assert_close(torch.cat(bands, 2), whole[:, :, layout.image_slice], **TOLERANCE)


@pytest.mark.parametrize("backend", sorted({*BACKENDS} - {"triton", "triton_int8"}))
@pytest.mark.parametrize("head_dim", [7, 40, 72, 120, 256])
def test_any_head_dim_forward_and_backward(backend, head_dim):
    case = Case(TokenLayout(3, 9, 10, extra=1), radius=3, factor=3, head_dim=head_dim)
    asked = Asked(case, Queries(text=False, first_row=1), groups=2, mask=None)
    tensors = [x.requires_grad_() for x in asked.tensors()]
    found = asked.compute(*tensors, backend)
    exact = asked.specify(*(x.double() for x in tensors))
    coarse = asked.specify(*tensors)
    for one, rough, other in zip(found, coarse, exact, strict=True):
        allowed = 2 * ((rough - other).abs().max() + 4e-6 * other.abs().max())
        assert (one - other).abs().max() <= allowed
    grads, expected = (torch.autograd.grad(x[0].square().sum(), tensors) for x in (found, exact))
    for one, other in zip(grads, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * other.abs().max().item())


def sees(case, query, key):
    """Say whether an image query sees an image key, by walking around the shorter way."""
    window, (height, width) = case.geometry[1], (case.layout.height, case.layout.width)
    (y, x), (key_y, key_x) = divmod(query, width), divmod(key, width)
    turns = [(0, window.wrap_height, height), (0, window.wrap_width, width)]
    down, right = (
        min(abs(d), length - abs(d)) if wraps else abs(d)
        for d, (_, wraps, length) in zip((y - key_y, x - key_x), turns, strict=True)
    )
    return down * down + right * right < case.radius**2


@settings(max_examples=4)
@given(
    asked=asked_calls(factor=0, batch=2, heads=2, head_dim=8, layout=TokenLayout(2, 4, 5, extra=1))
)
def test_the_reference_takes_each_query_head_to_its_key_head_and_mask(asked):
    layout, scale = asked.case.layout, asked.case.scale or asked.case.head_dim**-0.5
    q, k, v = asked.tensors()
    out, lse = asked.compute(q, k, v, "reference")
    mask = torch.zeros(1, dtype=q.dtype) if asked.mask is None else asked.mask
    mask = mask.expand(*q.shape[:3], layout.tokens)
    tokens = asked.queries.of(torch.arange(layout.tokens), layout, dim=0).tolist()
    inside = range(layout.text, layout.text + layout.image)
    for b, h in ((0, 0), (1, q.shape[1] - 1), (0, q.shape[1] // 2)):
        head = h // asked.groups
        for row, query in enumerate(tokens):
            terms = {}
            for key in range(layout.tokens):
                far = query in inside and key in inside
                if far and not sees(asked.case, query - layout.text, key - layout.text):
                    continue
                score = q[b, h, query] @ k[b, head, key] * scale + mask[b, h, query, key]
                terms[key] = math.exp(score)
            total = sum(terms.values())
            if not total:
                continue
            expected = sum(term / total * v[b, head, key] for key, term in terms.items())
            torch.testing.assert_close(out[b, h, row], expected, **TOLERANCE)
            assert lse[b, h, row].item() == pytest.approx(math.log(total))
