"""Which ControlNets have attention that CLEAR can reach, and why the others are refused."""

from __future__ import annotations

from typing import Any

from comfy.controlnet import ControlLora, T2IAdapter
from torch import nn

from ..families import HostFamily, family_of, plain_module
from ..families.nets import net_of

UNET = "input_blocks"  # what every UNet has
KNOWN = "FLUX, Chroma, SD3 and Qwen-Image"


def family_of_net(network: nn.Module) -> HostFamily | None:
    """Return the family of a ControlNet: its model's, whose class most derive from, or its own."""
    return net_of(network) or family_of(network)


def require_supported(control_net: Any) -> None:
    """Raise a ValueError with one sentence, and what to do, for what cannot be made local."""
    objection = why_not(control_net)
    if objection is not None:
        raise ValueError(f"{objection} Remove CLEAR ControlNet from it.")


def why_not(control_net: Any) -> str | None:
    """Return why CLEAR cannot reach the attention of a CONTROL_NET, or None if it can."""
    if isinstance(control_net, T2IAdapter):
        return "A T2I adapter has no attention that could be made local."
    if isinstance(control_net, ControlLora):
        return "A Control-LoRA is for UNet models (SD1.5, SDXL), which CLEAR does not know."
    network = plain_module(getattr(control_net, "control_model", None))  # type: ignore[arg-type]
    kind = type(network).__name__
    if hasattr(network, UNET):
        return "This ControlNet is for UNet models (SD1.5, SDXL), which CLEAR does not know."
    if kind == "ControlNetEmbedder":
        return (
            "ControlNets for SD3.5 Large (8B) keep full attention: ComfyUI gives their blocks no "
            "options to set another one with."
        )
    if family_of_net(network) is None:
        return f"CLEAR knows ControlNets of {KNOWN}, got {kind}."
    return None
