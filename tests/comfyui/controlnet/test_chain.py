"""CLEAR ControlNet in front of other nets and behind them: whose residuals are added, and how."""

from __future__ import annotations

import pytest
import torch

from ..controlnet_fixtures import assert_same, call_of
from .test_net import RADIUS, SIZE, close, shown


@pytest.mark.parametrize("strength", [1.0, 0.35])
def test_a_chain_adds_what_its_nets_say_each_in_its_own_way(
    strength, make_control_net, nodes, residuals
):
    """The same network twice: in front of ours it keeps full attention, and ours its window."""
    net, call = make_control_net("instantx"), call_of("instantx", SIZE)
    local = nodes.CLEARControlNet(net, RADIUS)
    own = residuals(shown(net, "instantx", seed=6), **call)
    window = residuals(shown(local, "instantx", strength=strength), **call)
    chain = shown(local, "instantx", strength=strength)
    chain.set_previous_controlnet(shown(net, "instantx", seed=6))
    together = residuals(chain, **call)
    sums = {key: [a + b for a, b in zip(own[key], window[key], strict=True)] for key in own}
    assert_same(together, sums)
    # And the other way round: ours in front of one of the host's.
    other = shown(net, "instantx", seed=6)
    other.set_previous_controlnet(shown(local, "instantx", strength=strength))
    close(residuals(other, **call), together)


def test_nets_of_different_depth_chain_as_the_hosts_do(make_control_net, nodes, residuals):
    long, short, call = (
        make_control_net("instantx"),
        make_control_net("xlabs"),
        call_of("xlabs", SIZE),
    )
    ours = {net: nodes.CLEARControlNet(net, 64) for net in (long, short)}
    for one, other, names in (
        (short, long, ("xlabs", "instantx")),
        (long, short, ("instantx", "xlabs")),
    ):
        own = shown(one, names[0]).set_previous_controlnet(shown(other, names[1]))
        local = shown(ours[one], names[0]).set_previous_controlnet(shown(ours[other], names[1]))
        found, expected = residuals(local, **call), residuals(own, **call)
        assert {key: len(each) for key, each in found.items()} == {"input": 19, "output": 38}
        close(found, expected)


def test_a_residual_that_is_given_to_many_blocks_is_added_once(host):
    """InstantX repeats five tensors for nineteen blocks, each of them 1.6 GB at 8192 pixels."""
    from clear_attention.comfyui.controlnet.chain import added

    a, b, c, d = (torch.full((2,), value) for value in (1.0, 2.0, 4.0, 8.0))
    own = {"input": [a, a, b, b, None, a], "middle": [a]}
    previous = {"input": [c, c, c, d, c], "output": [d]}
    found = added(own, previous)
    values = [None if x is None else x[0].item() for x in found["input"]]
    assert values == [5, 5, 6, 10, 4, 1]
    assert found["input"][0] is found["input"][1]
    assert found["input"][4] is c
    assert found["input"][5] is found["middle"][0] is a
    assert found["output"][0] is d
    assert [x[0].item() for x in (a, b, c, d)] == [1, 2, 4, 8]
