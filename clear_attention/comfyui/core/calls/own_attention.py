"""The attention that a checkpoint brings for its own layers, which newest hosts prefer.

The host leaves it out as soon as anything is in the slot for overrides, and does not tell the
override of it. So calls that the override declines are handed to it here.
"""

from __future__ import annotations

from typing import Any

import comfy.ldm.modules.attention
from torch import nn

from ...families import HostFamily, plain_module
from ..report import RunReport
from ..settings import Block
from .model_call import Override

MIXED = (
    "own attention of the checkpoint is left out where a call stays dense in blocks whose layers "
    "have different ones"
)


def own_attentions(
    family: HostFamily, network: nn.Module, report: RunReport | None
) -> dict[Block, Override]:
    """Return the attention of each block that has one of its own; empty on hosts without.

    Args:
        family: Of the network.
        network: A model, compiled or not.
        report: Is given a note about blocks whose layers do not agree, or None.
    """
    if not hasattr(comfy.ldm.modules.attention, "ComfyAttention"):
        return {}
    found: dict[Block, Override] = {}
    for blocks in family.blocks:
        inside = [kind.name for kind in family.data.kinds if kind.inside == blocks.kind]
        for index, block in enumerate(blocks.of(plain_module(network))):
            functions = _functions(block)
            if len(functions) > 1 and report is not None:
                report.note(MIXED)
            (function,) = functions if len(functions) == 1 else (None,)
            if function is not None:
                found |= {(kind, index): function for kind in (blocks.kind, *inside)}
    return found


def _functions(block: nn.Module) -> set[Any]:
    """Return the attentions of a block's layers, None among them for the host's default."""
    brought = (getattr(layer, "comfy_attention", None) for layer in block.modules())
    return {getattr(one, "function", None) for one in brought if one is not None}
