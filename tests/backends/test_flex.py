"""The block lists of FlexAttention, its compiled kernel, and what it refuses."""

from __future__ import annotations

import shutil
import sys

import pytest
import torch
import torch.nn.attention.flex_attention as torch_flex
import torch.nn.functional as F
from attention_cases import Case
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch._dynamo.testing import CompileCounterWithBackend

from clear_attention import TokenLayout, Window, attention
from clear_attention.backends import flex
from clear_attention.backends.call import Call
from clear_attention.backends.tile_order import (
    BLOCK,
    from_tiles,
    plan_blocks,
    query_tiles,
    tiles,
    to_tiles,
)
from clear_attention.masks import general_mask

CPU = torch.device("cpu")

layouts = st.builds(
    TokenLayout,
    text=st.just(0),
    height=st.integers(1, 40),
    width=st.integers(1, 60),
    extra=st.sampled_from((0, 1, 127, 128, 129, 300)),
)
radii = st.one_of(st.integers(1, 9), st.integers(10, 80))
windows = st.builds(Window, radii, wrap_height=st.booleans(), wrap_width=st.booleans())


def table(blocks, columns):
    """Return which blocks meet partly and which fully, ``[2, rows, columns]``, from the lists."""
    found = torch.zeros(2, blocks.partial.shape[2], columns, dtype=torch.bool)
    lists = ((blocks.partial_count, blocks.partial), (blocks.full_count, blocks.full))
    for kind, (count, indices) in enumerate(lists):
        for row, number in enumerate(count[0, 0]):
            found[kind, row, indices[0, 0, row, :number].long()] = True
            assert found[kind, row].sum() == number, "a block is listed twice"
    return found


def meetings(layout, window):
    """Return in which blocks any and in which all queries see the keys, by the grid's whole mask.

    Rows and columns are those of `table`; queries that only fill a block do not count.
    """
    rows, columns = tiles(layout)
    numbered = torch.arange(1.0, layout.image + 1)[None, None, :, None]
    token = to_tiles(numbered, layout).flatten().long() - 1
    real = token >= 0
    sees = window.mask(layout.height, layout.width)[token][:, token] & real
    fill = -layout.extra % BLOCK if layout.extra else BLOCK
    sees = F.pad(F.pad(sees, (0, layout.extra), value=True), (0, fill))
    blocks = (rows * columns, BLOCK, -1, BLOCK)
    some = (sees & real[:, None]).view(blocks).any(3).any(1)
    every = (sees | ~real[:, None]).view(blocks).all(3).all(1)
    return some, every, real.view(-1, BLOCK)


@given(layout=layouts, window=windows)
@example(layout=TokenLayout(0, 32, 48), window=Window(23))  # three tiles down, two right: unseen
@example(layout=TokenLayout(0, 32, 64), window=Window(40, wrap_height=True, wrap_width=True))
def test_listed_blocks_are_those_in_which_a_query_sees_a_key(layout, window):
    plan = plan_blocks(layout, window, backward=False, device=CPU)
    partial, full = table(plan.keys, len(plan.y))
    some, every, real = meetings(layout, window)
    rows = real.any(1)  # a grid of one tile has an empty one beside it
    columns = F.pad(rows, (0, some.shape[1] - len(rows)), value=True)
    assert torch.equal((partial | full)[rows][:, columns], some[rows][:, columns])
    assert not (partial & full).any()
    assert not (full & ~every).any(), "a block with hidden pairs would be computed without a mask"
    complete = real.all(1)
    assert torch.equal(full[complete], every[complete]), "a mask would be computed in vain"


@given(layout=layouts, window=windows)
def test_the_lists_of_queries_mirror_those_of_keys(layout, window):
    plan = plan_blocks(layout, window, backward=True, device=CPU)
    rows, columns = tiles(layout)
    by_query = table(plan.keys, len(plan.y))
    by_key = table(plan.queries, rows * columns)
    assert torch.equal(by_query.transpose(1, 2), by_key)


@settings(max_examples=15)
@given(layout=layouts, window=windows, data=st.data())
def test_a_band_has_the_lists_of_its_blocks(layout, window, data):
    first = data.draw(st.integers(0, layout.height - 1))
    band = range(first, data.draw(st.integers(first + 1, layout.height)))
    rows, columns = tiles(layout)
    down = query_tiles(layout, band)
    asked = slice(down.start * columns, down.stop * columns)
    whole = plan_blocks(layout, window, backward=True, device=CPU)
    part = plan_blocks(layout, window, band, backward=True, device=CPU)
    by_query, by_key = table(part.keys, len(part.y)), table(part.queries, len(down) * columns)
    assert torch.equal(by_query, table(whole.keys, len(part.y))[:, asked])
    assert torch.equal(by_key, table(whole.queries, rows * columns)[..., asked])
    assert part.first == asked.start * BLOCK
    assert part.queries.partial.stride() == part.queries.full.stride()
    grid = torch.randn(1, 1, len(band) * layout.width, 2)
    assert torch.equal(from_tiles(to_tiles(grid, layout, band), layout, band), grid)


@given(layout=layouts, window=windows)
def test_both_kinds_of_lists_lie_alike_in_memory(layout, window):
    plan = plan_blocks(layout, window, backward=True, device=CPU)
    for blocks in (plan.keys, plan.queries):
        assert blocks.partial.stride() == blocks.full.stride()
        assert blocks.partial.shape == blocks.full.shape
        assert all(x.dtype == torch.int32 and x.is_contiguous() for x in blocks)


def test_a_plan_made_in_inference_mode_serves_training():
    with torch.inference_mode():
        plan = plan_blocks(TokenLayout(0, 11, 13), Window(3), backward=True, device=CPU)
    assert not any(x.is_inference() for x in (*plan[:3], *plan.keys, *plan.queries))


@given(layout=layouts)
def test_tile_order_is_undone(layout):
    grid = torch.randn(2, 3, layout.image, 4)
    assert torch.equal(from_tiles(to_tiles(grid, layout), layout), grid)


def test_the_lists_grow_linearly_with_the_pixels():
    small, large = (
        plan_blocks(TokenLayout(0, edge, edge, extra=512), Window(8), backward=False, device=CPU)
        for edge in (64, 512)
    )
    assert large.keys.partial.numel() == 64 * small.keys.partial.numel()


@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler: g++")
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's own
def test_no_size_is_compiled_into_the_kernel(monkeypatch):
    """On the CPU, torch compiles neither log-sum-exp nor lists that are shorter than all blocks."""
    flex_attention = torch_flex.flex_attention

    def without_lse(*args, return_aux, **kwargs):
        return flex_attention(*args, **kwargs), torch_flex.AuxOutput()

    monkeypatch.setattr(torch_flex, "flex_attention", without_lse)
    counter = CompileCounterWithBackend("inductor")
    kernel = torch.compile(flex._blockwise, dynamic=True, fullgraph=True, backend=counter)
    monkeypatch.setattr(flex, "_kernel", lambda: kernel)
    compiled = flex._compiled

    def run(q, k, v, scale, plan, bias):
        missing = (0, max(0, len(plan.y) - plan.keys.partial.shape[3]))
        lists = (F.pad(x, missing) if x.ndim == 4 else x for x in plan.keys)
        out, _ = compiled(q, k, v, scale, plan._replace(keys=type(plan.keys)(*lists)), bias)
        return out, out[..., 0].float()

    monkeypatch.setattr(flex, "_uncompiled", run)
    sizes = [
        Case(TokenLayout(5, 17, 33), radius=4),
        Case(TokenLayout(0, 40, 20, extra=9), radius=30, factor=4, scale=0.7),
        Case(TokenLayout(500, 9, 17), radius=9, factor=2),
        Case(TokenLayout(0, 5, 5), radius=1),
    ]
    # Processes that compile beside this one, and headers for many kernels, would take longer than
    # the one kernel that there is.
    alone = {"compile_threads": 1, "cpp_cache_precompile_headers": False}
    monkeypatch.delenv(
        "ATEN_CPU_CAPABILITY", raising=False
    )  # torch compiles for "default" not at all
    with torch.no_grad(), torch._inductor.config.patch(alone):
        for case in sizes:
            q, k, v = case.tensors()
            out = attention(q, k, v, *case.geometry, **case.options, backend="flex")
            expected = attention(q, k, v, *case.geometry, **case.options, backend="reference")
            torch.testing.assert_close(out, expected, rtol=0, atol=1e-5)
            assert counter.frame_count == 1


class Elsewhere(torch.Tensor):
    """A tensor that claims to lie on another device."""

    kind = "cuda"

    @property
    def device(self):
        return torch.device(self.kind)


@pytest.fixture
def refusal():
    """Return why flex does not take a call on a device."""

    def ask(device, dtype=torch.float16, head_dim=64, mask=None):
        kind = type("On", (Elsewhere,), {"kind": device})
        q = torch.zeros(1, 1, 4, head_dim, dtype=dtype).as_subclass(kind)
        layout = TokenLayout(0, 2, 2)
        mask = None if mask is None else general_mask(mask, layout)
        call = Call(layout, Window(2), None, 1.0, mask)
        return flex.why_not(q, call)

    return ask


def test_what_the_kernel_cannot_do_is_said(refusal, monkeypatch):
    assert refusal("cuda") is None
    assert refusal("mps") == "FlexAttention does not run on mps"
    assert "no attention mask over pictures" in refusal("cpu", mask=torch.eye(4))
    assert refusal("cuda", torch.float64) == "its kernel does not take torch.float64"
    assert refusal("cuda", head_dim=8) == "its kernel wants a head_dim of at least 16, not 8"


def test_an_old_torch_is_named(refusal, monkeypatch):
    objection = f"torch {torch.__version__} is too old, its FlexAttention came with 2.9"
    monkeypatch.delattr(torch_flex, "AuxRequest")
    assert refusal("cpu") == objection
    monkeypatch.setitem(sys.modules, "torch.nn.attention.flex_attention", None)
    assert refusal("cpu") == objection


def test_a_missing_compiler_is_named(refusal, monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    assert refusal("cuda") == "Triton, which compiles FlexAttention, is not installed"
    assert refusal("cpu") is None
