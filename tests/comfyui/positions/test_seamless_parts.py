"""CLEAR Seamless where a call sees a part of the picture only: its edges must not meet."""

from __future__ import annotations

import inspect

import pytest
import torch

from ..flux_runs import RADIUS, conditioning
from ..sampling_fixtures import SIZE

HEIGHT, WIDTH = SIZE
PART = (
    "seamless: the picture's {} cannot wrap around in calls that see only a part of it, such as "
    "areas of the prompt, tiles and context windows: a seam may stay"
)


def area(model, sample, height, width):
    """Paint an area with a prompt of its own, and the whole with another."""
    whole, part = conditioning(40, 2), conditioning(56, 3)
    part[0][1]["area"] = (height, width, 0, 0)
    return sample(model, cfg=1.0, positive=[*whole, *part])


def in_context_windows(model):
    """Compute windows of 16 of the 26 rows."""
    from comfy_extras.nodes_context_windows import ContextWindowsManualNode as Node

    windows = {"context_length": 16, "context_overlap": 6, "context_stride": 1, "dim": 2}
    options = {"context_schedule": "standard_static", "fuse_method": "pyramid"}
    known = inspect.signature(Node.execute).parameters
    off = {name: False for name in ("freenoise", "causal_window_fix") if name in known}
    return Node.execute(model, **windows, **options, closed_loop=False, **off).args[0]


def in_tiles(model):
    """Compute two tiles side by side, as tiled diffusion does in a wrapper of the model."""
    model = model.clone()

    def wrapper(apply, given):
        halves = given["input"].split(WIDTH // 2, -1)
        return torch.cat([apply(half, given["timestep"], **given["c"]) for half in halves], -1)

    model.set_model_unet_function_wrapper(wrapper)
    return model


@pytest.fixture(params=[False, True], ids=["full attention", "window"])
def base(request, flux_model, nodes):
    model = flux_model("b")
    return nodes.CLEARAttention(model, RADIUS) if request.param else model


def test_an_area_of_the_prompt_does_not_wrap_along_the_side_that_it_cuts(
    base, nodes, sample, lines
):
    """The whole picture's own call wraps as ever: an area of all rows is cut in its width only."""
    part = (HEIGHT, WIDTH // 2)
    vertical = area(nodes.CLEARSeamless(base, "vertical"), sample, *part)
    assert PART.format("width") not in lines()
    # Where the prompt of the whole has no strength, only the area's call is seen.
    found = [
        only_area(nodes.CLEARSeamless(base, direction), sample, *part)
        for direction in ("both", "vertical")
    ]
    assert torch.equal(*found)
    assert PART.format("width") in lines()
    assert "seamless: " in "\n".join(lines())
    both = area(nodes.CLEARSeamless(base, "both"), sample, *part)
    assert not torch.allclose(both, vertical, atol=1e-3)


def only_area(model, sample, height, width):
    part = conditioning(56, 3)
    part[0][1]["area"] = (height, width, 0, 0)
    return sample(model, cfg=1.0, positive=part)[..., :height, :width]


def test_context_windows_do_not_wrap_along_the_rows_that_they_cut(base, nodes, sample, lines):
    both, horizontal = (
        sample(in_context_windows(nodes.CLEARSeamless(base, direction)))
        for direction in ("both", "horizontal")
    )
    assert torch.equal(both, horizontal)
    vertical = sample(in_context_windows(nodes.CLEARSeamless(base, "vertical")))
    assert torch.equal(vertical, sample(in_context_windows(base)))
    assert lines().count(PART.format("height")) == 2
    assert not torch.allclose(horizontal, vertical, atol=1e-3)


@pytest.mark.parametrize("first", [True, False], ids=["tiles first", "seamless first"])
def test_tiles_do_not_wrap_onto_themselves(first, base, nodes, sample, lines):
    def both(model, direction):
        if first:
            return nodes.CLEARSeamless(in_tiles(model), direction)
        return in_tiles(nodes.CLEARSeamless(model, direction))

    expected = sample(both(base, "vertical"))
    assert torch.equal(sample(both(base, "both")), expected)
    assert lines().count(PART.format("width")) == 1
    assert not torch.allclose(sample(in_tiles(base)), expected, atol=1e-3)


def test_a_controlnet_of_a_tile_does_not_wrap_either(
    flux_model, make_control_net, nodes, controlled
):
    """The host cuts a net's picture for an area; both calls are those of a part."""

    def run(direction):
        net = nodes.CLEARControlNet(make_control_net("instantx"), RADIUS)
        model = nodes.CLEARSeamless(nodes.CLEARAttention(flux_model("b"), RADIUS), direction)
        return controlled(in_context_windows(model), net, cfg=1.0)

    assert torch.equal(run("both"), run("horizontal"))


def test_a_whole_picture_says_nothing_of_parts(base, nodes, sample, lines):
    sample(nodes.CLEARSeamless(base))
    assert not any("a part of it" in line for line in lines())
    assert "around after 10 columns and 13 rows" in "\n".join(lines())
