"""A radius per block: each block has its own window, in the model, the report and the plan."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from ..flux_runs import RADIUS, dense_override, disc_bias, inputs, with_override

RADII = "double 1: 2, single 0: 7, single 2: 1"
OF_CALLS = [RADIUS, 2, 7, RADIUS, 1]
"""Radius of each block of the small FLUX, in the order in which they run."""


def grid_of(arguments):
    return tuple(-(-size // 2) for size in arguments["x"].shape[-2:])


@pytest.mark.parametrize("backend", ["auto", "tiled", "reference"])
def test_each_block_has_its_own_window(backend, flux_model, nodes, run):
    arguments = inputs(height=15, width=20)
    text = arguments["context"].shape[1]
    by_radius = {
        radius: dense_override(disc_bias(text, *grid_of(arguments), radius=radius))
        for radius in OF_CALLS
    }
    calls = iter(OF_CALLS)

    def by_hand(func, *args, **kwargs):
        return by_radius[next(calls)](func, *args, **kwargs)

    expected = run(with_override(flux_model("b"), by_hand), **arguments)
    assert next(calls, None) is None
    local = nodes.CLEARAttention(flux_model("b"), RADIUS, backend=backend, radii=RADII)
    torch.testing.assert_close(run(local, **arguments), expected, atol=2e-5, rtol=2e-5)
    one = run(nodes.CLEARAttention(flux_model("b"), RADIUS), **arguments)
    assert not torch.allclose(one, expected, atol=1e-3)


def test_equal_radii_are_one_radius(flux_model, nodes, run):
    model = flux_model("b")
    text = f"double 0-1: {RADIUS}, single 0-2: {RADIUS}"
    each = nodes.CLEARAttention(model, 9, radii=text)
    assert torch.equal(run(each, **inputs()), run(nodes.CLEARAttention(model, RADIUS), **inputs()))


def test_dense_blocks_stay_full_whatever_their_radius(flux_model, nodes, run):
    model = flux_model("b")
    both = nodes.CLEARAttention(model, RADIUS, radii="single 0: 2", dense_blocks="single 0")
    dense = nodes.CLEARAttention(model, RADIUS, dense_blocks="single 0")
    assert torch.equal(run(both, **inputs()), run(dense, **inputs()))


def test_the_next_window_node_takes_no_radii_over(flux_model, nodes, run):
    model = flux_model("b")
    twice = nodes.CLEARAttention(nodes.CLEARAttention(model, 9, radii=RADII), RADIUS)
    once = nodes.CLEARAttention(model, RADIUS)
    assert torch.equal(run(twice, **inputs()), run(once, **inputs()))


@pytest.mark.parametrize("which", ["width", "both"])
def test_every_block_wraps_around(which, flux_model, nodes, product):
    model = nodes.CLEARAttention(flux_model("b"), RADIUS, radii=RADII)
    model = nodes.CLEARSeamless(model, {"width": "horizontal", "both": "both"}[which])
    settings = product("comfyui.core.patch").settings_of(model)
    windows = [settings.window_of(block) for block in (None, ("single", 0), ("single", 2))]
    assert [window.radius for window in windows] == [RADIUS, 7, 1]
    assert all(window.wrap_width for window in windows)
    assert settings.largest_window == windows[1]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("single 1", 'Radii must look like "double 0-3: 8, single 0: 32"'),
        ("single 3: 8", "Radii must be blocks of the model, which has double 0-1, single 0-2, got"),
    ],
)
def test_radii_that_no_block_can_have_are_explained(text, complaint, flux_model, nodes):
    with pytest.raises(ValueError, match=complaint):
        nodes.CLEARAttention(flux_model("b"), RADIUS, radii=text)


def test_the_report_has_a_line_for_each_radius_and_the_node_one(
    flux_model, nodes, sample, lines, product
):
    sample(nodes.CLEARAttention(flux_model("b"), RADIUS, backend="tiled", radii=RADII), cfg=1.0)
    found = lines()
    radii = [line.split(", ")[1] for line in found]
    assert sorted(radii) == ["radius 1", "radius 2", f"radius {RADIUS}", "radius 7"]
    report = product("comfyui.core.report")
    layout = product("layout").TokenLayout(4, 5, 6)
    paths = [report.ComputedPath("tiled", layout, radius, computed=radius) for radius in (4, 9, 6)]
    assert report._briefs([*paths, report.ComputedPath("dense", why="so")]) == [
        "tiled, radius 4 to 9, 4 text + 5 x 6 image tokens",
        "dense: so",
    ]


def test_the_plan_counts_each_block(flux_model, nodes, product):
    plan_model = product("comfyui.plan.model").plan_model
    model = nodes.CLEARAttention(flux_model("b"), RADIUS, backend="tiled", radii=RADII)
    plan = plan_model(model, (512, 512), text_tokens=40)
    alone = [
        plan_model(nodes.CLEARAttention(flux_model("b"), radius), (512, 512), text_tokens=40)
        for radius in OF_CALLS
    ]
    assert plan.clear.pairs == pytest.approx(sum(each.clear.pairs for each in alone) / 5, abs=1)
    assert "CLEAR r = 1 to 7" in plan.table()


def test_low_memory_asks_whether_every_backend_is_linear(flux_model, nodes, product, monkeypatch):
    """One window of a backend that holds all scores is enough for the host's own estimate."""
    estimate, patch = product("comfyui.memory.estimate"), product("comfyui.core.patch")
    shape = [1, 16, 256, 256]
    model = nodes.CLEARAttention(flux_model("b"), RADIUS, backend="tiled", radii=RADII)
    settings = patch.settings_of(model)
    needed = estimate.bytes_needed(model, shape, settings, 0)
    assert estimate._why_not_linear(model, shape, settings) is None
    each = [
        estimate.bytes_needed(
            model,
            shape,
            patch.settings_of(nodes.CLEARAttention(model, radius, backend="tiled")),
            0,
        )
        for radius in OF_CALLS
    ]
    assert needed == max(each)
    asked = []
    footprint_of = estimate.footprint_of

    def last_is_quadratic(network, job, window, *where, **more):
        asked.append(window.radius)
        linear = window.radius < 7
        found = footprint_of(network, job, window, *where, **more)
        return SimpleNamespace(linear=linear and found.linear)

    monkeypatch.setattr(estimate, "footprint_of", last_is_quadratic)
    assert "is not linear" in (estimate._why_not_linear(model, shape, settings) or "")
    assert asked == sorted(set(OF_CALLS))
