"""Hunyuan's single blocks, which are FLUX's, computed slice by slice."""

from __future__ import annotations

from torch import nn

from ..slicing import flux
from .sliced import BlockArgs, Sliced


def why_not(block: nn.Module, args: BlockArgs) -> str | None:
    """Say why a block must be left to the host, or None."""
    if args.get("modulation_dims") is not None:
        return "its frames have timesteps of their own"
    return flux.why_not(block, args)


def single(block: nn.Module, args: BlockArgs, size: int) -> BlockArgs:
    """Compute a single block in place, ``size`` tokens at a time."""
    return flux.single(block, {**args, "attn_mask": args["attention_mask"]}, size)


SINGLE = Sliced(why_not, single)
