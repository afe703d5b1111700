"""What only a GPU shows: its fused kernels, Triton's, and FlexAttention compiled for it."""

from __future__ import annotations

import pytest
import torch
from attention_cases import Case, assert_as_exact_as, exactly, out_noise

from clear_attention import Pooling, Queries, TokenLayout, attention
from clear_attention.backends import flex
from clear_attention.partial import EfficientCUDA, Plain

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

backends = pytest.mark.parametrize("backend", ["auto", "masked", "triton", "tiled", "flex"])
CASES = {
    "local": Case(TokenLayout(77, 33, 50), radius=8, head_dim=64),
    "pooled": Case(TokenLayout(130, 40, 35, extra=9), radius=5, factor=4, head_dim=64, batch=2),
    "fused views": Case(TokenLayout(12, 64, 64), radius=16, head_dim=128, strides="fused"),
}


@pytest.fixture(autouse=True)
def exact_products(monkeypatch):
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)


@backends
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_a_gpu_matches_the_reference(name, dtype, backend):
    if backend == "triton" and dtype == torch.float32:
        pytest.skip("half precision only")
    case = CASES[name]
    q, k, v = (x.to("cuda", dtype) for x in case.tensors())
    options = {**case.options, "return_lse": True}
    out, lse = attention(q, k, v, *case.geometry, **options, backend=backend)
    coarse, _ = attention(q, k, v, *case.geometry, **options, backend="reference")
    exact, exact_lse = exactly(q, k, v, *case.geometry, **options)
    assert_as_exact_as(out, coarse, exact, out_noise(out, exact))
    assert (lse - exact_lse).abs().max() <= torch.finfo(dtype).eps + 1e-5


@backends
def test_gradients_of_a_gpu_match_the_reference(backend):
    case = CASES["pooled"]

    def gradients(dtype, backend):
        inputs = [x.to("cuda", dtype).requires_grad_() for x in case.tensors()]
        weight = (torch.arange(16.0).view(4, 4) / 100).to("cuda", dtype).requires_grad_()
        pooling = Pooling(4, weight)
        out = attention(*inputs, *case.geometry, pooling=pooling, backend=backend)
        return torch.autograd.grad(out.square().sum(), [*inputs, weight])

    dtype, allowed = (torch.float16, 5e-3) if backend == "triton" else (torch.float32, 1e-4)
    actual, exact = gradients(dtype, backend), gradients(torch.float64, "reference")
    for one, other in zip(actual, exact, strict=True):
        assert (one - other).norm() <= allowed * other.norm()


@pytest.mark.parametrize("keys", [64, 77])
def test_the_efficient_kernel_gives_the_natural_log_sum_exp(keys):
    generator = torch.Generator("cuda").manual_seed(3)
    q, k, v = (
        torch.randn(2, 3, n, 64, generator=generator, device="cuda") for n in (50, keys, keys)
    )
    bias = torch.randn(1, 1, 50, keys, generator=generator, device="cuda")
    for one_bias in (None, bias):
        fused = EfficientCUDA.attend(q, k, v, one_bias, 0.2)
        plain = Plain.attend(q, k, v, one_bias, 0.2)
        torch.testing.assert_close(fused.out, plain.out, rtol=0, atol=1e-4)
        torch.testing.assert_close(fused.lse, plain.lse, rtol=0, atol=1e-4)


def test_flex_is_compiled_once_for_all_sizes():
    flex._kernel.cache_clear()
    torch._dynamo.reset()
    for height, width, text in ((40, 33, 77), (64, 64, 512), (9, 17, 0), (100, 31, 130)):
        case = Case(TokenLayout(text, height, width), radius=height // 4, head_dim=64)
        q, k, v = (x.to("cuda", torch.bfloat16) for x in case.tensors())
        with (
            torch.no_grad(),
            torch.compiler.set_stance("default" if height == 40 else "fail_on_recompile"),
        ):
            attention(q, k, v, *case.geometry, backend="flex")


def test_auto_takes_the_triton_kernel():
    from clear_attention.backends import choose_name
    from clear_attention.backends.call import Call

    case = CASES["fused views"]
    q = torch.empty(1, 1, case.layout.tokens, 128, dtype=torch.bfloat16, device="cuda")
    assert choose_name(q, Call(*case.geometry, None, 0.1)) == "triton"


def test_triton_is_compiled_once_for_all_sizes():
    from clear_attention.backends.triton import kernels

    def compiled() -> int:
        return sum(len(cache[0]) for cache in kernels.forward.device_caches.values())

    counts = []
    for height, width, text in ((40, 33, 77), (64, 64, 512), (100, 31, 130)):
        case = Case(TokenLayout(text, height, width), radius=height // 4, head_dim=64)
        q, k, v = (x.to("cuda", torch.bfloat16) for x in case.tensors())
        attention(q, k, v, *case.geometry, backend="triton")
        band = Queries(text=False, first_row=height // 3, rows=height // 2)
        q = band.of(q, case.layout)
        attention(q, k, v, *case.geometry, queries=band, backend="triton")
        counts.append(compiled())
    assert len(set(counts)) == 1


@backends
def test_a_band_of_rows_is_that_of_the_whole(backend):
    case, asked = CASES["local"], Queries(extra=False, first_row=11, rows=13)
    q, k, v = (x.to("cuda", torch.float16) for x in case.tensors())
    layout, window = case.geometry

    def of_band(x, y, z, name):
        return attention(asked.of(x, layout), y, z, layout, window, queries=asked, backend=name)

    out, coarse = (of_band(q, k, v, name) for name in (backend, "reference"))
    exact = of_band(*(x.double() for x in (q, k, v)), "reference")
    assert_as_exact_as(out, coarse, exact, out_noise(out, exact))


def test_eight_bits_are_near_on_a_gpu():
    case = CASES["fused views"]
    q, k, v = (x.to("cuda", torch.bfloat16) for x in case.tensors())
    out = attention(q, k, v, *case.geometry, backend="triton_int8")
    exact = exactly(q, k, v, *case.geometry)
    assert (out - exact).norm() < 0.03 * exact.norm()


def test_the_kernel_can_be_captured_in_a_cuda_graph():
    case = CASES["local"]
    q, k, v = (x.to("cuda", torch.bfloat16) for x in case.tensors())
    with torch.no_grad():
        expected = attention(q, k, v, *case.geometry, backend="triton")
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = attention(q, k, v, *case.geometry, backend="triton")
        graph.replay()
    torch.testing.assert_close(out, expected)
