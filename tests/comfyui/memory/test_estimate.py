"""What CLEAR Low Memory tells the host that a run needs."""

from __future__ import annotations

import logging

import pytest
import torch

from ..low_memory_fixtures import GIB, RADIUS, SLICE


def estimate(product, model, shape, slice_tokens=0):
    settings = product("comfyui.core.patch").settings_of(model)
    return product("comfyui.memory.estimate").corrected_shape(model, shape, settings, slice_tokens)


@pytest.fixture
def wide(flux_model, monkeypatch):
    """A model that says it is as wide as FLUX.1 in bfloat16; it is only asked, not run."""
    import comfy.model_management

    # The host's own estimate on a card, where attention needs no memory that is quadratic.
    monkeypatch.setattr(comfy.model_management, "pytorch_attention_flash_attention", lambda: True)
    model = flux_model("a", torch.bfloat16)
    model.model.diffusion_model.hidden_size = 3072
    model.model.diffusion_model.num_heads = 24
    model.model.manual_cast_dtype = torch.bfloat16
    return model


@pytest.mark.parametrize(("edge_px", "theirs"), [(8192, 63.5), (4096, 15.9)])
def test_the_estimate_is_what_slices_need(edge_px, theirs, wide, nodes, product):
    """The input, q, k, v and the attention's output; strips, latents and positions are small."""
    shape = [1, 16, edge_px // 8, edge_px // 8]
    hidden = ((edge_px // 16) ** 2 + 512) * 3072 * 2
    found = estimate(product, nodes.CLEARAttention(wide, 16, backend="tiled"), shape)
    assert found.host / GIB == pytest.approx(theirs, rel=0.01)
    assert 5 * hidden < found.needed - GIB // 2 < 6.5 * hidden
    # What the host makes of the shape that it is given.
    assert wide.model.memory_required(found.shape) == pytest.approx(found.needed, rel=1e-3)
    assert found.shape[:2] == shape[:2]


def test_the_estimate_is_linear_in_pixels_and_batch(wide, nodes, product):
    model = nodes.CLEARAttention(wide, 16, backend="tiled")
    needed = {
        (batch, edge): estimate(product, model, [batch, 16, edge, edge]).needed - GIB // 2
        for batch, edge in ((1, 512), (1, 1024), (2, 1024))
    }
    # All but the mask of a strip, which the pictures share.
    assert needed[2, 1024] == pytest.approx(2 * needed[1, 1024], rel=1e-3)
    # What a strip of tiles holds grows with the edge only.
    assert 3.6 * needed[1, 512] < needed[1, 1024] <= 4 * needed[1, 512]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (None, "no CLEAR window"),
        ({"start_percent": 0.2}, "part of the schedule"),
        ({"dense_blocks": "double 0"}, "blocks are kept dense"),
        ({"pool_factor": 4}, "pooled"),
        ({"min_tokens": 1 << 20}, "min_tokens"),
        ({"backend": "reference"}, "reference is not linear"),
    ],
    ids=lambda value: None if isinstance(value, str) else str(value),
)
def test_the_hosts_estimate_stays_where_attention_is_not_linear(changes, why, wide, nodes, product):
    if changes is not None:
        wide = nodes.CLEARAttention(wide, 16, **{"backend": "tiled", **changes})
    found = estimate(product, wide, [1, 16, 1024, 1024])
    assert why in found.why_not
    assert found.shape == [1, 16, 1024, 1024]


@pytest.fixture
def asked(monkeypatch):
    """What the host asks of its memory management: bytes."""
    import comfy.model_management

    seen: list[dict[str, float]] = []
    load = comfy.model_management.load_models_gpu

    def recorded(models, **kwargs):
        seen.append(kwargs)
        return load(models, **kwargs)

    monkeypatch.setattr(comfy.model_management, "load_models_gpu", recorded)
    return seen


def test_the_host_is_told_the_estimate(
    flux_model, nodes, product, sample, asked, caplog, monkeypatch
):
    caplog.set_level(logging.INFO)
    model = nodes.CLEARAttention(flux_model("b"), RADIUS, backend="tiled")
    sample(model)
    sample(nodes.CLEARLowMemory(model, SLICE))
    host, ours = (call["minimum_memory_required"] for call in asked)
    found = estimate(product, model, [1, 16, 26, 20], SLICE)
    # The host's own is smaller for so narrow a model at so small a size: it stays.
    assert found.why_not == "it is the smaller one" and host == ours
    asked.clear()
    monkeypatch.setattr(product("comfyui.memory.estimate"), "FIXED", 0)
    sample(nodes.CLEARLowMemory(model, SLICE))
    found = estimate(product, model, [1, 16, 26, 20], SLICE)
    assert found.why_not == ""
    assert found.needed <= asked[0]["minimum_memory_required"] < min(host, 1.5 * found.needed)
