"""The demo's ControlNet as ComfyUI's own classes: InstantX's layout with one double block.

Its file holds the picture's half only. Its text stream and its embedders are the demo model's own,
and are taken from there.
"""

from __future__ import annotations

from typing import Any

import comfy.controlnet
import comfy.latent_formats
import comfy.ldm.flux.controlnet
import comfy.model_management
import comfy.ops
import torch
from comfy_api.latest import io
from safetensors.torch import load_file
from torch import Tensor, nn

from .checkpoint import MODELS, base_weights
from .network import required_by_host
from .sizes import LATENT_CHANNELS, config_of

FILE = "clear_demo_controlnet_upscale.safetensors"
DOUBLE_BLOCKS = 1
OF_THE_MODEL = ("img_in.", "txt_in.", "time_in.", "vector_in.", "guidance_in.")


def build_network(dtype: torch.dtype = torch.float32) -> comfy.ldm.flux.controlnet.ControlNetFlux:
    """Build the network with the demo model's weights, and an output that is zero as yet."""
    base = base_weights()
    sizes = {**config_of(base), "depth": DOUBLE_BLOCKS, "depth_single_blocks": 0}
    network = comfy.ldm.flux.controlnet.ControlNetFlux(
        **{**sizes, **required_by_host()},
        latent_input=True,
        control_latent_channels=LATENT_CHANNELS,
        dtype=dtype,
        operations=comfy.ops.manual_cast,
    )
    blocks = tuple(f"double_blocks.{index}." for index in range(DOUBLE_BLOCKS))
    inherited = {k: v for k, v in base.items() if k.startswith(OF_THE_MODEL + blocks)}
    left = network.load_state_dict(_named_by_host(inherited, network), strict=False)
    new = [network.pos_embed_input, *network.controlnet_blocks]
    assert len(left.missing_keys) == 2 * len(new), left.missing_keys
    for layer in new:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    hint = network.pos_embed_input.weight
    draw = torch.Generator().manual_seed(0)
    hint.data.copy_(torch.randn(hint.shape, generator=draw) / hint.shape[1] ** 0.5)
    return network.eval().requires_grad_(False)


def own_weights(network: nn.Module) -> dict[str, nn.Parameter]:
    """Return what distinguishes the network from the demo model: trained, and stored."""
    shared = (*OF_THE_MODEL, *(f"double_blocks.{index}.txt_" for index in range(DOUBLE_BLOCKS)))
    return {k: v for k, v in network.named_parameters() if not k.startswith(shared)}


def load_control_net() -> comfy.controlnet.ControlNet:
    """Load the demo's ControlNet as a CONTROL_NET."""
    network = build_network()
    found = _named_by_host(load_file(MODELS / FILE), network)
    left = network.load_state_dict(found, strict=False)
    assert not left.unexpected_keys, left.unexpected_keys
    return control_net(network)


def control_net(network: nn.Module) -> comfy.controlnet.ControlNet:
    """Wrap the network as the host's loader wraps a FLUX ControlNet with latent input."""
    return comfy.controlnet.ControlNet(
        network,
        compression_ratio=1,
        latent_format=comfy.latent_formats.Flux(),
        load_device=comfy.model_management.get_torch_device(),
        extra_conds=["y", "guidance"],
    )


def steered(net: Any, picture: Tensor, vae: Any) -> dict[str, Any]:
    """Return what a CONDITIONING holds beside its text where a net is shown a picture.

    Args:
        net: A CONTROL_NET; it stays as it is.
        picture: ``[1, H, W, 3]`` in [0, 1].
        vae: Which encodes it.
    """
    control = net.copy().set_cond_hint(picture.movedim(-1, 1), vae=vae)
    return {"control": control, "control_apply_to_uncond": False}


def _named_by_host(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Rename the norms' weights where newer hosts have another name for them."""
    if any(key.endswith("norm.scale") for key in network.state_dict()):
        return state
    return {key.replace("_norm.scale", "_norm.weight"): tensor for key, tensor in state.items()}


class DemoControlNetLoader(io.ComfyNode):
    """Load the demo's ControlNet."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="CLEARDemoControlNetLoader",
            display_name="Load Demo ControlNet",
            category="CLEAR demo",
            description="A tiny FLUX ControlNet that follows a blurred picture.",
            inputs=[
                io.String.Input(
                    "control_net_name",
                    default="demo",
                    tooltip="Has no effect; it is there because ComfyUI's loader has it.",
                )
            ],
            outputs=[io.ControlNet.Output()],
        )

    @classmethod
    def execute(cls, **_: str) -> io.NodeOutput:
        """Load the net."""
        return io.NodeOutput(load_control_net())
