"""When the Triton kernel is taken, what it refuses, and when it is trusted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from attention_cases import Case
from torch import Tensor

pytest.importorskip("triton", reason="Triton is not made for this machine")
if torch.cuda.is_available():
    pytest.skip("the kernels run on the GPU: see test_cuda.py", allow_module_level=True)

from interpreted import SHAPES, interpreted
from triton.runtime.errors import OutOfResources

from clear_attention import Queries, TokenLayout, Window, attention, read_mask
from clear_attention.backends import choose, choose_name, triton
from clear_attention.backends.call import Call
from clear_attention.backends.triton import configs, launch, lists, passes, proof
from clear_attention.backends.triton.lists import Shape, make_lists
from clear_attention.masks import general_mask

CPU = torch.device("cpu")


def call(case: Case, **changed: Any) -> Call:
    layout, window = case.geometry
    return Call(**{"layout": layout, "window": window, "pooling": None, "scale": 1.0, **changed})


def queries(case: Case, dtype: torch.dtype = torch.float16, head_dim: int = 64) -> Tensor:
    return torch.empty(1, 1, case.layout.tokens, head_dim, dtype=dtype)


SMALL = Case(TokenLayout(4, 40, 40), radius=8)
OVER_PICTURES = general_mask(torch.zeros(1, 1, 1, 1), SMALL.layout)
OVER_TEXT = read_mask(-1.0 * (torch.arange(SMALL.layout.tokens) == 2), SMALL.layout)


@pytest.mark.parametrize(
    ("q", "asked", "reason"),
    [
        (
            queries(SMALL, torch.float64),
            call(SMALL),
            "takes float16 and bfloat16, not",
        ),
        (queries(SMALL, head_dim=40), call(SMALL), "or 96 or 120 or 128, not 40"),
        (queries(SMALL), call(SMALL, scale=-1.0), "the scale must be positive"),
        (
            torch.empty(1, 1, 4 + 4096, 64, dtype=torch.float16),
            call(SMALL, layout=TokenLayout(4, 1, 4096), window=Window(4001)),
            "above a radius of 4000",
        ),
        (queries(SMALL), call(SMALL, mask=OVER_PICTURES), "no attention mask over pictures"),
        (queries(SMALL), call(SMALL, mask=OVER_TEXT), "hide the same tokens from all sequences"),
        (
            queries(SMALL),
            call(SMALL, queries=Queries(rows=0)),
            "rows of the picture, with or without text, not none",
        ),
        (
            torch.empty(1, 1, 4 + 1024**2, 64, dtype=torch.float16, device="meta"),
            call(SMALL, layout=TokenLayout(4, 1024, 1024), window=Window(180)),
            "its lists of keys would take",
        ),
    ],
    ids=["dtype", "head_dim", "scale", "radius", "mask", "bias", "queries", "lists"],
)
def test_what_it_cannot_take_is_refused_with_the_reason(q, asked, reason):
    with (
        patch.object(triton, "DEVICES", ("cpu", "meta")),
        patch.dict(configs.DTYPES, meta=configs.DTYPES["cpu"]),
        patch.dict(configs.HEAD_DIMS, meta=configs.HEAD_DIMS["cpu"]),
    ):
        assert reason in (triton.why_not(q, asked) or "")


@pytest.mark.parametrize("trained", ["q", "k", "v", "the pooling weight", "none of them"])
def test_gradients_of_any_tensor_are_found(trained, monkeypatch):
    case = replace(SMALL, factor=3)  # too large to be masked
    tensors, pooling, asked = dict(zip("qkv", case.tensors(), strict=True)), case.pooling(), []
    tensors["the pooling weight"] = pooling.weight
    if trained in tensors:
        tensors[trained].requires_grad_()

    def noticed(q: Tensor, asked_call: Call, *_: Any) -> str:
        asked.append(triton.is_trained(q, asked_call))
        return "noticed"

    monkeypatch.setattr(triton, "why_not", noticed)
    q, k, v = (tensors[name] for name in "qkv")
    attention(q, k, v, *case.geometry, pooling=pooling)
    with torch.no_grad():
        attention(q, k, v, *case.geometry, pooling=pooling)
    assert asked == [trained in tensors, False]


def test_the_cpu_is_refused(monkeypatch):
    monkeypatch.setattr(triton, "DEVICES", ("cuda",))
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


def test_it_comes_before_the_tiles_of_plain_torch(monkeypatch):
    case = Case(TokenLayout(4, 128, 128), radius=8)
    assert choose_name(queries(case), call(case)) == "tiled"
    assert triton.why_not_auto(queries(case), call(case)) == "interpreted, it is for checking"
    monkeypatch.setattr(triton, "why_not_auto", lambda q, call: None)
    assert choose_name(queries(case), call(case)) == "triton"
    band = call(case, queries=Queries(text=False, extra=False, first_row=41, rows=40))
    assert choose_name(queries(case), band) == "triton"
    monkeypatch.setattr(triton, "DEVICES", ("cuda",))
    assert choose_name(queries(case), call(case)) == "tiled"
    with pytest.raises(ValueError, match="triton backend cannot take this call: Triton's kernels"):
        choose(queries(case), call(case), "triton")


@pytest.fixture
def unproven() -> Iterator[None]:
    proof.why_not.cache_clear()
    with interpreted(Shape(16, 32, 256)):  # its call is larger than others here: large steps
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


@pytest.mark.parametrize("spoiled", ["out", "lse"])
def test_nan_without_shared_tokens_is_found(unproven, monkeypatch, spoiled):
    right = passes.attend_grid

    def wrong(*args: Any) -> Tensor:
        lse, (shared, _), out = right(*args), args[3], args[6]
        if not shared.shape[2]:
            dict(out=out, lse=lse)[spoiled][:, :, 5] = torch.nan
        return lse

    monkeypatch.setattr(passes, "attend_grid", wrong)
    said = proof.why_not(CPU, torch.float32, 16)
    assert said == "its self-check failed here: error nan, allowed 9.5e-07"


def test_the_self_check_has_pooled_cells_behind_one_text_token():
    assert any(layout.text == 1 and pooling is not None for layout, _, pooling in proof.CASES)


def test_a_kernel_that_does_not_run_is_not_trusted(unproven, monkeypatch):
    def broken(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("no such instruction\nand a long listing")

    monkeypatch.setattr(passes, "attend_grid", broken)
    said = proof.why_not(CPU, torch.float16, 64)
    assert said == "its kernel does not run here (RuntimeError: no such instruction)"


def test_a_gpu_with_little_shared_memory_gets_smaller_blocks(monkeypatch, caplog):
    case = Case(TokenLayout(3, 10, 19), radius=4, heads=1)
    start, tried = passes.start, []

    def scarce(config: Any, *args: Any) -> None:
        tried.append(config.shape)
        if config.shape == SHAPES["wide"]:
            raise OutOfResources(120_000, 101_376, "shared memory")
        start(config, *args)

    monkeypatch.setattr(passes, "start", scarce)
    table = [configs.Config(SHAPES[name], 1, 1) for name in ("wide", "square")]
    monkeypatch.setattr(launch, "configs_for", lambda *args: table)
    monkeypatch.setattr(launch, "_skipped", {})
    for _ in range(2):
        with interpreted():
            out = attention(*case.tensors(), *case.geometry, backend="triton")
    expected = attention(*case.tensors(), *case.geometry, backend="reference")
    torch.testing.assert_close(out, expected)
    # Once for the grid and once for the text; then it is known.
    assert tried.count(SHAPES["wide"]) == 2
    assert caplog.text.count("steps down to smaller blocks") == 2
