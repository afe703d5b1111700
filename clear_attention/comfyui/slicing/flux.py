"""FLUX's blocks with everything but the attention computed slice by slice.

B pictures, L tokens of a stream, H heads of D channels, C = H D.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.ldm.flux.math as flux_math
import torch
from comfy.ldm.flux import layers
from torch import Tensor, nn

from ...plan.slices import slices
from .linear import hold, hold_all, is_changed
from .sliced import BlockArgs, Sliced

# Newer hosts let other nodes change q, k, v and the attention's output inside the block.
INSIDE_PATCHES = ("attn1_patch", "attn1_output_patch")

HALF_MAX = 65504


def why_not(block: nn.Module, args: BlockArgs) -> str | None:
    """Say why a block must be left to the host, or None."""
    if type(block) not in (layers.DoubleStreamBlock, layers.SingleStreamBlock):
        return f"{type(block).__name__} is no block of FLUX"
    if is_changed(block):
        return "another node changed the block itself"
    if getattr(block, "yak_mlp", False) or getattr(block, "flipped_img_txt", False):
        return "its MLP or its order of tokens is not that of FLUX"
    if any(name in args["transformer_options"].get("patches", {}) for name in INSIDE_PATCHES):
        return "another node works inside the block"
    tokens = args["img"].shape[1] + (args["txt"].shape[1] if "txt" in args else 0)
    pe = args["pe"]
    if pe is not None and pe.shape[2] != tokens:
        return f"its positions are those of {pe.shape[2]} tokens, not of {tokens}"
    if not _is_modulated_as_one(args["vec"], len(args["img"])):
        return "its references have a timestep of their own"
    return None


def _is_modulated_as_one(vec: Any, pictures: int) -> bool:
    """Tell whether all tokens of a picture share one shift, scale and gate."""
    if isinstance(vec, Tensor):
        return vec.shape[0] == pictures and (vec.ndim == 2 or vec.shape[1] == 1)
    if isinstance(vec, layers.ModulationOut):
        return _is_modulated_as_one(vec.shift, pictures)
    return all(_is_modulated_as_one(one, pictures) for one in vec if one is not None)


def double(block: Any, args: BlockArgs, size: int) -> BlockArgs:
    """Compute a double block in place, ``size`` tokens at a time."""
    img, txt, vec = args["img"], args["txt"], args["vec"]
    # Hosts before FLUX.2 have no such attribute: each block makes its own modulation.
    own = getattr(block, "modulation", True)
    img_mods, txt_mods = (block.img_mod(vec), block.txt_mod(vec)) if own else vec
    text = txt.shape[1]
    streams = (_Stream(block, "txt", txt, txt_mods), _Stream(block, "img", img, img_mods))
    joint = _Joint(img, text + img.shape[1], block.num_heads, args["pe"])
    for stream, start in zip(streams, (0, text), strict=True):
        joint.fill(stream.x, start, size, stream.queries(), stream.part("attn").norm)
    attended = joint.attend(args)
    for stream, start in zip(streams, (0, text), strict=True):
        stream.finish(attended[:, start : start + stream.x.shape[1]], size)
    _make_finite(txt)
    return {"img": img, "txt": txt}


def single(block: Any, args: BlockArgs, size: int) -> BlockArgs:
    """Compute a single block in place, ``size`` tokens at a time."""
    x, vec, width = args["img"], args["vec"], 3 * block.hidden_size
    mod = block.modulation(vec)[0] if block.modulation else vec
    # Its outputs are q, k, v, then the MLP's: the latter wait until the attention is done.
    linear1, linear2 = hold(block.linear1, x), hold(block.linear2, x)

    def queries(x: Tensor) -> Tensor:
        return linear1(_modulate(block.pre_norm, mod, x), stop=width)

    joint = _Joint(x, x.shape[1], block.num_heads, args["pe"])
    joint.fill(x, 0, size, queries, block.norm)
    attended = joint.attend(args)
    for tokens in slices(x.shape[1], size):
        part = x[:, tokens]
        mlp = block.mlp_act(linear1(_modulate(block.pre_norm, mod, part), start=width))
        part += layers.apply_mod(
            linear2(torch.cat((attended[:, tokens].flatten(2), mlp), 2)), mod.gate
        )
        _make_finite(part)
    return {"img": x}


@dataclass(frozen=True, eq=False)
class _Stream:
    """The image's or the text's side of a double block.

    Attributes:
        block: The host's.
        name: "img" or "txt".
        x: Its tokens ``[B, L, C]``, changed in place.
        mods: What modulates the attention and the MLP.
    """

    block: Any
    name: str
    x: Tensor
    mods: tuple[Any, Any]

    def part(self, name: str) -> Any:
        """Return a module of this side, such as "norm1"."""
        return getattr(self.block, f"{self.name}_{name}")

    def queries(self) -> Callable[[Tensor], Tensor]:
        """Return what makes q, k and v of some tokens: ``[B, L, C]`` to ``[B, L, 3 C]``."""
        qkv, norm = hold(self.part("attn").qkv, self.x), self.part("norm1")
        return lambda x: qkv(_modulate(norm, self.mods[0], x))

    def finish(self, attended: Tensor, size: int) -> None:
        """Add the attention's output ``[B, L, H, D]``, then the MLP."""
        proj, mlp = hold(self.part("attn").proj, self.x), hold_all(self.part("mlp"), self.x)
        for tokens in slices(self.x.shape[1], size):
            part = self.x[:, tokens]
            part += layers.apply_mod(proj(attended[:, tokens].flatten(2)), self.mods[0].gate)
            modulated = _modulate(self.part("norm2"), self.mods[1], part)
            part += layers.apply_mod(mlp(modulated), self.mods[1].gate)


class _Joint:
    """q, k and v of all tokens, ``[B, H, L, D]``, in which the attention needs them whole."""

    def __init__(self, like: Tensor, tokens: int, heads: int, pe: Tensor | None) -> None:
        shape = (len(like), heads, tokens, like.shape[2] // heads)
        self.q, self.k, self.v = (like.new_empty(shape) for _ in range(3))
        self.pe = pe

    def fill(
        self,
        x: Tensor,
        start: int,
        size: int,
        queries: Callable[[Tensor], Tensor],
        norm: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]],
    ) -> None:
        """Compute the tokens of ``x``, which are those from ``start`` on of all."""
        for tokens in slices(x.shape[1], size):
            place = slice(start + tokens.start, start + tokens.stop)
            q, k, v = (
                queries(x[:, tokens]).unflatten(2, (3, self.q.shape[1], -1)).permute(2, 0, 3, 1, 4)
            )
            q, k = norm(q, k, v)
            if self.pe is not None:
                q, k = flux_math.apply_rope(q, k, self.pe[:, :, place])
            for whole, some in ((self.q, q), (self.k, k), (self.v, v)):
                whole[:, :, place] = some

    def attend(self, args: BlockArgs) -> Tensor:
        """Return the attention's output ``[B, L, H, D]``, and free q, k and v."""
        q, k, v = self.q, self.k, self.v
        del self.q, self.k, self.v
        # Not the heads' outputs in a row, as blocks ask for: that is a copy of the whole.
        attended = flux_math.optimized_attention(
            q,
            k,
            v,
            q.shape[1],
            mask=args.get("attn_mask"),
            skip_reshape=True,
            skip_output_reshape=True,
            transformer_options=args["transformer_options"],
        )
        return attended.transpose(1, 2)


def _modulate(norm: nn.Module, mod: Any, x: Tensor) -> Tensor:
    return layers.apply_mod(norm(x), 1 + mod.scale, mod.shift)


def _make_finite(x: Tensor) -> None:
    """Do what the host does against overflow in half precision, in place."""
    if x.dtype == torch.float16:
        torch.nan_to_num_(x, nan=0.0, posinf=HALF_MAX, neginf=-HALF_MAX)


DOUBLE, SINGLE = Sliced(why_not, double), Sliced(why_not, single)
