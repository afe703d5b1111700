"""First-call work inside a block pauses the host's recording of allocations, where it has one."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from types import ModuleType

import pytest

from ..flux_runs import RADIUS, inputs


@pytest.fixture
def recorder(host, monkeypatch):
    """Stand in for newest hosts' `comfy.model_prefetch`, and note when it pauses."""
    import comfy

    pauses = []

    @contextmanager
    def pause_malloc_graph(sync=False):
        pauses.append(sync)
        yield

    stand_in = ModuleType("comfy.model_prefetch")
    stand_in.pause_malloc_graph = pause_malloc_graph
    monkeypatch.setitem(sys.modules, "comfy.model_prefetch", stand_in)
    monkeypatch.setattr(comfy, "model_prefetch", stand_in, raising=False)
    return pauses


def test_lists_that_are_kept_pause_the_recording_once(flux_model, nodes, run, product, recorder):
    product("backends.tile_order").plan_blocks.cache_clear()
    model = nodes.CLEARAttention(flux_model("b"), RADIUS, backend="flex")
    run(model, **inputs())
    assert len(recorder) == 1, "five blocks share one plan"
    run(model, **inputs())
    assert len(recorder) == 1


def test_a_host_without_a_recording_is_left_alone(product, monkeypatch):
    host = product("comfyui.core.host")
    monkeypatch.setitem(sys.modules, "comfy.model_prefetch", None)  # importing it fails
    with host.outside_recording():
        pass
    monkeypatch.setitem(sys.modules, "comfy.model_prefetch", ModuleType("older"))
    with host.outside_recording():
        pass
