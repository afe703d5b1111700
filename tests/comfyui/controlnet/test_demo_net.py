"""The demo's ControlNet: what is painted comes nearer to what it is shown, behind a window too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

PICTURE = Path(__file__).parents[3] / "demo" / "example.jpg"
EDGE_PX = 256


@pytest.fixture
def distance(host) -> Any:
    """Paint from fixed noise, and return how far that is from a picture shown to a net."""
    import comfy.sd

    from demo.codec.vae_file import vae_weights
    from demo.teaching import control_measure as measure
    from demo.teaching.control import blurred

    with Image.open(PICTURE) as picture:
        small = picture.convert("RGB").resize((EDGE_PX, EDGE_PX))
    pixels = torch.from_numpy(np.asarray(small, dtype=np.float32) / 255)[None]
    hint = blurred(pixels.flip(2), measure.BLUR)  # not as the model knows it
    vae = comfy.sd.VAE(vae_weights())

    def found(model: Any, net: Any) -> float:
        with torch.inference_mode():
            painted = measure.paint(model, "a brook", net, hint, vae, seed=1)
            return measure.difference(vae.decode(painted), hint)

    return found


def test_paintings_come_nearer_to_what_the_net_is_shown(distance, nodes):
    from demo.nodes.control import load_control_net
    from demo.nodes.network import load_model

    model, net = load_model(), load_control_net()
    without, controlled = distance(model, None), distance(model, net)
    assert controlled < 0.6 * without
    clear = nodes.CLEARAttention(model, 8)
    assert distance(clear, nodes.CLEARControlNet(net, 0)) < 0.7 * without


def test_the_nets_file_holds_the_pictures_half_and_the_rest_is_the_models(host):
    from demo.nodes.checkpoint import base_weights
    from demo.nodes.control import load_control_net, own_weights

    network = load_control_net().control_model
    own, base = own_weights(network), base_weights()
    assert all(".txt_" not in name for name in own)
    for name, weight in network.named_parameters():
        old_name = name.replace("_norm.weight", "_norm.scale")
        if name not in own:
            assert torch.equal(weight, base[old_name].float())
    assert network.controlnet_blocks[0].weight.abs().max() > 0
