"""Nodes that bring positions of their own, such as DyPE, before and after ours."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from ..flux_runs import RADIUS, inputs

PATH = "diffusion_model.pe_embedder"
NTK = 10.0


@pytest.fixture
def dynamic(host):
    """Return a node as DyPE is: its embedder follows a noise level that a wrapper sets on it."""
    from comfy.ldm.flux.math import rope

    class DynamicEmbedder(torch.nn.Module):
        def __init__(self, theta, axes_dim):
            super().__init__()
            self.theta, self.axes_dim = theta, axes_dim
            self.level = 1.0
            self.levels = 0

        def forward(self, ids):
            self.levels = self.levels + 1
            theta = self.theta * 4 ** (2 * self.level)
            axes = enumerate(self.axes_dim)
            return torch.cat([rope(ids[..., i], dim, theta) for i, dim in axes], -3).unsqueeze(1)

    def node(model, factor=1.0):
        model = model.clone()
        own = model.model.diffusion_model.pe_embedder
        embedder = DynamicEmbedder(own.theta * factor, own.axes_dim)

        def follow(apply_model, arguments):
            embedder.level = float(arguments["timestep"].max())
            return apply_model(arguments["input"], arguments["timestep"], **arguments["c"])

        model.add_object_patch(PATH, embedder)
        model.set_model_unet_function_wrapper(follow)
        return SimpleNamespace(model=model, embedder=embedder)

    return node


def test_positions_that_follow_the_noise_level_go_on_doing_so(flux_model, nodes, dynamic, sample):
    """Against the same node on a base that was multiplied by hand, over four steps."""
    expected = sample(dynamic(flux_model("b"), NTK).model, steps=4)
    theirs = dynamic(flux_model("b"))
    model = nodes.CLEARHighRes(theirs.model, NTK, False)
    assert torch.equal(sample(model, steps=4), expected)
    assert theirs.embedder.theta == 10000
    assert not torch.allclose(sample(theirs.model, steps=4), expected, atol=1e-3)


def test_an_embedder_remembers_what_it_does_behind_ours(flux_model, nodes, dynamic, sample):
    theirs = dynamic(flux_model("b"))
    model = nodes.CLEARHighRes(theirs.model, NTK, False)
    assert theirs.embedder.levels == 0
    sample(model, steps=3, cfg=1.0)
    assert theirs.embedder.levels == 3


def test_of_two_ntk_factors_on_anothers_embedder_the_last_one_wins(flux_model, nodes, dynamic, run):
    theirs = dynamic(flux_model("b"))
    twice = nodes.CLEARHighRes(nodes.CLEARHighRes(theirs.model, 3.0, False), NTK, False)
    once = nodes.CLEARHighRes(theirs.model, NTK, False)
    assert torch.equal(run(twice, **inputs()), run(once, **inputs()))
    assert twice.get_model_object(PATH).theta == 100000
    neutral = nodes.CLEARHighRes(once, 1.0, False)
    assert neutral.get_model_object(PATH).theta == 10000
    assert torch.equal(run(neutral, **inputs()), run(theirs.model, **inputs()))


def test_seamless_and_ntk_around_anothers_embedder_do_not_depend_on_their_order(
    flux_model, nodes, dynamic, sample
):
    theirs = dynamic(flux_model("b"))
    first = nodes.CLEARSeamless(nodes.CLEARHighRes(theirs.model, NTK, False))
    second = nodes.CLEARHighRes(nodes.CLEARSeamless(theirs.model), NTK, False)
    by_hand = nodes.CLEARSeamless(dynamic(flux_model("b"), NTK).model)
    expected = sample(by_hand, steps=3)
    assert torch.equal(sample(first, steps=3), expected)
    assert torch.equal(sample(second, steps=3), expected)


def test_an_embedder_whose_frequencies_are_fixed_is_refused_by_name(flux_model, nodes):
    class FixedEmbedder(torch.nn.Module):
        theta = 10000

        def forward(self, ids):
            return ids

    model = flux_model("b").clone()
    model.add_object_patch(PATH, FixedEmbedder())
    with pytest.raises(ValueError, match=r"FixedEmbedder .* does not use its theta"):
        nodes.CLEARHighRes(model, NTK, True)
    assert nodes.CLEARHighRes(model, 1.0, True) is not None


def test_an_embedder_that_fails_on_a_few_positions_is_refused_by_name(flux_model, nodes):
    class PickyEmbedder(torch.nn.Module):
        theta = 10000

        def forward(self, ids):
            raise RuntimeError("no grid")

    model = flux_model("b").clone()
    model.add_object_patch(PATH, PickyEmbedder())
    with pytest.raises(ValueError, match=r"PickyEmbedder .* fails on three positions \(no grid\)"):
        nodes.CLEARHighRes(model, NTK, True)


LOST = (
    "another node has replaced the positional embedding after CLEAR High Resolution, so that "
    "ntk_factor 10 has no effect. Put CLEAR High Resolution behind that node"
)


@pytest.mark.parametrize("window", [False, True], ids=["full attention", "window"])
def test_a_node_that_replaces_ours_is_reported(
    window, flux_model, nodes, dynamic, sample, lines, caplog
):
    model = nodes.CLEARHighRes(flux_model("b"), NTK, True)
    model = nodes.CLEARAttention(model, RADIUS) if window else model
    sample(model)
    assert LOST not in lines()
    sample(dynamic(model).model)
    assert lines().count(LOST) == 1
    caplog.clear()
    sample(nodes.CLEARHighRes(dynamic(model).model, 1.0, True))
    sample(nodes.CLEARHighRes(dynamic(model).model, NTK, True))
    assert LOST not in lines()


def test_a_node_that_keeps_ours_inside_of_its_own_is_not_reported(flux_model, nodes, sample, lines):
    class Around(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.of_before = inner

        def forward(self, ids):
            return self.of_before(ids)

    model = nodes.CLEARHighRes(flux_model("b"), NTK, False)
    model.add_object_patch(PATH, Around(model.get_model_object(PATH)))
    sample(model)
    assert LOST not in lines()


def test_a_replaced_embedder_is_shown_on_the_node(
    flux_model, nodes, node_classes, dynamic, sample, product, monkeypatch
):
    shown = []
    report = product("comfyui.core.report")
    monkeypatch.setattr(report, "tell", lambda *given: shown.append(given[:2]))
    node = node_classes["CLEARHighRes"]
    monkeypatch.setattr(node, "hidden", SimpleNamespace(unique_id="7"))
    sample(dynamic(nodes.CLEARHighRes(flux_model("b"), NTK, True)).model)
    assert shown == [(LOST, "7")]


def test_upscale_scales_anothers_positions_at_each_step(flux_model, nodes, dynamic, product):
    """As the cascade does: a clone per stage, all of them around one object."""
    for_high_resolution = product("comfyui.positions.high_resolution").for_high_resolution
    theirs = dynamic(flux_model("b"))
    stages = [for_high_resolution(theirs.model, factor, True) for factor in (2.0, 5.0)]
    ids = torch.arange(12.0).reshape(1, 4, 3)
    for level in (1.0, 0.3):
        theirs.embedder.level = level
        for model, factor in zip(stages, (2.0, 5.0), strict=True):
            by_hand = dynamic(flux_model("b"), factor).embedder
            by_hand.level = level
            assert torch.equal(model.get_model_object(PATH)(ids), by_hand(ids))
