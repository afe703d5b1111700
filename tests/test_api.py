"""The public function: what it checks, and what it passes on."""

from __future__ import annotations

import pytest
import torch

from clear_attention import Pooling, Queries, TokenLayout, Window, attention, read_mask

LAYOUT = TokenLayout(text=2, height=3, width=4, extra=1)


def tokens(*shape, dtype=torch.float32):
    return torch.zeros(shape or (1, 2, LAYOUT.tokens, 8), dtype=dtype)


def call(q=None, k=None, v=None, layout=LAYOUT, **options):
    q, k, v = (tokens() if x is None else x for x in (q, k, v))
    return attention(q, k, v, layout, Window(2), **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(q=tokens(15, 8)), r"q must be \[B, H, L, D\], got the shape \[15, 8\]"),
        (
            dict(k=tokens(1, 2, 16, 8)),
            r"k must have the shape \[1, 2, 15, 8\] and be torch.float32 on cpu as q is, "
            r"got \[1, 2, 16, 8\] torch.float32 on cpu",
        ),
        (dict(v=tokens(dtype=torch.float16)), "v must have the shape .* got .* torch.float16"),
        (dict(k=tokens().to("meta")), "k must have the shape .* got .* on meta"),
        (
            dict(zip("qkv", [tokens(dtype=torch.int32)] * 3, strict=True)),
            "q, k and v must be floating point, got torch.int32",
        ),
        (
            dict(layout=TokenLayout(0, 3, 4)),
            r"The layout has 12 tokens \(0 text \+ 3 x 4 image \+ 0 extra\), but q has 15",
        ),
        (
            dict(mask=tokens(3, 15, 15)),
            r"mask must broadcast to \[1, 2, 15, 15\], got \[3, 15, 15\]",
        ),
        (dict(mask=tokens(2, 1, 1, 15, 15)), r"mask must broadcast to .*, got \[2, 1, 1, 15, 15\]"),
        (dict(mask=tokens(2, 1, 15, 15)), r"mask must broadcast to .*, got \[2, 1, 15, 15\]"),
        (
            dict(mask=tokens(15, 15, dtype=torch.int64)),
            "mask must be boolean or floating point, got torch.int64",
        ),
        (
            dict(backend="cuda"),
            "backend must be auto, masked, triton, tiled, flex, triton_int8, reference, got 'cuda'",
        ),
        (
            dict(backend="tiled", mask=torch.eye(15)),
            "The tiled backend cannot take this call: it takes no attention mask over pictures",
        ),
        (
            dict(backend="flex", mask=torch.eye(15)),
            "The flex backend cannot take this call: it takes no attention mask over pictures",
        ),
        (
            dict(k=tokens(1, 3, 15, 8)),
            r"k must have the shape \[1, 2, 15, 8\] .* heads of k and v may be fewer .* a divisor",
        ),
        (
            dict(k=tokens(1, 1, 15, 8)),
            r"v must have the shape \[1, 1, 15, 8\] .* got \[1, 2, 15, 8\]",
        ),
        (
            dict(queries=Queries(extra=False, first_row=1)),
            r"The layout has 10 queries \(2 text \+ 2 x 4 image \+ 0 extra\), but q has 15",
        ),
        (
            dict(queries=Queries(first_row=1, rows=3)),
            r"Queries must lie in the grid's 3 rows, got 3 rows from row 1 on",
        ),
        (
            dict(mask=read_mask(torch.eye(12), TokenLayout(0, 3, 4))),
            r"mask must be read for the call's layout and queries, .* got .*TokenLayout\(text=0",
        ),
    ],
    ids=[
        "three dimensions",
        "more keys",
        "mixed dtypes",
        "mixed devices",
        "integers",
        "wrong layout",
        "mask for more heads",
        "mask of five dimensions",
        "mask for more sequences",
        "mask of integers",
        "unknown backend",
        "tiled with a mask",
        "flex with a mask",
        "heads that are no divisor",
        "heads of k and v that differ",
        "more queries than named",
        "rows outside the grid",
        "mask of another layout",
    ],
)
def test_what_does_not_fit_is_refused_with_both_values(arguments, message):
    with pytest.raises(ValueError, match=message):
        call(**arguments)


@pytest.mark.parametrize("backend", ["masked", "tiled", "flex", "reference"])
def test_the_log_sum_exp_comes_on_request_and_carries_no_gradient(backend):
    q = torch.randn(1, 2, LAYOUT.tokens, 8, requires_grad=True)
    assert torch.is_tensor(call(q=q, backend=backend))
    out, lse = call(q=q, backend=backend, return_lse=True)
    assert out.requires_grad
    assert not lse.requires_grad
    assert (lse.shape, lse.dtype) == (q.shape[:3], torch.float32)


@pytest.mark.parametrize("backend", ["masked", "tiled", "flex", "reference"])
def test_inputs_are_left_as_they_are(backend):
    q, k, v = (torch.randn(1, 2, LAYOUT.tokens, 8) for _ in range(3))
    copies = [x.clone() for x in (q, k, v)]
    call(q, k, v, pooling=Pooling(2), backend=backend)
    assert all(torch.equal(x, copy) for x, copy in zip((q, k, v), copies, strict=True))


def test_without_a_scale_it_is_the_usual_one():
    q, k, v = (torch.randn(1, 2, LAYOUT.tokens, 8) for _ in range(3))
    assert torch.equal(call(q, k, v), call(q, k, v, scale=8**-0.5))
    assert not torch.equal(call(q, k, v), call(q, k, v, scale=0.5))


@pytest.mark.parametrize("backend", ["masked", "reference"])
@pytest.mark.parametrize("shape", [(15,), (15, 1), (1, 15), (15, 15), (2, 15, 15), (1, 1, 1, 15)])
def test_a_boolean_mask_is_an_additive_one_with_minus_infinity(shape, backend):
    q, k, v = (torch.randn(1, 2, LAYOUT.tokens, 8) for _ in range(3))
    seen = torch.rand(shape) < 0.7
    seen[..., 0] = True
    additive = torch.zeros(shape).masked_fill(~seen, -torch.inf)
    options = dict(pooling=Pooling(2), backend=backend)
    assert torch.equal(call(q, k, v, mask=seen, **options), call(q, k, v, mask=additive, **options))
