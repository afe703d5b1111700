"""The host's Wan 2.1 and 2.2, as far as they paint single pictures."""

from __future__ import annotations

from torch import nn

from ...families.wan import WAN as DATA
from .embedder import Embedder
from .family import HostBlocks, HostFamily
from .layers import MODULATION, Layers

CLASS = ("comfy.ldm.wan.model", "WanModel")
FURTHER = "further frames lie beside the picture, and CLEAR's window has no axis of time so far"


def _matches(model: nn.Module) -> bool:
    """Return whether a model is Wan itself: what derives from it has tokens of its own."""
    return (type(model).__module__, type(model).__name__) == CLASS


WAN = HostFamily(
    data=DATA,
    matches=_matches,
    blocks=(
        HostBlocks(
            "self", "blocks", block="WanAttentionBlock", feed_forward=("ffn",), calls=("self",)
        ),
    ),
    embedder=Embedder("rope_embedder", axes=(1, 2), process="rope_encode"),
    declines=dict.fromkeys(("reference_latent", "context_latents", "time_dim_concat"), FURTHER),
    layers=Layers(
        once=(*MODULATION, "k_img", "v_img"),
        text=("text_embedding", "cross_attn.k.", "cross_attn.v."),
        image=("patch_embedding", "head.head"),
    ),
)
