"""FLUX on several devices through the host's sampler: the picture of one device."""

from __future__ import annotations

import pytest
import torch

LIMIT = 1e-6
"""Relative root mean square in float32, after several steps."""


@pytest.mark.parametrize("devices", ["cpu,cpu", "cpu,cpu,cpu", "cpu,cpu,cpu,cpu"])
@pytest.mark.parametrize("size", [(26, 20), (21, 27)], ids=["tall", "wide, odd"])
def test_several_devices_paint_the_picture_of_one(devices, size, compared, flux_model, nodes):
    model = nodes.CLEARAttention(flux_model("b"), radius=3)
    assert compared(model, devices, size=size) < LIMIT


@pytest.mark.parametrize("backend", ["masked", "tiled"])
def test_uneven_shares_paint_it_too(backend, compared, flux_model, nodes):
    model = nodes.CLEARAttention(flux_model("b"), radius=4, backend=backend)
    assert compared(model, "cpu,cpu,cpu", "5:1:2", size=(33, 18)) < LIMIT


WINDOWS = {
    "wider than a strip": dict(radius=9),
    "over the whole grid": dict(radius=64),
    "some blocks dense": dict(radius=3, dense_blocks="double 1, single 0-1"),
    "pooled": dict(radius=3, pool_factor=3),
    "late": dict(radius=3, start_percent=0.5),
}


@pytest.mark.parametrize("window", WINDOWS.values(), ids=list(WINDOWS))
def test_every_window_is_shared(window, compared, flux_model, nodes):
    model = nodes.CLEARAttention(flux_model("b"), **window)
    steps = 2 if "start_percent" in window else 1
    assert compared(model, "cpu,cpu,cpu", size=(21, 34), steps=steps) < LIMIT


def test_full_attention_is_shared(compared, flux_model):
    assert compared(flux_model("b"), size=(21, 18)) < LIMIT


def test_learned_pooling_is_shared(compared, flux_model, nodes, clear_folder):
    model = nodes.CLEARLoader(flux_model("b"), "clear_b_down4.safetensors", 1.0, 3)
    assert compared(model, "cpu,cpu,cpu", size=(30, 35)) < LIMIT


@pytest.mark.parametrize("direction", ["both", "horizontal", "vertical"])
@pytest.mark.parametrize("size", [(32, 16), (16, 32)], ids=["tall", "wide"])
def test_a_seamless_picture_is_shared(direction, size, compared, flux_model, nodes):
    model = nodes.CLEARSeamless(nodes.CLEARAttention(flux_model("b"), radius=3), direction)
    assert compared(model, "cpu,cpu,cpu", size=size) < LIMIT


def test_large_positions_are_shared(compared, flux_model, nodes):
    model = nodes.CLEARHighRes(nodes.CLEARAttention(flux_model("b"), radius=3), 10.0)
    assert compared(model) < LIMIT


@pytest.mark.parametrize("radius", [3, None], ids=["window", "full"])
def test_slices_are_shared(radius, compared, flux_model, nodes):
    model = flux_model("b")
    model = model if radius is None else nodes.CLEARAttention(model, radius=radius)
    assert compared(nodes.CLEARLowMemory(model, 16)) < LIMIT
    behind = compared(model, behind=lambda one: nodes.CLEARLowMemory(one, 16))
    assert behind < LIMIT


@pytest.mark.parametrize(
    "settings", [dict(batch=2), dict(cfg=1.0), dict(sampler="euler_ancestral")]
)
def test_batches_guidance_and_noisy_samplers_are_shared(settings, compared, flux_model, nodes):
    model = nodes.CLEARAttention(flux_model("b"), radius=3)
    assert compared(model, **settings) < LIMIT


@pytest.mark.parametrize("method", ["offset", "index", "uxo"])
def test_reference_pictures_are_shared_out(method, compared, controlled, flux_model, nodes):
    draw = torch.Generator().manual_seed(8)
    references = [torch.randn(1, 16, *size, generator=draw) for size in ((10, 8), (7, 12))]

    def paint(model):
        from node_helpers import conditioning_set_values

        from ..flux_runs import conditioning, sampled

        values = {"reference_latents": references, "reference_latents_method": method}
        positive = conditioning_set_values(conditioning(40, 2), values)
        return sampled(model, size=(26, 20), positive=positive)

    model = nodes.CLEARAttention(flux_model("b"), radius=3)
    assert compared(model, "cpu,cpu,cpu", paint=paint) < LIMIT


def test_repeated_runs_are_equal_to_the_bit(sample, flux_model, nodes):
    model = nodes.CLEARParallel(nodes.CLEARAttention(flux_model("b"), radius=3), "cpu,cpu,cpu")
    assert torch.equal(sample(model), sample(model))
