"""Attention over parts of the keys, its sources, and how parts merge."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clear_attention import partial
from clear_attention.partial import (
    EfficientCUDA,
    FlashCPU,
    Part,
    Plain,
    Xformers,
    attend_part,
    merge_parts,
    part_gradients,
)


def tensors(queries=5, keys=9, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(2, 3, length, 8, generator=generator, dtype=torch.float64).to(dtype)
        for length in (queries, keys, keys)
    ]


def bias_of(*shape, dtype=torch.float32):
    """A bias that hides some keys, but none from everyone."""
    generator = torch.Generator().manual_seed(9)
    bias = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    bias[..., 1::3] = -torch.inf
    return bias


def softmax_attention(q, k, v, scale, bias=None):
    scores = q.double() @ k.double().transpose(-1, -2) * scale
    scores = scores if bias is None else scores + bias.double()
    return scores.softmax(-1) @ v.double(), scores.logsumexp(-1)


@pytest.mark.parametrize("chunk", [1, 50, 2**24], ids=["row by row", "chunks", "at once"])
@pytest.mark.parametrize("source", [FlashCPU, Plain])
@pytest.mark.parametrize(
    "bias",
    [None, bias_of(2, 3, 5, 9), bias_of(2, 1, 5, 9), bias_of(1, 1, 1, 9)],
    ids=["no bias", "whole bias", "bias for all heads", "bias for all queries"],
)
def test_every_source_gives_softmax_attention_and_its_log_sum_exp(source, bias, chunk, monkeypatch):
    monkeypatch.setattr(partial, "PLAIN_SCORES", chunk)
    q, k, v = tensors()
    part = source.attend(q, k, v, bias, 0.3)
    out, lse = softmax_attention(q, k, v, 0.3, bias)
    torch.testing.assert_close(part.out.double(), out, rtol=0, atol=2e-6)
    torch.testing.assert_close(part.lse.double(), lse, rtol=0, atol=2e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("source", [FlashCPU, Plain])
def test_every_source_keeps_the_dtype_and_sums_in_a_wide_one(source, dtype):
    q, k, v = tensors(dtype=dtype)
    part = source.attend(q * 4, k, v, None, 1.0)
    out, lse = softmax_attention(q * 4, k, v, 1.0)
    assert part.out.dtype == dtype
    assert part.lse.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    bits = torch.finfo(dtype).eps
    torch.testing.assert_close(part.out.double(), out, rtol=2 * bits, atol=2 * bits + 1e-14)
    torch.testing.assert_close(part.lse.double(), lse, rtol=0, atol=bits / 8 + 1e-14)


def test_the_plain_source_takes_what_the_others_refuse():
    q, k, v = tensors(queries=0)
    part = attend_part(q, k, v, scale=1.0)
    assert part.out.shape == (2, 3, 0, 8)
    assert part.lse.shape == (2, 3, 0)


@given(cut=st.integers(1, 8), seed=st.integers(0, 9))
def test_parts_merge_into_attention_over_all_keys(cut, seed):
    q, k, v = tensors(dtype=torch.float64, seed=seed)
    parts = [
        attend_part(q, keys, values, scale=0.5)
        for keys, values in zip(k.split([cut, 9 - cut], 2), v.split([cut, 9 - cut], 2), strict=True)
    ]
    for one, other in (parts, parts[::-1]):
        merged = merge_parts(one, other)
        out, lse = softmax_attention(q, k, v, 0.5)
        torch.testing.assert_close(merged.out, out)
        torch.testing.assert_close(merged.lse, lse)


def test_a_part_without_weight_leaves_the_other_as_it_is():
    out, lse = torch.randn(1, 1, 4, 8), torch.randn(1, 1, 4)
    nothing = Part(torch.full_like(out, 7.0), torch.full_like(lse, -torch.inf))
    merged = merge_parts(Part(out, lse), nothing)
    assert torch.equal(merged.out, out)
    assert torch.equal(merged.lse, lse)


def test_parts_far_apart_merge_without_overflow():
    ones, hundreds = torch.ones(1, 1, 1, 1), torch.full((1, 1, 1), 1e4)
    merged = merge_parts(Part(ones, hundreds), Part(3 * ones, hundreds))
    assert merged.out.item() == 2.0


@pytest.mark.parametrize("chunk", [1, 50, 2**24], ids=["row by row", "chunks", "at once"])
@pytest.mark.parametrize("bias", [None, bias_of(1, 1, 5, 9, dtype=torch.float64)])
def test_gradients_of_parts_add_up_to_those_of_the_whole(bias, chunk, monkeypatch):
    monkeypatch.setattr(partial, "PLAIN_SCORES", chunk)
    q, k, v = (x.requires_grad_() for x in tensors(dtype=torch.float64))
    out, lse = softmax_attention(q, k, v, 0.7, bias)
    grad_out = torch.randn(out.shape, dtype=torch.float64)
    expected = torch.autograd.grad(out, (q, k, v), grad_out)
    delta = (grad_out * out).sum(-1).detach()
    q, k, v, lse = (x.detach() for x in (q, k, v, lse))
    near, far = (
        part_gradients(
            q,
            k[:, :, keys],
            v[:, :, keys],
            grad_out,
            lse,
            delta,
            scale=0.7,
            bias=None if bias is None else bias[..., keys],
        )
        for keys in (slice(0, 4), slice(4, 9))
    )
    torch.testing.assert_close(near[0] + far[0], expected[0])
    torch.testing.assert_close(torch.cat((near[1], far[1]), 2), expected[1])
    torch.testing.assert_close(torch.cat((near[2], far[2]), 2), expected[2])


class TestXformers:
    """The library's documented call, with a stand-in for the library."""

    @pytest.fixture(autouse=True)
    def stand_in(self, monkeypatch):
        def forward(query, key, value, attn_bias=None, p=0.0, scale=None, *, op=None):
            """[B, M, H, D] in and out, log-sum-exp [B, H, M] padded to whole blocks of queries."""
            assert attn_bias is None or attn_bias.shape == (2, 3, query.shape[1], key.shape[1])
            q, k, v = (x.transpose(1, 2) for x in (query, key, value))
            out, lse = softmax_attention(q, k, v, scale, attn_bias)
            padded = torch.nn.functional.pad(lse, (0, -lse.shape[2] % 32), value=torch.nan)
            return out.transpose(1, 2).to(query.dtype), padded.float()

        module = ModuleType("xformers.ops.fmha")
        module.memory_efficient_attention_forward_requires_grad = forward
        for name in ("xformers", "xformers.ops"):
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
        monkeypatch.setitem(sys.modules, "xformers.ops.fmha", module)

    @pytest.mark.parametrize("bias", [None, bias_of(1, 1, 5, 9)], ids=["no bias", "bias"])
    def test_its_order_of_dimensions_is_translated(self, bias):
        q, k, v = tensors()
        part = Xformers.attend(q, k, v, bias, 0.3)
        out, lse = softmax_attention(q, k, v, 0.3, bias)
        torch.testing.assert_close(part.out.double(), out, rtol=0, atol=2e-6)
        torch.testing.assert_close(part.lse.double(), lse, rtol=0, atol=2e-6)


class OnCUDA(torch.Tensor):
    """A tensor that claims to lie on a GPU, for what is decided before any computation."""

    device = torch.device("cuda")


@pytest.fixture
def on_cuda():
    return lambda *shape, dtype=torch.float16: torch.zeros(shape, dtype=dtype).as_subclass(OnCUDA)


def test_a_gpu_is_served_by_the_efficient_kernel(on_cuda):
    assert EfficientCUDA.why_not(on_cuda(1, 2, 3, 64)) is None
    assert FlashCPU.why_not(on_cuda(1, 2, 3, 64)) == "the tensors are not on the CPU"


@pytest.mark.parametrize(
    ("shape", "dtype", "objection"),
    [
        ((1, 2, 3, 20), torch.float16, "head_dim 20 is no multiple of 8"),
        ((1, 2, 3, 64), torch.float64, "torch.float64 is not supported"),
    ],
    ids=["narrow heads", "double precision"],
)
def test_what_the_efficient_kernel_cannot_do_is_said(on_cuda, shape, dtype, objection):
    assert EfficientCUDA.why_not(on_cuda(*shape, dtype=dtype)) == objection


def test_xformers_is_left_alone_where_it_is_missing_or_gradients_are_wanted(on_cuda, monkeypatch):
    monkeypatch.setitem(sys.modules, "xformers", None)
    with torch.no_grad():
        assert Xformers.why_not(on_cuda(1, 2, 3, 64)) == "xformers is not installed"
    assert Xformers.why_not(on_cuda(1, 2, 3, 64)) == "it has no gradient"
    assert Xformers.why_not(torch.zeros(1, 2, 3, 64)).endswith("not on a CUDA or ROCm device")


@pytest.mark.parametrize("keys", [9, 16])
def test_the_efficient_kernel_gets_an_aligned_bias_and_a_cut_log_sum_exp(keys):
    """Shapes only, on the meta device: the kernel pads the log-sum-exp to 32 queries."""
    q, k, v = (x.to("meta") for x in tensors(keys=keys))
    for bias in (None, bias_of(1, 1, 5, keys).to("meta"), bias_of(1, 1, 1, keys).to("meta")):
        part = EfficientCUDA.attend(q, k, v, bias, 1.0)
        assert part.out.shape == q.shape
        assert part.lse.shape == q.shape[:3]


@pytest.mark.parametrize("keys", [9, 16])
@pytest.mark.parametrize("make", [bias_of, lambda *shape: bias_of(*shape).mT.contiguous().mT])
def test_biases_are_aligned_by_copying_where_need_be(make, keys):
    bias = make(1, 1, 5, keys)
    aligned = partial._aligned(bias, (2, 3, 5, keys))
    assert aligned.stride(-1) == 1
    assert aligned.stride(-2) % 8 == 0
    assert torch.equal(aligned, bias.expand(2, 3, 5, keys))
