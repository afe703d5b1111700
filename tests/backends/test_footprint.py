"""What every backend states of itself: what a call takes of a machine, and a line for users."""

from __future__ import annotations

import weakref
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from clear_attention import Queries, TokenLayout, Window, read_mask
from clear_attention.backends import (
    BACKENDS,
    About,
    Call,
    Footprint,
    global_tokens,
    groups,
    in_words,
    masked,
    tiled,
)
from clear_attention.partial import attend_part
from clear_attention.pooling import Pooling

HEADS, DEPTH = 8, 64
TRITON = ("triton", "triton_int8")
TOOLTIP = (
    "triton and flex need an NVIDIA or AMD card with Triton, tiled runs everywhere, masked suits "
    "small pictures and regional masks, reference is slow and for checking. triton_int8 rounds: "
    "about 1 % off, never picked by auto."
)
names = pytest.mark.parametrize("name", BACKENDS)


def call(height, width, radius=4, text=24, pool=0) -> Call:
    pooling = Pooling(pool) if pool else None
    return Call(TokenLayout(text, height, width), Window(radius), pooling, scale=0.25)


def padding(layout: TokenLayout) -> torch.Tensor:
    """Return a mask that hides the second half of the text from one of two sequences."""
    mask = torch.zeros(2, 1, 1, layout.tokens)
    mask[0, ..., layout.text // 2 : layout.text] = -torch.inf
    return mask


def query(of: Call, dtype=torch.float32, batch=1, device="cpu") -> torch.Tensor:
    one = torch.empty(1, dtype=dtype, device=device)
    return one.expand(batch, HEADS, of.layout.tokens, DEPTH)


def missing(backend) -> list[str]:
    """Name what a module does not state of the protocol of backends."""
    found = [
        each
        for each in ("why_not", "why_not_auto", "attend", "footprint")
        if not callable(getattr(backend, each, None))
    ]
    return found + ([] if isinstance(getattr(backend, "ABOUT", None), About) else ["ABOUT"])


@names
def test_a_backend_states_all_that_the_protocol_asks_for(name):
    assert missing(BACKENDS[name]) == []


def test_a_backend_by_the_old_recipe_is_found_out():
    old = SimpleNamespace(why_not=len, why_not_auto=len, attend=len)
    assert missing(old) == ["footprint", "ABOUT"]


def test_the_tooltip_is_made_of_the_backends_own_lines(monkeypatch):
    for name in set(BACKENDS) - {"masked", "triton", "tiled", "flex", "triton_int8", "reference"}:
        monkeypatch.delitem(BACKENDS, name)
    assert in_words() == TOOLTIP
    new = SimpleNamespace(ABOUT=About("is made for tests", linear=True))
    monkeypatch.setitem(BACKENDS, "new", new)
    assert "tiled runs everywhere, new is made for tests, masked suits" in in_words()
    monkeypatch.setitem(BACKENDS, "newer", new)
    assert "new and newer are made for tests" in in_words()


@names
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_memory_is_proportional_to_the_batch_and_never_less_than_the_output(name, device):
    for of in (call(40, 24), call(40, 24, pool=4), call(9, 7, radius=50)):
        one, two = (BACKENDS[name].footprint(query(of, batch=n, device=device), of) for n in (1, 2))
        output = HEADS * of.layout.tokens * (DEPTH + 1) * 4
        assert one.memory >= output
        assert two.memory <= 2 * one.memory  # masks are shared
        assert (one.pairs, one.linear) == (two.pairs, two.linear)


@names
def test_what_is_linear_grows_with_the_tokens_and_nothing_else_does(name):
    for device in ("cpu", "meta"):
        found = [
            BACKENDS[name].footprint(query(of, device=device), of)
            for of in (call(256, 128, text=0), call(512, 256, text=0))
        ]
        growth = found[1].pairs / found[0].pairs
        if found[0].linear:
            assert growth == 4 and found[1].memory <= 4 * found[0].memory
        else:
            assert growth > 4.5


@names
def test_a_tile_is_smaller_than_a_grid(name):
    of = call(64, 64)
    tile = BACKENDS[name].footprint(query(of), of).tile
    assert tile is None or (0 < tile[0] <= 64 and 0 < tile[1] <= 64)


class Peak(TorchDispatchMode):
    """Counts the bytes of all tensors that are made and still there."""

    def __init__(self):
        super().__init__()
        self.bytes, self.peak, self.known = 0, 0, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for storage in (x.untyped_storage() for x in tree_leaves(out) if torch.is_tensor(x)):
            if storage._cdata not in self.known:
                self.known.add(storage._cdata)
                self.bytes += storage.nbytes()
                weakref.finalize(storage, self._remove, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.bytes)
        return out

    def _remove(self, key, size):
        self.known.discard(key)
        self.bytes -= size


# FlexAttention on the CPU is an operator that cannot be looked into; Triton's needs a GPU.
@pytest.mark.parametrize("name", [each for each in BACKENDS if each not in ("flex", *TRITON)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "of",
    [call(48, 40), call(48, 40, pool=4), call(100, 70, radius=9), call(30, 30, radius=80)],
    ids=["plain", "pooled", "wide", "covering"],
)
def test_the_memory_is_what_the_backend_holds(name, dtype, of):
    """Tensors as torch makes them, with q, k and v of their own."""
    if name == "reference" and of.layout.tokens > 3000:
        of = call(30, 40, radius=9)
    q, k, v = torch.randn(3, 1, HEADS, of.layout.tokens, DEPTH, dtype=dtype).unbind()
    expected = BACKENDS[name].footprint(q, of).memory
    with torch.inference_mode(), Peak() as held:
        held.known |= {x.untyped_storage()._cdata for x in (q, k, v)}
        BACKENDS[name].attend(q, k, v, of)
    assert 0.85 < expected / held.peak < 1.2, expected / held.peak


# A band of rows without text; keys of which one serves four heads; padding of one sequence in two.
BAND = replace(call(90, 60, radius=6), queries=Queries(text=False, first_row=30, rows=40))
GROUPED = replace(call(48, 40, pool=4), groups=4)
PADDED = call(48, 40)
PADDED = replace(PADDED, mask=read_mask(padding(PADDED.layout), PADDED.layout))


@pytest.mark.parametrize("name", ["masked", "tiled"])
@pytest.mark.parametrize("of", [BAND, GROUPED, PADDED], ids=["band", "grouped", "padded"])
def test_the_memory_of_parts_groups_and_masks_is_what_is_held(name, of):
    layout, batch = of.layout, 2
    tokens = of.queries.tokens(layout)
    q = torch.randn(batch, HEADS, tokens, DEPTH)
    k, v = torch.randn(2, batch, HEADS // of.groups, layout.tokens, DEPTH).unbind()
    expected = BACKENDS[name].footprint(q, of).memory
    with torch.inference_mode(), Peak() as held:
        held.known |= {x.untyped_storage()._cdata for x in (q, k, v)}
        groups.attend(BACKENDS[name], q, k, v, of)
    assert 0.8 < expected / held.peak < 1.25, expected / held.peak


@pytest.mark.parametrize("elements", [2**22, 4000])
@pytest.mark.parametrize("pool", [0, 4])
@pytest.mark.parametrize("asked", [Queries(), Queries(text=False, first_row=5, rows=9)], ids=str)
def test_masked_computes_the_pairs_that_it_states(elements, pool, asked, monkeypatch):
    computed = []

    def counted(q, k, v, **kwargs):
        computed.append(q.shape[2] * k.shape[2])
        return attend_part(q, k, v, **kwargs)

    monkeypatch.setattr(masked, "MASK_ELEMENTS", elements)
    for module in (masked, global_tokens):
        monkeypatch.setattr(module, "attend_part", counted)
    of = replace(call(20, 17, pool=pool), queries=asked)
    q, k, v = torch.randn(3, 1, HEADS, of.layout.tokens, DEPTH).unbind()
    q = asked.of(q, of.layout)
    masked.attend(q, k, v, of)
    assert masked.footprint(q, of).pairs == sum(computed)


def test_tiled_counts_windows_that_no_border_cuts():
    of = call(8, 6, radius=3, text=4)
    found = tiled.footprint(query(of), of)
    assert found.pairs == 48 * of.window.tokens
    assert found.shared_pairs == 4 * 52 + 48 * 4
    assert isinstance(found, Footprint) and found.tile == (4, 8)
    asked = replace(of, queries=Queries(text=False, first_row=2, rows=3))
    found = tiled.footprint(query(of)[:, :, :18], asked)
    assert (found.pairs, found.shared_pairs) == (18 * of.window.tokens, 18 * 4)
    covering = call(8, 6, radius=100, text=4)
    assert tiled.footprint(query(covering), covering).pairs == 48**2
