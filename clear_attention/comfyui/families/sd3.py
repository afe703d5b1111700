"""The host's SD3 and SD3.5."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import comfy.ldm.modules.diffusionmodules.mmdit

from ...families.sd3 import SD3 as DATA
from ..slicing import sd3 as slicing
from .cut import Cut
from .family import HostBlocks, HostFamily


def _attends_twice(block: Any) -> bool:
    """Return whether a joint block has the second attention, as SD3.5 medium's first ones do."""
    return bool(getattr(getattr(block, "x_block", None), "x_block_self_attn", False))


JOINT = HostBlocks(
    "joint", "joint_blocks", "double_block", slicing.JOINT, _attends_twice, block="JointBlock"
)


def _dimensions(model: Any) -> Mapping[str, int]:
    """Return the arguments of `network.sd3`.

    Raises:
        ValueError: Another node has replaced all of the blocks.
    """
    hidden, blocks = model.hidden_size, JOINT.of(model)
    own: Any = next((block for block in blocks if JOINT.is_own(block)), None)
    if own is None:
        raise ValueError(
            "The dimensions of an SD3 model must be read from its blocks, got "
            f"{type(blocks[0]).__name__} in their place. Put the CLEAR node in front of the node "
            "that replaces them."
        )
    return dict(
        hidden=hidden,
        heads=model.num_heads,
        mlp=own.x_block.mlp.fc1.out_features,
        joint=len(blocks),
        image=sum(map(_attends_twice, blocks)),
        latent_values=model.in_channels * model.patch_size**2,
        context=getattr(model.context_embedder, "in_features", hidden),
    )


SD3 = HostFamily(
    data=DATA,
    matches=lambda model: isinstance(model, comfy.ldm.modules.diffusionmodules.mmdit.MMDiT),
    blocks=(JOINT,),
    dimensions=_dimensions,
    by_length=True,
    patch_path="patch_size",
    cut=Cut(joined="final_layer", method="forward_core_with_concat", arguments={"x": 1}),
    runner="forward_core_with_concat",
)
