"""The Triton kernels in Triton's interpreter: numbers, lists, refusals, and life in a model."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from attention_cases import Case, assert_as_exact_as, cases, exactly, lse_noise, out_noise
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

pytest.importorskip("triton", reason="Triton is not made for this machine")
if torch.cuda.is_available():
    pytest.skip("the kernels run on the GPU: see test_cuda.py", allow_module_level=True)

from interpreted import SHAPES, interpreted

from clear_attention import Pooling, TokenLayout, attention
from clear_attention.backends.triton import launch, lists, operators, passes
from clear_attention.backends.triton.grid import whole_grid
from clear_attention.backends.triton.kernels import attend as attend_kernel
from clear_attention.backends.triton.kernels import blocks
from clear_attention.backends.triton.lists import visits

pytestmark = pytest.mark.long

CPU = torch.device("cpu")
# Each head is computed step by step: more than one only where strides or batches are at stake.
one_head = partial(Case, heads=1)
CASES = {
    "odd": one_head(TokenLayout(5, 11, 21), radius=5, batch=2),
    "no text": one_head(TokenLayout(0, 17, 18), radius=4),
    "extra, no text": one_head(TokenLayout(0, 9, 20, extra=7), radius=6),
    "a window of one": one_head(TokenLayout(3, 7, 33), radius=1),
    "a window over all": one_head(TokenLayout(70, 9, 9), radius=20),
    "a column": one_head(TokenLayout(150, 37, 1, extra=20), radius=3),
    "a row": one_head(TokenLayout(2, 1, 40), radius=7),
    "one token": one_head(TokenLayout(0, 1, 1), radius=3),
    "pooled, ragged": one_head(TokenLayout(6, 13, 22, extra=3), radius=3, factor=4, scale=0.4),
    "pooled, nothing else": Case(TokenLayout(0, 12, 8), radius=2, factor=5, batch=2),
    "token-major": Case(TokenLayout(4, 16, 16), radius=8, strides="token_major"),
    "views of a fused layer": Case(TokenLayout(9, 10, 17), radius=4, strides="fused"),
    "views that nobody can read": one_head(TokenLayout(9, 10, 17), radius=4, strides="spread"),
    "wrapped downwards": one_head(TokenLayout(4, 11, 17), radius=4, wraps=(True, False)),
    "wrapped sideways, ragged": one_head(
        TokenLayout(3, 9, 27, extra=2), radius=4, wraps=(False, True)
    ),
    "wrapped twice, pooled": one_head(
        TokenLayout(5, 11, 17), radius=5, wraps=(True, True), factor=4
    ),
    "as wide as what it meets": one_head(TokenLayout(2, 7, 7), radius=4, wraps=(True, True)),
    "a window wider than numbers of 8 bits": one_head(TokenLayout(2, 1, 290), radius=270),
    "a window wider than integers": one_head(TokenLayout(2, 5, 33), radius=10**6),
    "heads that are filled up": Case(TokenLayout(6, 9, 11, extra=2), 3, factor=4, head_dim=24),
    "wide heads that are filled up": one_head(TokenLayout(4, 9, 11), radius=4, head_dim=72),
    "wide heads": one_head(TokenLayout(20, 12, 20), radius=6, head_dim=128),
}
# The smallest blocks take most steps.
IN_SMALL_BLOCKS = ("no text", "a row", "pooled, nothing else", "wrapped downwards")
IN_HALF = ("odd", "pooled, ragged", "views of a fused layer", "wrapped twice, pooled", "wide heads")
# It takes longest, and its gradients are computed from the same places as its output.
TRAINED = [name for name in CASES if name != "a window wider than numbers of 8 bits"]


def attend(*args: Any, shape: str = "wide", processors: int = 1, **kwargs: Any) -> Any:
    with interpreted(SHAPES[shape], processors):
        return attention(*args, **kwargs, backend="triton")


def check(case: Case, **how: Any) -> None:
    """Compare output and log-sum-exp with the reference in float64."""
    q, k, v = case.tensors()
    options = {**case.options, "return_lse": True}
    out, lse = attend(q, k, v, *case.geometry, **options, **how)
    coarse, coarse_lse = attention(q, k, v, *case.geometry, **options, backend="reference")
    exact, exact_lse = exactly(q, k, v, *case.geometry, **options)
    assert_as_exact_as(out, coarse, exact, out_noise(out, exact))
    assert_as_exact_as(lse, coarse_lse, exact_lse, lse_noise(q))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [*((name, torch.float32) for name in CASES), *((name, torch.float16) for name in IN_HALF)],
    ids=str,
)
def test_every_shape_matches_the_reference(name, dtype):
    case = CASES[name]
    check(Case(**{**vars(case), "dtype": dtype, "head_dim": max(16, case.head_dim)}))


@settings(max_examples=6)
@given(
    case=cases(head_dim=16, heads=1, dtype=torch.float32),
    shape=st.sampled_from(sorted(SHAPES)),
    processors=st.sampled_from((1, 40)),
)
def test_any_shape_matches_the_reference(case, shape, processors):
    assume(lists.why_not(case.geometry[1], case.layout.height, case.layout.width) is None)
    check(case, shape=shape, processors=processors)


@pytest.mark.parametrize("shape", SHAPES)
def test_keys_in_splits_merge(shape, monkeypatch):
    monkeypatch.setattr(launch, "LEAST_BLOCKS", 1)
    case = Case(TokenLayout(40, 12, 20, extra=3), radius=3, heads=1)
    asked: list[int] = []
    splits = launch.splits_for

    def noticed(*args: Any) -> int:
        asked.append(splits(*args))
        return asked[-1]

    monkeypatch.setattr(passes, "splits_for", noticed)
    check(case, shape=shape, processors=30)
    assert max(asked) > 3


def gradients(case: Case, dtype: torch.dtype, compute: Any) -> list[Tensor]:
    tensors = [*case.tensors(), *([case.pooling().weight] if case.factor else [])]
    inputs = [x.to(dtype, copy=True).requires_grad_() for x in tensors]
    pooling = Pooling(case.factor, inputs[3]) if case.factor else None
    out = compute(*inputs[:3], *case.geometry, pooling=pooling, scale=case.scale)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(5)).to(dtype)
    return list(torch.autograd.grad(out, inputs, upstream))


@pytest.mark.parametrize("name", TRAINED)
def test_gradients_match_the_reference(name, monkeypatch):
    monkeypatch.setattr(launch, "LEAST_BLOCKS", 1)
    case = CASES[name]
    shape = "small" if name in IN_SMALL_BLOCKS else "square" if case.head_dim == 16 else "wide"
    with interpreted(SHAPES[shape], processors=9):  # also what runs backwards
        actual = gradients(case, torch.float32, partial(attention, backend="triton"))
    exact = gradients(case, torch.float64, exactly)
    for one, other in zip(actual, exact, strict=True):
        assert one.dtype == torch.float32
        assert (one - other).norm() <= 2e-6 * (other.norm() + 1)


def test_gradients_in_half_precision_stay_there():
    case = one_head(TokenLayout(5, 11, 21), radius=5, dtype=torch.float16)
    actual = gradients(case, torch.float16, attend)
    exact = gradients(case, torch.float64, exactly)
    for one, other in zip(actual, exact, strict=True):
        assert one.dtype == torch.float16
        assert (one - other).norm() <= 2e-3 * other.norm()


def test_the_kernel_visits_what_the_window_predicts(monkeypatch):
    case = Case(TokenLayout(20, 21, 40), radius=4, factor=3, heads=1)
    layout, window = case.geometry
    shape, visited = SHAPES["square"], {"shared_block": 0, "hidden_pairs": 0}

    def counted(name: str) -> Any:
        original = getattr(attend_kernel, name)

        def count(*args: Any) -> Any:
            visited[name] += 1
            return original(*args)

        return count

    for name in visited:
        monkeypatch.setattr(attend_kernel, name, counted(name))
    attend(*case.tensors(), *case.geometry, **case.options, shape="square")
    tiles = math.ceil(layout.height / shape.rows) * math.ceil(layout.width / shape.columns)
    shared = layout.text + case.pooling().cells(layout.height, layout.width)
    of_shared = tiles * math.ceil(shared / shape.block)
    grid = whole_grid(layout.height, layout.width, window)
    in_window = visits(grid, shape) // shape.tokens // shape.block
    of_text = math.ceil(layout.text / shape.tokens) * math.ceil(layout.tokens / shape.block)
    assert visited == {"shared_block": of_shared + of_text, "hidden_pairs": in_window}


@pytest.mark.parametrize("factor", [0, 3], ids=["local", "pooled"])
def test_every_output_is_written(factor):
    case = one_head(TokenLayout(3, 17, 19, extra=2), radius=5, factor=factor)
    torch.use_deterministic_algorithms(True, warn_only=True)  # fills torch.empty with NaN
    try:
        results = attend(*case.tensors(), *case.geometry, **case.options, return_lse=True)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(result.isfinite().all() for result in results)


def test_what_lies_around_the_tensors_is_not_read():
    case = Case(TokenLayout(3, 10, 19), radius=4, heads=1)
    padded = []
    for x in case.tensors():
        room = torch.full((1, 1, x.shape[2] + 300, 16), torch.nan)
        room[:, :, 150:-150] = x
        padded.append(room[:, :, 150:-150])
    expected = attention(*case.tensors(), *case.geometry, backend="reference")
    torch.testing.assert_close(attend(*padded, *case.geometry), expected)


@settings(max_examples=6)
@given(case=cases(factor=0, head_dim=16, heads=1, batch=1, dtype=torch.float32), data=st.data())
def test_tokens_outside_the_window_have_no_effect(case, data):
    layout, window = case.geometry
    assume(lists.why_not(window, layout.height, layout.width) is None)
    key = data.draw(st.integers(0, layout.image - 1))
    blind = ~window.mask(layout.height, layout.width)[:, key]
    assume(blind.any())
    q, k, v = case.tensors()
    before = attend(q, k, v, layout, window)[:, :, layout.image_slice]
    k, v = k.clone(), v.clone()
    k[:, :, layout.text + key] = 0
    v[:, :, layout.text + key] = -1000
    after = attend(q, k, v, layout, window)[:, :, layout.image_slice]
    assert torch.equal(before[:, :, blind], after[:, :, blind])
    assert not torch.equal(before[:, :, key], after[:, :, key])


def test_a_hidden_score_times_any_unit_is_exact():
    # Compiled code subtracts a rounded product from an exact one; they are the same only then.
    mantissa, exponent = math.frexp(-blocks.HIDDEN.value)
    assert mantissa == 0.5 and 64 <= exponent <= 110


def test_the_output_lies_as_transformers_go_on_with_it():
    case = Case(TokenLayout(3, 9, 11), radius=4)
    out = attend(*case.tensors(), *case.geometry)
    assert out.transpose(1, 2).is_contiguous()


def test_the_operators_keep_torchs_rules():
    case = Case(TokenLayout(3, 6, 9, extra=2), radius=3, heads=1)
    with interpreted(SHAPES["square"]):
        q, k, v = (x.requires_grad_() for x in case.tensors())
        shared = q[:, :, :5].detach().clone().requires_grad_()
        for text in (3, 0):
            arguments = (
                q[:, :, 3 - text :],
                k,
                v,
                shared,
                shared,
                [3, 6, 9, 3, 1, 0, text, 0, 6],
                0.3,
            )
            torch.library.opcheck(operators.tiles, arguments)


def test_it_stays_one_graph_in_a_compiled_model():
    case = one_head(TokenLayout(3, 10, 17), radius=4, factor=3)
    pooling = case.pooling()

    def model(q, k, v):
        return attention(2 * q, k, v, *case.geometry, pooling=pooling, backend="triton")

    with interpreted(), torch.no_grad():
        expected = model(*case.tensors())
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(*case.tensors()), expected)
