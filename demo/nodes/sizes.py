"""How large the demo model is: FLUX.1's own geometry, made narrow and shallow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

LATENT_CHANNELS = 16
PATCH = 2
HEAD_DIM = 128
AXES = (16, 56, 56)  # rotary dimensions of one head for the index, row and column of a token
TEXT_DIM = 64
POOLED_DIM = 64

TRAINED = {  # what the demo's teacher is made with
    "image_model": "flux",
    "in_channels": LATENT_CHANNELS,
    "out_channels": LATENT_CHANNELS,
    "patch_size": PATCH,
    "hidden_size": 256,
    "num_heads": 2,
    "depth": 1,
    "depth_single_blocks": 4,
    "mlp_ratio": 2.0,
    "context_in_dim": TEXT_DIM,
    "vec_in_dim": POOLED_DIM,
    "guidance_embed": True,
    "qkv_bias": True,
    "axes_dim": list(AXES),
    "theta": 10000,
}


def config_of(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read from the weights, in FLUX's own names, how to build the network that they fit into."""
    hidden = state["img_in.weight"].shape[0]
    return {
        **TRAINED,
        "hidden_size": hidden,
        "num_heads": hidden // HEAD_DIM,
        "depth": count(state, "double_blocks"),
        "depth_single_blocks": count(state, "single_blocks"),
        "mlp_ratio": state["double_blocks.0.img_mlp.0.weight"].shape[0] / hidden,
        "context_in_dim": state["txt_in.weight"].shape[1],
        "vec_in_dim": state["vector_in.in_layer.weight"].shape[1],
        "guidance_embed": "guidance_in.in_layer.weight" in state,
    }


def count(state: Mapping[str, Tensor], blocks: str) -> int:
    """Count the blocks of one kind."""
    return len({key.split(".")[1] for key in state if key.startswith(f"{blocks}.")})
