"""The memory of every architecture's model, whole and in slices, is what it holds at its peak."""

from __future__ import annotations

import pytest
import torch

from ..plan.test_plan_node import Live
from .zoo import ENTRIES
from .zoo_models import conditioning, host_version, latent, present, sampled

ROWS, COLUMNS, SLICE = 24, 20, 64
TEXT = 40
SEQUENCE = {"flux2": 512, "hidream": 3 * TEXT + 4}
"""Tokens of the text in the blocks, where a prompt has others."""

LEAST = 0.85
KEPT = {"omnigen2": 0.7} if host_version() < (0, 19) else {}
"""Older hosts keep what these blocks need no more until the blocks end."""
MOST = 1.3
"""Blocks are counted as the host writes the thriftiest and the most generous ones of a family."""


@pytest.mark.parametrize("slice_tokens", [None, SLICE], ids=["whole", "slices"])
@pytest.mark.parametrize("radius", [None, 4], ids=["full", "window"])
@pytest.mark.parametrize("name", present())
def test_the_planned_bytes_are_held_at_the_peak(
    name, radius, slice_tokens, fused, nodes, pack, product
):
    entry, model = ENTRIES[name], fused(name)
    clear = getattr(model.model.diffusion_model, "clear_kv_cache", lambda: None)
    used = nodes.CLEARAttention(model, radius, backend="tiled") if radius else model
    if slice_tokens is not None:
        used = nodes.CLEARLowMemory(used, slice_tokens)
    prompt = conditioning(entry, TEXT)
    sampled(used, latent(entry), prompt)  # moves the weights
    clear()
    noise = latent(entry, rows=ROWS, columns=COLUMNS)
    with Live() as live:
        sampled(used, noise, prompt)
    clear()
    layout = pack.clear_attention.TokenLayout(SEQUENCE.get(name, TEXT), ROWS, COLUMNS)
    window = pack.clear_attention.Window(radius) if radius else None
    job = product("families.network").Job(layout, window, backend="tiled" if radius else "auto")
    network, where = product("comfyui.core.job").network_of(model), torch.device("cpu")
    expected = product("plan.memory").memory(network, job, torch.float32, where, slice_tokens)
    assert KEPT.get(name, LEAST) <= expected / live.peak <= MOST, expected / live.peak


@pytest.mark.parametrize("name", present())
def test_the_host_is_told_what_slices_need_for_one_picture(
    name, zoo_model, nodes, product, monkeypatch
):
    """In the host's own formula, at 4096 x 4096 tokens, where its estimate is the larger one."""
    import comfy.model_management

    monkeypatch.setattr(comfy.model_management, "pytorch_attention_flash_attention", lambda: True)
    entry = ENTRIES[name]
    local = nodes.CLEARAttention(zoo_model(name), 4, backend="tiled")
    edge, frames = 4096 * entry.patch, (1,) if entry.frames else ()
    shape = [1, entry.channels, *frames, edge, edge]
    estimate = product("comfyui.memory.estimate")
    settings = product("comfyui.core.patch").settings_of(local)
    found = estimate.corrected_shape(local, shape, settings, 0)
    told = local.model.memory_required(found.shape)
    if found.why_not == "it is the smaller one":  # of pixels as wide as the small model's tokens
        assert int(told) == found.host == found.needed
        return
    assert found.why_not == "" and len(found.shape) == len(shape)
    assert told == pytest.approx(found.needed, rel=1e-3)
    needed = estimate.bytes_needed(local, shape, settings, 0)
    assert found.needed == needed + estimate.FIXED < found.host
    whole = product("plan.memory").memory(
        product("comfyui.core.job").network_of(local),
        product("comfyui.core.job").job_of(settings, estimate._layout(local, shape), 1),
        torch.float32,
        torch.device("cpu"),
    )
    assert needed <= whole


def test_several_frames_keep_the_hosts_estimate(zoo_model, nodes, product):
    local = nodes.CLEARAttention(zoo_model("qwen_image"), 4, backend="tiled")
    settings = product("comfyui.core.patch").settings_of(local)
    shape = [1, 16, 3, 512, 512]
    found = product("comfyui.memory.estimate").corrected_shape(local, shape, settings, 0)
    assert found.why_not == "latents of 3 frames are not known" and found.shape == shape
