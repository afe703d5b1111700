"""What Advanced-ControlNet's nodes would give to a net is never dropped in silence."""

from __future__ import annotations

import pytest
import torch

from ..controlnet_fixtures import call_of, hint_for
from ..flux_runs import RADIUS
from .test_net import SIZE, assert_same, shown


def apply(net, *, keyframes=None, mask=None, **overrides):
    """Apply a net as theirs does: to one without their marks, it gives none of the options."""
    net = net.copy().set_cond_hint(hint_for("instantx", SIZE), 1.0, (0.0, 1.0))
    if hasattr(net, "sub_idxs"):
        net.disarm()
        assert not net.allow_condhint_latents and not net.require_vae
        assert not net.postpone_condhint_latents_check
        if keyframes is not None:
            net.set_timestep_keyframes(keyframes)
        for name, value in overrides.items():
            if value is not None:
                setattr(net, name, value)
        net.verify_all_weights()
        if mask is not None:
            net.set_cond_hint_mask(mask)
    return net


GIVEN = {
    "timestep keyframes": dict(keyframes=object()),
    "latent keyframes": dict(latent_keyframe_override=object()),
    "weights": dict(weights_override=object()),
    "a mask": dict(mask=torch.ones(1, 8, 8)),
}


@pytest.mark.parametrize("what", GIVEN)
def test_what_would_have_no_effect_is_refused(what, make_control_net, nodes):
    net = nodes.CLEARControlNet(make_control_net("instantx"), RADIUS)
    with pytest.raises(ValueError, match=f"without Advanced-ControlNet's .* got {what}: it would"):
        apply(net, **GIVEN[what])


def test_without_options_it_is_applied_as_ever(make_control_net, nodes, residuals):
    net = nodes.CLEARControlNet(make_control_net("instantx"), RADIUS)
    call = call_of("instantx", SIZE)
    assert_same(residuals(apply(net), **call), residuals(shown(net, "instantx"), **call))
