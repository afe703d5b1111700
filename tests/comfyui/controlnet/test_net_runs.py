"""CLEAR ControlNet in whole sampling runs: the model's window and its steps."""

from __future__ import annotations

import pytest
import torch

from ..flux_runs import RADIUS
from ..sampling_fixtures import GRID, TEXT


def test_a_whole_run_equals_the_hosts_where_the_window_covers_the_grid(
    flux_model, make_control_net, nodes, controlled
):
    net, model = make_control_net("instantx"), flux_model("b")
    expected = controlled(model, net, net)
    local = nodes.CLEARControlNet(net, 64)
    torch.testing.assert_close(controlled(model, local, local), expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(expected, controlled(model), atol=1e-2)


def test_reference_pictures_of_the_model_are_none_of_the_nets(
    flux_model, make_control_net, nodes, controlled
):
    net = make_control_net("instantx")
    model = nodes.CLEARAttention(flux_model("b"), 64)
    references = [torch.randn(1, 16, 10, 8, generator=torch.Generator().manual_seed(8))]
    local = nodes.CLEARControlNet(net, 0)
    found = controlled(model, local, cfg=1.0, references=references)
    expected = controlled(flux_model("b"), net, cfg=1.0, references=references)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(found, controlled(model, local, cfg=1.0), atol=1e-2)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_radius_of_zero_takes_the_models_window(
    batch, flux_model, make_control_net, nodes, controlled
):
    net = make_control_net("instantx")
    model = nodes.CLEARAttention(flux_model("b"), RADIUS, pool_factor=4, dense_blocks="single 0")
    follows, says = nodes.CLEARControlNet(net, 0), nodes.CLEARControlNet(net, RADIUS)
    out = controlled(model, follows, batch=batch)
    assert torch.equal(out, controlled(model, says, batch=batch))
    assert not torch.equal(out, controlled(model, net, batch=batch))


def test_a_radius_of_zero_takes_the_models_steps(
    flux_model,
    make_control_net,
    nodes,
    controlled,
    lines,
):
    model = nodes.CLEARAttention(flux_model("b"), RADIUS, start_percent=0.5)
    controlled(model, nodes.CLEARControlNet(make_control_net("instantx"), 0), cfg=1.0)
    of_net = [line for line in lines() if line.startswith("ControlNet: ")]
    assert len(of_net) == 2
    assert "dense" in of_net[0]
    assert "outside 0.5 to 1 of the schedule" in of_net[0]
    assert "radius 4" in of_net[1]


def test_a_radius_of_zero_without_a_window_is_warned_about(
    flux_model,
    make_control_net,
    nodes,
    controlled,
    lines,
):
    net, model = make_control_net("instantx"), flux_model("b")
    out = controlled(model, nodes.CLEARControlNet(net))
    assert torch.equal(out, controlled(model, net))
    warned = [line for line in lines() if "full attention: a radius of 0 takes" in line]
    assert len(warned) == 1


def test_a_union_type_set_before_or_after_counts_as_a_token(
    flux_model,
    make_control_net,
    nodes,
    controlled,
    lines,
):
    net = make_control_net("union")
    for made in (
        typed(nodes.CLEARControlNet(net, RADIUS)),
        nodes.CLEARControlNet(typed(net), RADIUS),
    ):
        controlled(flux_model("b"), made, cfg=1.0)
    assert len(lines()) == 2
    assert all(f"radius 4, {TEXT[0] + 1} text + {GRID}" in line for line in lines())


def typed(net):
    from comfy_extras.nodes_controlnet import SetUnionControlNetType

    run = (
        getattr(SetUnionControlNetType, "execute", None)
        or SetUnionControlNetType().set_controlnet_type
    )
    out = run(net, "tile")
    return out[0] if isinstance(out, tuple) else out.args[0]
