"""Calls of the host that are more than q, k and v of one length: caches, grouped heads, masks."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

HEADS, DEPTH, TEXT, REFERENCES = 4, 16, 9, 6
ROWS, COLUMNS, RADIUS = 5, 4, 2
IMAGE = ROWS * COLUMNS


def sees(front: int, behind: int) -> Tensor:
    """Return who sees whom, written by hand."""
    tokens, image = front + IMAGE + behind, slice(front, front + IMAGE)
    cells = [(y, x) for y in range(ROWS) for x in range(COLUMNS)]
    near = [[(y - v) ** 2 + (x - u) ** 2 < RADIUS**2 for v, u in cells] for y, x in cells]
    seen = torch.ones(tokens, tokens, dtype=torch.bool)
    seen[image, image] = torch.tensor(near)
    return seen


def tensors(tokens: int, kv_heads: int = HEADS) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(3)
    shapes = ((1, heads, tokens, DEPTH) for heads in (HEADS, kv_heads, kv_heads))
    q, k, v = (torch.randn(shape, generator=random) for shape in shapes)
    return q, k, v


@pytest.fixture
def attend(product: Any) -> Any:
    """Compute one call of the host in a model's call; return the result and the report."""
    override = product("comfyui.core.override").override
    model_call, report = product("comfyui.core.calls.model_call"), product("comfyui.core.report")
    settings, geometry = product("comfyui.core.settings"), product("comfyui.core.geometry")
    families = {one.data.key: one for one in product("comfyui.families").FAMILIES}

    def run(
        key: str,
        *calls: tuple[Tensor, Tensor, Tensor, Tensor | None],
        skip_reshape: bool = True,
        **options: Any,
    ) -> tuple[list[Tensor], Any]:
        family = families[key]
        of_model = model_call.ModelCall(
            family=family,
            settings=settings.Settings(local=settings.WindowSettings(RADIUS)),
            geometry=geometry.Geometry(
                *(ROWS, COLUMNS), REFERENCES, family.data.order, cached=family.data.cached
            ),
            why_dense=None,
            previous=None,
            report=report.RunReport(),
        )
        given = {model_call.CALL_KEY: of_model, "block_type": "double", "block_index": 0, **options}

        def host(q: Tensor, *_: Any, **__: Any) -> Tensor:
            return torch.zeros(q.shape[0], q.shape[2], HEADS * DEPTH)

        outs = [
            override(
                host, q, k, v, HEADS, mask, skip_reshape=skip_reshape, transformer_options=given
            )
            for q, k, v, mask in calls
        ]
        return outs, of_model.report

    return run


def expected(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
    groups = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(groups, 1) for x in (k, v))
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
    return out.transpose(1, 2).flatten(2)


@pytest.mark.parametrize("kv_heads", [HEADS, 2, 1])
def test_references_whose_keys_come_from_a_cache_are_seen(kv_heads, attend):
    """As FLUX.2 does it from the second step on: the queries are those in front."""
    q, k, v = tensors(TEXT + IMAGE + REFERENCES, kv_heads)
    asked, seen = slice(0, TEXT + IMAGE), sees(TEXT, REFERENCES)
    (out,), report = attend("flux2", (q[:, :, asked], k, v, None))
    torch.testing.assert_close(out, expected(q[:, :, asked], k, v, seen[asked]))
    (path,) = report.calls
    assert path.radius == RADIUS
    assert path.possible == (TEXT + IMAGE) * (TEXT + IMAGE + REFERENCES)


@pytest.mark.parametrize("cached", [1, TEXT - 1, TEXT])
def test_text_whose_keys_come_from_a_cache_is_seen(cached, attend):
    """As HiDream-O1 does it: the queries are the last ones, some text may be among them."""
    q, k, v = tensors(TEXT + IMAGE + REFERENCES, 2)
    asked, seen = slice(cached, None), sees(TEXT, REFERENCES)
    (out,), report = attend("hidream_o1", (q[:, :, asked], k, v, None))
    torch.testing.assert_close(out, expected(q[:, :, asked], k, v, seen[asked]))
    assert [path.radius for path in report.calls] == [RADIUS]


@pytest.mark.parametrize(
    ("key", "queries"),
    [("flux2", TEXT + IMAGE - 1), ("flux2", IMAGE), ("hidream_o1", IMAGE + REFERENCES - 1)],
)
def test_queries_that_no_cache_explains_stay_dense(key, queries, attend):
    q, k, v = tensors(TEXT + IMAGE + REFERENCES)
    (out,), report = attend(key, (q[:, :, -queries:], k, v, None))
    assert not out.any()  # the host's
    (path,) = report.calls
    assert "differ: no joint self-attention" in path.why


def test_a_sequence_shorter_than_its_parts_stays_dense_with_the_reason(attend):
    q, k, v = tensors(IMAGE + REFERENCES - 1)
    (out,), report = attend("flux2", (q, k, v, None))
    assert not out.any()
    assert [path.why for path in report.calls] == ["25 tokens cannot hold the picture's grid"]


def test_keys_of_fewer_heads_may_come_with_heads_and_width_in_one(attend):
    q, k, v = tensors(TEXT + IMAGE + REFERENCES, 2)
    flat = [x.transpose(1, 2).flatten(2) for x in (q, k, v)]
    (out,), _ = attend("flux2", (*flat, None), skip_reshape=False)
    torch.testing.assert_close(out, expected(q, k, v, sees(TEXT, REFERENCES)))


@pytest.mark.parametrize("shape", ["batch", "heads", "square"])
def test_a_mask_of_padded_text_is_read_once_for_all_blocks(shape, attend, product, monkeypatch):
    tokens = TEXT + IMAGE + REFERENCES
    seen = sees(TEXT, REFERENCES)
    mask = torch.zeros(1, 1, tokens)
    mask[..., :3] = torch.finfo(torch.float32).min
    if shape == "heads":
        mask = mask[:, None]
    if shape == "square":
        mask = mask.expand(1, tokens, tokens).contiguous()[:, None]
    module, counted = product("comfyui.core.override"), Counter()
    read = module.read_mask

    def counting(*args: Any) -> Any:
        counted["read"] += 1
        return read(*args)

    monkeypatch.setattr(module, "read_mask", counting)
    q, k, v = tensors(tokens)
    views = (mask, mask.view(mask.shape), mask[:])
    outs, report = attend("flux2", *((q, k, v, view) for view in views))
    seen[:, :3] = False
    for out in outs:
        torch.testing.assert_close(out, expected(q, k, v, seen))
    assert counted["read"] == 1
    assert not any("mask over pictures" in path.why for path in report.calls)
    assert sum(report.calls.values()) == 3
    other = mask.clone()
    other[..., 3] = torch.finfo(torch.float32).min
    (first, second), _ = attend("flux2", (q, k, v, mask), (q, k, v, other))
    assert not torch.equal(first, second)
