"""The Triton kernel with queries and keys in 8 bits: what it computes, and how far that is off."""

from __future__ import annotations

import pytest
import torch
from attention_cases import Case, exactly
from torch import Tensor

pytest.importorskip("triton", reason="Triton is not made for this machine")
if torch.cuda.is_available():
    pytest.skip("the kernels run on the GPU: see test_cuda.py", allow_module_level=True)

from interpreted import SHAPES, interpreted

from clear_attention import TokenLayout, attention
from clear_attention.backends import triton_int8

CASES = {
    "local": Case(TokenLayout(5, 11, 21), radius=5, batch=2, heads=1),
    "no text": Case(TokenLayout(0, 17, 18), radius=4, heads=1),
    "pooled": Case(TokenLayout(6, 13, 22, extra=3), radius=3, factor=4, heads=1),
    "views of a fused layer": Case(TokenLayout(9, 10, 17), radius=4, strides="fused"),
    "heads that are filled up": Case(TokenLayout(5, 9, 11), radius=4, head_dim=24),
}


def attend(
    case: Case, q: Tensor, k: Tensor, v: Tensor, shape: str = "wide"
) -> tuple[Tensor, Tensor]:
    with interpreted(SHAPES[shape]):
        result = attention(
            q, k, v, *case.geometry, **case.options, return_lse=True, backend="triton_int8"
        )
    assert isinstance(result, tuple)
    return result


def rounded(x: Tensor) -> Tensor:
    """Round rows to 255 steps of their largest number."""
    step = x.abs().amax(-1, keepdim=True) / 127
    return (x / step).abs().add(0.5).floor() * x.sign() * step


@pytest.mark.parametrize(
    ("name", "shape"), [("local", "wide"), ("local", "square"), ("no text", "small")]
)
def test_it_is_exact_for_rounded_queries_and_keys(name, shape):
    case = CASES[name]
    q, k, v = (x.double() for x in case.tensors())
    mean = k[:, :, case.layout.image_slice].mean(2, keepdim=True)
    as_rounded = rounded(q), rounded(k - mean), v
    exact, exact_lse = attention(
        *as_rounded, *case.geometry, **case.options, return_lse=True, backend="reference"
    )
    out, lse = attend(case, *(x.float() for x in (q, k, v)), shape)
    torch.testing.assert_close(out.double(), exact, rtol=0, atol=2e-5)
    shift = case.options["scale"] or case.head_dim**-0.5
    moved = exact_lse + shift * (q @ mean.transpose(-1, -2)).squeeze(-1)
    torch.testing.assert_close(lse.double(), moved, rtol=0, atol=2e-5)


# Rows are rounded, and their dtype is gone, before the layout matters: each dtype in some layouts.
@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("local", torch.float16),
        ("no text", torch.float32),
        ("pooled", torch.float16),
        ("views of a fused layer", torch.float32),
        ("heads that are filled up", torch.float32),
        ("heads that are filled up", torch.float16),
    ],
    ids=str,
)
def test_its_error_is_that_of_eight_bits(name, dtype):
    case = CASES[name]
    q, k, v = case.tensors()
    k = k + 3 * torch.randn(k.shape[-1], generator=torch.Generator().manual_seed(1))
    exact, exact_lse = exactly(q, k, v, *case.geometry, **case.options, return_lse=True)
    out, lse = attend(case, *(x.to(dtype) for x in (q, k, v)))
    error = (out - exact).norm() / exact.norm()
    assert 1e-3 < error < 0.03
    assert (lse - exact_lse).abs().max() < 0.1


def test_rows_of_zeros_stay_readable():
    case = CASES["no text"]
    q, k, v = (torch.zeros_like(x) for x in case.tensors())
    out, lse = attend(case, q, k, v + 1)
    torch.testing.assert_close(out, torch.ones_like(out))
    assert lse.isfinite().all()


def test_float32_stays_float32_inside_autocast():
    case = CASES["heads that are filled up"]
    expected = attend(case, *case.tensors())
    with torch.autocast("cpu", torch.bfloat16):
        found = attend(case, *case.tensors())
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("trained", range(3), ids="qkv")
def test_it_refuses_to_train(trained):
    case = CASES["local"]
    q, k, v = (x.requires_grad_(at == trained) for at, x in enumerate(case.tensors()))
    with pytest.raises(ValueError, match="triton_int8 backend cannot take this call: it has no"):
        attend(case, q, k, v)


def test_it_is_taken_by_name_only():
    assert triton_int8.why_not_auto(torch.zeros(1), None) == "it rounds queries and keys to 8 bits"
