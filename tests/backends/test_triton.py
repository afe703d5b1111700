"""The Triton kernels in Triton's interpreter: numbers, lists, refusals, and life in a model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
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
from triton.runtime.errors import OutOfResources

from clear_attention import Pooling, TokenLayout, Window, attention
from clear_attention.backends import choose, choose_name, triton
from clear_attention.backends.call import Call
from clear_attention.backends.triton import configs, launch, lists, operators, proof
from clear_attention.backends.triton.lists import Shape, make_lists, visits

CPU = torch.device("cpu")
CASES = {
    "odd": Case(TokenLayout(5, 11, 21), radius=5, batch=2),
    "no text": Case(TokenLayout(0, 17, 18), radius=4),
    "extra, no text": Case(TokenLayout(0, 9, 20, extra=7), radius=6),
    "a window of one": Case(TokenLayout(3, 7, 33), radius=1),
    "a window over all": Case(TokenLayout(70, 9, 9), radius=20),
    "a column": Case(TokenLayout(150, 37, 1, extra=20), radius=3),
    "a row": Case(TokenLayout(2, 1, 40), radius=7),
    "one token": Case(TokenLayout(0, 1, 1), radius=3),
    "pooled, ragged": Case(TokenLayout(6, 13, 22, extra=3), radius=3, factor=4, scale=0.4),
    "pooled, nothing else": Case(TokenLayout(0, 12, 8), radius=2, factor=5, batch=2),
    "token-major": Case(TokenLayout(4, 16, 16), radius=8, strides="token_major", heads=3),
    "views of a fused layer": Case(TokenLayout(9, 10, 17), radius=4, strides="fused"),
    "views that nobody can read": Case(TokenLayout(9, 10, 17), radius=4, strides="spread"),
    "wide heads": Case(TokenLayout(20, 12, 20), radius=6, head_dim=128, heads=1),
}


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_every_shape_matches_the_reference(name, dtype):
    case = CASES[name]
    check(Case(**{**vars(case), "dtype": dtype, "head_dim": max(16, case.head_dim)}))


@settings(max_examples=12)
@given(
    case=cases(head_dim=16, heads=1, dtype=torch.float32),
    shape=st.sampled_from(sorted(SHAPES)),
    processors=st.sampled_from((1, 40)),
)
def test_any_shape_matches_the_reference(case, shape, processors):
    check(case, shape=shape, processors=processors)


@pytest.mark.parametrize("shape", SHAPES)
def test_keys_in_splits_merge(shape, monkeypatch):
    monkeypatch.setattr(launch, "LEAST_BLOCKS", 1)
    case = Case(TokenLayout(40, 12, 20, extra=3), radius=3, heads=1)
    asked: list[int] = []
    splits = launch._splits

    def noticed(*args: Any) -> int:
        asked.append(splits(*args))
        return asked[-1]

    monkeypatch.setattr(launch, "_splits", noticed)
    check(case, shape=shape, processors=30)
    assert max(asked) > 3


def gradients(case: Case, dtype: torch.dtype, compute: Any) -> list[Tensor]:
    tensors = [*case.tensors(), *([case.pooling().weight] if case.factor else [])]
    inputs = [x.to(dtype, copy=True).requires_grad_() for x in tensors]
    pooling = Pooling(case.factor, inputs[3]) if case.factor else None
    out = compute(*inputs[:3], *case.geometry, pooling=pooling, scale=case.scale)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(5)).to(dtype)
    return list(torch.autograd.grad(out, inputs, upstream))


@pytest.mark.parametrize("name", CASES)
def test_gradients_match_the_reference(name):
    case = CASES[name]
    shape = "small" if case.head_dim == 16 else "wide"
    actual = gradients(
        case, torch.float32, lambda *a, **kw: attend(*a, shape=shape, processors=9, **kw)
    )
    exact = gradients(case, torch.float64, exactly)
    for one, other in zip(actual, exact, strict=True):
        assert one.dtype == torch.float32
        assert (one - other).norm() <= 2e-6 * (other.norm() + 1)


def test_gradients_in_half_precision_stay_there():
    case = Case(TokenLayout(5, 11, 21), radius=5, dtype=torch.float16)
    actual = gradients(case, torch.float16, attend)
    exact = gradients(case, torch.float64, exactly)
    for one, other in zip(actual, exact, strict=True):
        assert one.dtype == torch.float16
        assert (one - other).norm() <= 2e-3 * other.norm()


@pytest.mark.parametrize("factor", [0, 3], ids=["local", "pooled"])
def test_every_output_is_written(factor):
    case = Case(TokenLayout(3, 17, 19, extra=2), radius=5, factor=factor)
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


def test_the_output_lies_as_transformers_go_on_with_it():
    case = Case(TokenLayout(3, 10, 19), radius=4)
    out = attend(*case.tensors(), *case.geometry)
    assert out.transpose(1, 2).is_contiguous()


# The lists.


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    radius=st.integers(1, 30),
    shape=st.sampled_from((Shape(8, 16, 64), Shape(4, 8, 16), Shape(8, 8, 32))),
)
def test_tiles_visit_exactly_what_one_of_their_tokens_sees(height, width, radius, shape):
    window = Window(radius)
    found = make_lists(window, height, width, shape, torch.float32, CPU)
    sees = window.mask(height, width)
    tiles = [(y, x) for y in range(0, height, shape.rows) for x in range(0, width, shape.columns)]
    computed = 0
    for index, (y, x) in enumerate(tiles):
        start, blocks = int(found.first[index]), int(found.blocks[index])
        entries = slice(start, start + blocks * shape.block)
        real = found.places[entries] != lists.NEVER
        visited = (y * width + x + found.offsets[entries]).long()
        ys = torch.arange(y, min(height, y + shape.rows))
        xs = torch.arange(x, min(width, x + shape.columns))
        tokens = (ys[:, None] * width + xs).flatten()
        expected = sees[tokens].any(0).nonzero().flatten()
        assert torch.equal(visited[real].sort().values, expected)
        assert (visited[~real] == y * width + x).all(), "what fills a block must be readable"
        assert blocks == math.ceil(len(expected) / shape.block)
        own = found.own.view(shape.rows, shape.columns, -1)[: len(ys), : len(xs)].flatten(0, 1)
        distance = own @ found.others[found.places[entries].long()].T
        seen = (distance < radius**2)[:, real]
        assert torch.equal(seen, sees[tokens][:, visited[real]])
        assert not (distance < radius**2)[:, ~real].any()
        computed += shape.tokens * blocks * shape.block
    assert computed == visits(window, height, width, shape)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_squared_distances_are_exact_up_to_the_largest_radius(dtype):
    window, shape = Window(lists.LARGEST_RADIUS), configs.WIDE
    room = 2 * window.radius + 20
    y, x = lists._visited(window, lists._border(window, room, room, shape, 200, 208), shape)
    own = torch.from_numpy(lists._own(shape)).to(dtype).double()
    others = torch.from_numpy(lists._others(window, shape)).to(dtype).double()
    visited = others[lists._place_of(y, x, window, shape)]
    dy = np.arange(shape.tokens)[:, None] // shape.columns - y
    dx = np.arange(shape.tokens)[:, None] % shape.columns - x
    assert torch.equal(own @ visited.T, torch.from_numpy(dy * dy + dx * dx).double())
    assert (own @ others[lists.ALWAYS] < 0).all()
    assert (own @ others[lists.NEVER] >= window.radius**2).all()
    # Whatever the order of its sums, float32 holds every part of them.
    assert (own.abs() @ visited.abs().T).max() < 2**24


@pytest.mark.parametrize(("radius", "ratio"), [(8, 1.40), (16, 1.45), (32, 1.40)])
def test_little_more_is_computed_than_is_visible(radius, ratio):
    text, edge, shape = 512, 512, configs.WIDE
    window = Window(radius)
    found = make_lists(window, edge, edge, shape, torch.bfloat16, CPU)
    tiles = len(found.first)
    of_image = int(found.blocks.sum()) * shape.block * shape.tokens
    with_text = of_image + tiles * shape.tokens * text + text * (text + edge * edge)
    true = window.pairs(edge, edge) + text * edge * edge + text * (text + edge * edge)
    assert with_text <= ratio * true
    assert of_image == visits(window, edge, edge, shape)


def test_the_size_of_lists_is_told_before_they_are_made():
    for radius, edge in ((8, 64), (16, 100), (5, 33)):
        size = lists.table_bytes(Window(radius), edge, edge, configs.WIDE)
        made = make_lists(Window(radius), edge, edge, configs.WIDE, torch.float16, CPU)
        assert made.offsets.nbytes + made.places.nbytes <= 1.2 * size


# Refusals.


def call(case: Case, **changed: Any) -> Call:
    layout, window = case.geometry
    return Call(**{"layout": layout, "window": window, "pooling": None, "scale": 1.0, **changed})


def queries(case: Case, dtype: torch.dtype = torch.float16, head_dim: int = 64) -> Tensor:
    return torch.empty(1, 1, case.layout.tokens, head_dim, dtype=dtype)


SMALL = Case(TokenLayout(4, 40, 40), radius=8)


@pytest.mark.parametrize(
    ("q", "asked", "reason"),
    [
        (
            queries(SMALL, torch.float64),
            call(SMALL),
            "takes float16 and bfloat16, not",
        ),
        (queries(SMALL, head_dim=24), call(SMALL), "a head_dim of 16 or 32 or 64 or 128, not 24"),
        (queries(SMALL), call(SMALL, scale=-1.0), "the scale must be positive"),
        (queries(SMALL), call(SMALL, window=Window(193)), "above a radius of 192"),
        (queries(SMALL), call(SMALL, mask=torch.zeros(1, 1, 1, 1)), "no attention mask"),
        (
            torch.empty(1, 1, 4 + 1024**2, 64, dtype=torch.float16, device="meta"),
            call(SMALL, layout=TokenLayout(4, 1024, 1024), window=Window(180)),
            "its lists of keys would take",
        ),
    ],
    ids=["dtype", "head_dim", "scale", "radius", "mask", "lists"],
)
def test_what_it_cannot_take_is_refused_with_the_reason(q, asked, reason):
    with (
        patch.object(triton, "DEVICES", ("cpu", "meta")),
        patch.dict(configs.DTYPES, meta=configs.DTYPES["cpu"]),
        patch.dict(configs.HEAD_DIMS, meta=configs.HEAD_DIMS["cpu"]),
    ):
        assert reason in (triton.why_not(q, asked) or "")


def test_the_cpu_is_refused():
    assert triton.why_not(queries(SMALL), call(SMALL)) == "Triton's kernels do not run on cpu"


@pytest.mark.parametrize(
    ("platform", "package"), [("linux", "triton"), ("win32", "triton-windows")]
)
def test_without_triton_the_package_is_named(platform, package, monkeypatch):
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with interpreted():
        said = triton.why_not(queries(SMALL), call(SMALL))
    assert said == f"Triton is not installed: python -m pip install {package}"


@pytest.mark.parametrize(
    ("properties", "name", "reason"),
    [
        (dict(major=7, minor=5), "sm_75", "sm_80 (RTX 30, A100) is the oldest"),
        (dict(major=8, minor=6), "sm_86", None),
        (dict(major=12, minor=1), "sm_120", None),
        (dict(major=13, minor=0), "sm_130", "no configuration for sm_130 yet"),
    ],
)
def test_gpus_are_known_by_their_class(properties, name, reason, monkeypatch):
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(**properties)
    )
    configs.gpu_name.cache_clear()
    try:
        assert configs.gpu_name(torch.device("cuda", 0)) == name
        said = configs.why_not(torch.device("cuda", 0), 128, trained=True)
        assert said is None if reason is None else reason in (said or "")
    finally:
        configs.gpu_name.cache_clear()


@pytest.mark.parametrize(
    ("architecture", "name", "reason"),
    [
        ("gfx942:sramecc+:xnack-", "gfx942", None),
        (
            "gfx1101",
            "gfx1100",
            "its gradients for a head_dim of 128 do not fit the registers of gfx1100",
        ),
    ],
)
def test_amd_gpus_are_known_by_their_architecture(architecture, name, reason, monkeypatch):
    monkeypatch.setattr(torch.version, "hip", "6.4")
    properties = SimpleNamespace(gcnArchName=architecture)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    configs.gpu_name.cache_clear()
    device = torch.device("cuda", 0)
    try:
        assert configs.gpu_name(device) == name
        assert configs.why_not(device, 128, trained=False) is None
        said = configs.why_not(device, 128, trained=True)
        assert said == reason
    finally:
        configs.gpu_name.cache_clear()


def test_it_comes_before_the_tiles_of_plain_torch():
    case = Case(TokenLayout(4, 128, 128), radius=8)
    with interpreted():
        assert choose_name(queries(case), call(case)) == "triton"
    assert choose_name(queries(case), call(case)) == "tiled"
    with pytest.raises(ValueError, match="triton backend cannot take this call: Triton's kernels"):
        choose(queries(case), call(case), "triton")


# Trust.


@pytest.fixture
def unproven() -> Iterator[None]:
    proof.why_not.cache_clear()
    with interpreted():
        yield
    proof.why_not.cache_clear()


def test_a_kernel_that_works_is_trusted(unproven):
    assert proof.why_not(CPU, torch.float32, 16) is None


def test_a_kernel_that_is_wrong_is_not_trusted(unproven, monkeypatch):
    right = lists._place_of
    monkeypatch.setattr(lists, "_place_of", lambda *args: right(*args) + 1)
    make_lists.cache_clear()
    assert "its self-check failed here: error" in (proof.why_not(CPU, torch.float32, 16) or "")
    make_lists.cache_clear()


def test_a_kernel_that_does_not_run_is_not_trusted(unproven, monkeypatch):
    def broken(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("no such instruction\nand a long listing")

    monkeypatch.setattr(launch, "attend_grid", broken)
    said = proof.why_not(CPU, torch.float16, 64)
    assert said == "its kernel does not run here (RuntimeError: no such instruction)"


def test_a_gpu_with_little_shared_memory_gets_smaller_blocks(monkeypatch, caplog):
    case = Case(TokenLayout(3, 10, 19), radius=4)
    start, tried = launch._start, []

    def scarce(config: Any, *args: Any) -> None:
        tried.append(config.shape)
        if config.shape == SHAPES["wide"]:
            raise OutOfResources(120_000, 101_376, "shared memory")
        start(config, *args)

    monkeypatch.setattr(launch, "_start", scarce)
    table = [configs.Config(SHAPES[name], 1, 1) for name in ("wide", "small")]
    monkeypatch.setattr(launch, "configs_for", lambda *args: table)
    monkeypatch.setattr(launch, "_skipped", {})
    for _ in range(2):
        out = attend(*case.tensors(), *case.geometry)
    expected = attention(*case.tensors(), *case.geometry, backend="reference")
    torch.testing.assert_close(out, expected)
    # Once for the grid and once for the text; then it is known.
    assert tried.count(SHAPES["wide"]) == 2
    assert caplog.text.count("steps down to smaller blocks") == 2


# Life in a model.


def test_the_operators_keep_torchs_rules():
    case = Case(TokenLayout(3, 6, 9, extra=2), radius=3, heads=1)
    with interpreted(SHAPES["small"]):
        q, k, v = (x.requires_grad_() for x in case.tensors())
        shared = q[:, :, :5].detach().clone().requires_grad_()
        arguments = (q, k, v, shared, shared, 3, 6, 9, 3, 0.3)
        torch.library.opcheck(operators.tiles, arguments)


def test_it_stays_one_graph_in_a_compiled_model():
    case = Case(TokenLayout(3, 10, 17), radius=4, factor=3)
    pooling = case.pooling()

    def model(q, k, v):
        return attention(2 * q, k, v, *case.geometry, pooling=pooling, backend="triton")

    with interpreted(), torch.no_grad():
        expected = model(*case.tensors())
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(*case.tensors()), expected)
