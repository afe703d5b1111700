"""What holds for attention however it is computed."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from attention_cases import (
    ELSEWHERE,
    WAYS,
    Case,
    assert_as_exact_as,
    attend,
    cases,
    exactly,
    lse_noise,
    out_noise,
)
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from clear_attention import Pooling, TokenLayout, Window, attention
from clear_attention.backends import BACKENDS

every_way = pytest.mark.parametrize("way", WAYS)


def test_every_backend_is_tested():
    assert {backend for backend, _ in WAYS.values()} | ELSEWHERE == set(BACKENDS)


@every_way
@given(case=cases())
def test_any_size_dtype_and_stride_matches_the_reference(way, case):
    q, k, v = case.tensors()
    options = {**case.options, "return_lse": True}
    out, lse = attend(way, q, k, v, *case.geometry, **options)
    coarse_out, coarse_lse = attention(q, k, v, *case.geometry, **options, backend="reference")
    exact_out, exact_lse = exactly(q, k, v, *case.geometry, **options)
    assert_as_exact_as(out, coarse_out, exact_out, out_noise(out, exact_out))
    assert_as_exact_as(lse, coarse_lse, exact_lse, lse_noise(q))


@pytest.mark.parametrize("way", ["reference", *WAYS])
def test_float32_stays_float32_inside_autocast(way):
    case = Case(TokenLayout(4, 10, 13, extra=2), radius=4, factor=3)

    def computed(rounds: bool) -> list[Tensor]:
        inputs = [x.requires_grad_() for x in case.tensors()]
        with torch.autocast("cpu", torch.bfloat16, enabled=rounds):
            out, lse = _attend(way, *inputs, *case.geometry, **case.options, return_lse=True)
        return [out, lse, *torch.autograd.grad(out.square().sum(), inputs)]

    found, expected = computed(True), computed(False)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("way", ["reference", *WAYS])
@given(data=st.data(), case=cases(factor=0))
def test_tokens_outside_the_window_have_no_effect(way, data, case):
    layout, window = case.geometry
    key = data.draw(st.integers(0, layout.image - 1))
    blind = ~window.mask(layout.height, layout.width)[:, key]
    assume(blind.any())
    q, k, v = case.tensors()
    before = _attend(way, q, k, v, layout, window)[:, :, layout.image_slice]
    k, v = k.clone(), v.clone()
    k[:, :, layout.text + key] = 0  # seen with some weight by those who see it
    v[:, :, layout.text + key] = -1000
    after = _attend(way, q, k, v, layout, window)[:, :, layout.image_slice]
    assert torch.equal(before[:, :, blind], after[:, :, blind])
    assert not torch.equal(before[:, :, key], after[:, :, key])


@every_way
@given(case=cases(factor=0))
def test_a_window_over_the_whole_grid_is_plain_attention(way, case):
    diagonal = (case.layout.height - 1) ** 2 + (case.layout.width - 1) ** 2
    window = Window(math.isqrt(diagonal) + 1, *case.wraps)
    q, k, v = case.tensors()
    out = attend(way, q, k, v, case.layout, window)
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    coarse = attention(q, k, v, case.layout, window, backend="reference")
    assert_as_exact_as(out, coarse, exact, out_noise(out, exact))


@pytest.mark.parametrize("way", ["reference", *WAYS])
@given(case=cases(factor=0), data=st.data())
def test_what_is_rolled_around_a_wrapped_axis_comes_out_rolled(way, case, data):
    layout = case.layout
    shift = tuple(
        data.draw(st.integers(0, size - 1)) if wraps else 0
        for size, wraps in zip((layout.height, layout.width), case.wraps, strict=True)
    )

    def rolled(x):
        grid = x[:, :, layout.image_slice].unflatten(2, (layout.height, layout.width))
        x = x.clone()
        x[:, :, layout.image_slice] = grid.roll(shift, (2, 3)).flatten(2, 3)
        return x

    q, k, v = case.tensors()
    options = {"scale": case.scale}
    out = rolled(_attend(way, q, k, v, *case.geometry, **options))
    other = _attend(way, *map(rolled, (q, k, v)), *case.geometry, **options)
    exact = rolled(exactly(q, k, v, *case.geometry, **options))
    assert_as_exact_as(other, out, exact, out_noise(out, exact))


@every_way
@given(case=cases(dtype=torch.float64))
def test_only_image_queries_see_pooled_keys(way, case):
    assume(case.factor)
    q, k, v = case.tensors()
    layout = case.layout
    out, lse = attend(way, q, k, v, *case.geometry, return_lse=True)
    pooled_out, pooled_lse = attend(
        way, q, k, v, *case.geometry, pooling=case.pooling(), return_lse=True
    )
    assert (pooled_lse > lse)[:, :, layout.image_slice].all()
    for rows in (layout.text_slice, layout.extra_slice):
        torch.testing.assert_close(pooled_out[:, :, rows], out[:, :, rows])


@every_way
@given(case=cases(batch=3))
def test_the_sequences_of_a_batch_do_not_mix(way, case):
    q, k, v = case.tensors()
    before = attend(way, q, k, v, *case.geometry, **case.options)
    others = torch.tensor([0, 2])
    q, k, v = (x.index_fill(0, others, 0.5) for x in (q, k, v))
    after = attend(way, q, k, v, *case.geometry, **case.options)
    assert torch.equal(before[1], after[1])


@every_way
@given(case=cases(dtype=torch.float32))
def test_gradients_match_the_reference(way, case):
    tensors = [*case.tensors(), case.pooling().weight] if case.factor else case.tensors()

    def gradients(dtype, compute):
        inputs = [x.to(dtype, copy=True).requires_grad_() for x in tensors]
        pooling = Pooling(case.factor, inputs[3]) if case.factor else None
        out = compute(*inputs[:3], *case.geometry, pooling=pooling, scale=case.scale)
        generator = torch.Generator().manual_seed(5)
        upstream = torch.randn(out.shape, generator=generator).to(dtype)
        return torch.autograd.grad(out, inputs, upstream)

    actual = gradients(torch.float32, lambda *a, **kw: attend(way, *a, **kw))
    coarse = gradients(torch.float32, lambda *a, **kw: attention(*a, **kw, backend="reference"))
    exact = gradients(torch.float64, exactly)
    for index, grads in enumerate(zip(actual, coarse, exact, strict=True)):
        terms = max(1, grads[2].abs().max())
        if index == 3:  # a weight's gradient sums over all tokens; Cauchy and Schwarz bound it
            terms = sum(exact[i].norm() * tensors[i].norm() for i in (1, 2))
        assert_as_exact_as(*grads, noise=32 * torch.finfo(torch.float32).eps * float(terms))


@every_way
def test_the_pooling_weights_can_be_trained_alone(way):
    case = Case(TokenLayout(2, 9, 11), radius=3)
    gradients = []
    for compute in (attend, lambda way, *args, **kwargs: exactly(*args, **kwargs)):
        weight = torch.full((2, 2), 0.3, requires_grad=True)
        out = compute(way, *case.tensors(), *case.geometry, pooling=Pooling(2, weight))
        gradients += torch.autograd.grad(out.double().square().sum(), weight)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


@every_way
@pytest.mark.parametrize("factor", [0, 3], ids=["local", "pooled"])
def test_every_output_is_written(way, factor):
    case = Case(TokenLayout(3, 17, 19, extra=2), radius=5, factor=factor)
    q, k, v = case.tensors()
    torch.use_deterministic_algorithms(True, warn_only=True)  # fills torch.empty with NaN
    try:
        results = attend(way, q, k, v, *case.geometry, **case.options, return_lse=True)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(result.isfinite().all() for result in results)


@every_way
@pytest.mark.parametrize("inference", [False, True], ids=["training first", "inference first"])
def test_inference_and_training_steps_alternate(way, inference):
    case = Case(TokenLayout(2, 9, 20 + inference), radius=4)  # a size of its own: nothing is cached
    for inference_step in (inference, not inference, inference):
        with torch.inference_mode(inference_step):
            q, k, v = (x.requires_grad_(not inference_step) for x in case.tensors())
            out = attend(way, q, k, v, *case.geometry)
            if not inference_step:
                out.sum().backward()
                assert v.grad.isfinite().all()


@pytest.mark.parametrize("backend", ["auto", "reference", "masked", "tiled", "flex"])
def test_it_runs_inside_a_compiled_model(backend):
    case = Case(TokenLayout(3, 10, 17), radius=4, factor=3)
    pooling = case.pooling()

    def model(q, k, v):
        return attention(2 * q, k, v, *case.geometry, pooling=pooling, backend=backend)

    with torch.no_grad():
        expected = model(*case.tensors())
        # FlexAttention's block lists are left to the eager side: there the graph breaks.
        compiled = torch.compile(model, backend="eager", fullgraph=backend != "flex")
        torch.testing.assert_close(compiled(*case.tensors()), expected)


def _attend(way, *args, **kwargs):
    if way == "reference":
        return attention(*args, **kwargs, backend=way)
    return attend(way, *args, **kwargs)
