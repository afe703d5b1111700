"""The host's FLUX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import comfy.ldm.flux.model

from ...families.flux import FLUX as DATA
from ..slicing import flux as slicing
from .cut import Cut
from .embedder import Embedder
from .family import HostBlocks, HostFamily

DOUBLE = HostBlocks(
    "double", "double_blocks", "double_block", slicing.DOUBLE, block="DoubleStreamBlock"
)
SINGLE = HostBlocks(
    "single", "single_blocks", "single_block", slicing.SINGLE, block="SingleStreamBlock"
)

GATED = ("mlp_silu_act", "yak_mlp")
"""Parameters of MLPs that multiply two halves: FLUX.2's, and Ovis-Image's on newer hosts."""

CUT = Cut(
    joined="final_layer",
    method="forward_orig",
    arguments={"img": 1},
    outputs={"pe_embedder": 2},
    places=("timestep_zero_index",),
)

NET_CUT = Cut(
    joined="",
    method="forward_orig",
    arguments={"img": 1, "controlnet_cond": 1},
    outputs={"pe_embedder": 2},
)


def dimensions(model: Any) -> Mapping[str, int]:
    """Return the arguments of `network.flux`."""
    params = model.params
    return dict(
        hidden=model.hidden_size,
        heads=model.num_heads,
        mlp=int(model.hidden_size * params.mlp_ratio),
        double=len(DOUBLE.of(model)),
        single=len(SINGLE.of(model)),
        latent_values=model.out_channels,
        input_values=model.in_channels,
        context=params.context_in_dim,
        gated=any(getattr(params, name, False) for name in GATED),
        sliceable=not getattr(params, "yak_mlp", False),
    )


FLUX = HostFamily(
    data=DATA,
    matches=lambda model: isinstance(model, comfy.ldm.flux.model.Flux),
    blocks=(DOUBLE, SINGLE),
    dimensions=dimensions,
    embedder=Embedder("pe_embedder", axes=(1, 2), process="process_img"),
    references="ref_latents",
    by_length=True,
    patch_path="patch_size",
    cut=CUT,
    net_cut=NET_CUT,
    runner="forward_orig",
    names_blocks_since=(0, 3, 75),
)
