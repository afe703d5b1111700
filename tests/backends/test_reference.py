"""The specification against a third statement of the rule, pair by pair."""

from __future__ import annotations

import math

import pytest
import torch
from attention_cases import Case

from clear_attention import TokenLayout, attention


def sees(case, query, key):
    """Say whether a query sees a key; keys behind the sequence are the pooled ones."""
    layout = case.layout

    def place(token):
        return divmod(token - layout.text, layout.width)

    def in_grid(token):
        return layout.text <= token < layout.text + layout.image

    if key >= layout.tokens:
        return in_grid(query)
    if not in_grid(query) or not in_grid(key):
        return True
    (query_y, query_x), (key_y, key_x) = place(query), place(key)
    return (query_y - key_y) ** 2 + (query_x - key_x) ** 2 < case.radius**2


def pooled(case, tokens):
    """Return the pooled tokens of one head as a list."""
    layout, pooling = case.layout, case.pooling()
    factor, weight = pooling.factor, pooling.weight.double()
    cells = []
    for top in range(0, layout.height, factor):
        for left in range(0, layout.width, factor):
            terms = [
                (weight[y - top, x - left], tokens[layout.text + y * layout.width + x])
                for y in range(top, min(top + factor, layout.height))
                for x in range(left, min(left + factor, layout.width))
            ]
            total = sum(w * token for w, token in terms)
            cells.append(total * weight.sum() / sum(w for w, _ in terms))
    return cells


@pytest.mark.parametrize(
    "case",
    [
        Case(TokenLayout(2, 4, 5), radius=2, heads=1, head_dim=4),
        Case(TokenLayout(0, 5, 3, extra=2), radius=3, heads=1, head_dim=4),
        Case(TokenLayout(2, 5, 7, extra=1), radius=4, factor=3, heads=1, head_dim=4, scale=0.9),
    ],
    ids=["local", "extra", "pooled"],
)
def test_every_query_takes_the_softmax_over_the_keys_that_it_sees(case):
    q, k, v = (x.double() for x in case.tensors())
    out, lse = attention(
        q, k, v, *case.geometry, **case.options, backend="reference", return_lse=True
    )
    keys, values = list(k[0, 0]), list(v[0, 0])
    if case.factor:
        keys, values = keys + pooled(case, k[0, 0]), values + pooled(case, v[0, 0])
    scale = case.scale or case.head_dim**-0.5
    for query in range(case.layout.tokens):
        seen = [key for key in range(len(keys)) if sees(case, query, key)]
        exponentials = [math.exp(q[0, 0, query] @ keys[key] * scale) for key in seen]
        total = sum(exponentials)
        expected = sum(e / total * values[key] for e, key in zip(exponentials, seen, strict=True))
        torch.testing.assert_close(out[0, 0, query], expected)
        assert lse[0, 0, query].item() == pytest.approx(math.log(total))


def test_it_sums_in_float32_at_least():
    case = Case(TokenLayout(3, 6, 7), radius=3, dtype=torch.bfloat16)
    q, k, v = case.tensors()
    narrow = attention(q, k, v, *case.geometry, backend="reference")
    wide = attention(q.float(), k.float(), v.float(), *case.geometry, backend="reference")
    assert torch.equal(narrow, wide.bfloat16())
