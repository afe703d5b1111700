"""SD3's joint blocks with everything but the attention computed slice by slice.

The host's own halves of a block, before and after the attention, are called on slices.
"""

from __future__ import annotations

from typing import Any

from comfy.ldm.modules.diffusionmodules import mmdit
from torch import Tensor

from ...plan.slices import slices
from .linear import is_changed
from .sliced import BlockArgs, Sliced


def why_not(block: Any, args: BlockArgs) -> str | None:
    """Say why a block must be left to the host, or None."""
    if type(block) is not mmdit.JointBlock:
        return f"{type(block).__name__} is no block of SD3"
    if any(is_changed(module) for module in (block, block.x_block, block.context_block)):
        return "another node changed the block itself"
    return None


def joint(block: Any, args: BlockArgs, size: int) -> BlockArgs:
    """Compute a joint block, the image in place, ``size`` tokens at a time."""
    img, txt, vec = args["img"], args["txt"], args["vec"]
    image, text = block.x_block, block.context_block
    twice = bool(image.x_block_self_attn)
    txt_qkv, txt_rest = text.pre_attention(txt, vec)
    before = image.pre_attention_x if twice else image.pre_attention
    first, second, rest = _Whole(txt_qkv, img.shape[1]), None, ()
    for tokens in slices(img.shape[1], size):
        qkv, *more, intermediates = before(img[:, tokens], vec)
        first.put(qkv, txt.shape[1] + tokens.start)
        if more:
            second = second or _Whole(tuple(x[:, :0] for x in more[0]), img.shape[1])
            second.put(more[0], tokens.start)
        rest = intermediates[1:]  # all but the tokens themselves: shifts, scales and gates
    attended = first.attend(image.attn.num_heads, args)
    outputs = [attended[:, txt.shape[1] :]]
    if second is not None:
        outputs.append(second.attend(image.attn2.num_heads, args))
    after = image.post_attention_x if twice else image.post_attention
    for tokens in slices(img.shape[1], size):
        part = img[:, tokens]
        part.copy_(after(*(x[:, tokens].flatten(2) for x in outputs), part, *rest))
    if text.pre_only:
        return {"img": img, "txt": None}
    txt = text.post_attention(attended[:, : txt.shape[1]].flatten(2), *txt_rest)
    return {"img": img, "txt": txt}


class _Whole:
    """q, k and v of all tokens, ``[B, L, ...]``: the host gives v another shape than q and k."""

    def __init__(self, begin: tuple[Tensor, ...], more: int) -> None:
        """Make room for more tokens behind those that are there."""
        self.qkv = [x.new_empty((x.shape[0], x.shape[1] + more, *x.shape[2:])) for x in begin]
        self.put(begin, 0)

    def put(self, qkv: tuple[Tensor, ...], start: int) -> None:
        """Write some tokens."""
        for whole, some in zip(self.qkv, qkv, strict=True):
            whole[:, start : start + some.shape[1]] = some

    def attend(self, heads: int, args: BlockArgs) -> Tensor:
        """Return the attention's output ``[B, L, H, D]``, and free q, k and v."""
        q, k, v = self.qkv
        del self.qkv
        # Not the heads' outputs in a row, as blocks ask for: that is a copy of the whole.
        attended = mmdit.optimized_attention(
            q,
            k,
            v,
            heads=heads,
            skip_output_reshape=True,
            transformer_options=args["transformer_options"],
        )
        return attended.transpose(1, 2)


JOINT = Sliced(why_not, joint)
