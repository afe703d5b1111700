"""The demo's weights, set by hand instead of trained: a FLUX network that paints colour fields.

A hidden vector has three parts: ``LATENT`` carries the noisy latent, ``PAINT`` collects the
picture, ``STILL`` holds a constant, so that layer norm is nearly linear and tells text from image.

Double blocks paint. All image queries are one vector; rotary positions turn it, so that each
word's key wins in its own smooth areas, and the word's colour goes there. Single blocks blur: keys
equal queries, so that a token sees its neighbours best, and the text a little. The last layer
predicts the velocity ``SPEED * (latent - paint)``, which carries any noise to the painting.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .sizes import (
    AXES,
    DOUBLE_BLOCKS,
    HEAD_DIM,
    HIDDEN,
    LATENT_CHANNELS,
    MLP_RATIO,
    POOLED_DIM,
    SINGLE_BLOCKS,
    TEXT_DIM,
    TOKEN_VALUES,
)
from .text import PADDING, word_vector

HEADS = HIDDEN // HEAD_DIM
LATENT, PAINT, STILL = slice(0, 64), slice(64, 128), slice(128, 256)
STILL_SIZE = 2.0
NORM = math.sqrt((64 * 1.0 + 64 * 1.0 + 128 * STILL_SIZE**2) / HIDDEN)  # what layer norm divides by

SPEED = 5.5
CONTRAST = 9.0  # of the logits of words over the picture
BLUR = 0.35  # share of the blurred painting that each single block adds
NOISE = 0.001  # random part of every weight: none is zero

Weights = dict[str, Tensor]


def paint_weights(seed: int = 0) -> Weights:
    """Return the weights in FLUX's own names, float32."""
    draw = torch.Generator().manual_seed(seed)
    weights = {
        f"{layer}.weight": random(shape, draw) * NOISE / math.sqrt(shape[1])
        for layer, shape in layers().items()
    }
    weights |= {f"{layer}.bias": torch.zeros(shape[0]) for layer, shape in layers().items()}
    weights |= {f"{norm}.scale": torch.ones(HEAD_DIM) for norm in norms()}
    still = STILL_SIZE * torch.tensor([1.0, -1.0]).repeat(64)
    weights["img_in.weight"][LATENT] += torch.eye(TOKEN_VALUES)
    weights["img_in.bias"][STILL] += still
    weights["txt_in.weight"][LATENT] += torch.eye(TEXT_DIM)
    weights["txt_in.bias"][STILL] -= still
    for block in range(DOUBLE_BLOCKS):
        set_painting(weights, f"double_blocks.{block}", draw)
    for block in range(SINGLE_BLOCKS):
        set_blurring(weights, f"single_blocks.{block}", still)
    rows = torch.arange(TOKEN_VALUES)
    weights["final_layer.linear.weight"][rows, rows + LATENT.start] += SPEED * NORM
    weights["final_layer.linear.weight"][rows, rows + PAINT.start] -= SPEED * NORM
    return weights


def set_painting(weights: Weights, block: str, draw: torch.Generator) -> None:
    """Let a double block give each image token the colours of the words that suit its place."""
    qkv, image_bias = weights[f"{block}.txt_attn.qkv.weight"], weights[f"{block}.img_attn.qkv.bias"]
    padding = word_vector(PADDING, TEXT_DIM)
    for head in range(HEADS):
        query, key, value = (slice(at, at + HEAD_DIM) for at in rows_of(head))
        image_bias[query] += torch.where(on_axis(0), 1.0, random((HEAD_DIM,), draw))
        # Seen from an image token, others are too faint to matter, and so is most of the padding.
        image_bias[key] += torch.where(on_axis(0), -1.0, 0.0)
        qkv[key, LATENT] += random((HEAD_DIM, TEXT_DIM), draw) * NORM / math.sqrt(TEXT_DIM)
        qkv[key, LATENT] -= torch.where(on_axis(0), 1.0, 0.0)[:, None] * padding * NORM / TEXT_DIM
        colours = random((LATENT_CHANNELS, TEXT_DIM), draw) * channel_strength()[:, None]
        qkv[value, LATENT][:TOKEN_VALUES] += (
            colours.repeat_interleave(4, dim=0) * NORM / math.sqrt(TEXT_DIM)
        )
        out = weights[f"{block}.img_attn.proj.weight"][PAINT]
        out[:, head * HEAD_DIM : head * HEAD_DIM + TOKEN_VALUES] += torch.eye(TOKEN_VALUES)
    weights[f"{block}.img_attn.norm.query_norm.scale"] = torch.where(
        on_axis(0), 3.5, CONTRAST * band(first=3, last=8)
    )
    weights[f"{block}.img_mod.lin.bias"][2 * HIDDEN : 3 * HIDDEN] += 1.0  # gate of the attention


def set_blurring(weights: Weights, block: str, still: Tensor) -> None:
    """Let a single block add to each image token the painting of its surroundings."""
    weight, bias = weights[f"{block}.linear1.weight"], weights[f"{block}.linear1.bias"]
    is_image = still / (STILL_SIZE**2 * 128) * NORM
    for head in range(HEADS):
        query, key, value = (slice(at, at + HEAD_DIM) for at in rows_of(head))
        bias[query] += 1.0
        bias[key] += torch.where(on_axis(0), 0.0, 1.0)
        weight[key, STILL] += torch.where(on_axis(0), 1.0, 0.0)[:, None] * is_image
        weight[value, PAINT][:TOKEN_VALUES] += torch.eye(TOKEN_VALUES) * NORM
        weight[value, STILL][:TOKEN_VALUES] -= NORM / 128  # undoes layer norm's shift of the mean
        out = weights[f"{block}.linear2.weight"][PAINT]
        out[:, head * HEAD_DIM : head * HEAD_DIM + TOKEN_VALUES] += torch.eye(TOKEN_VALUES) / HEADS
    weights[f"{block}.norm.query_norm.scale"] = torch.where(
        on_axis(0), 4.0, 6.0 * band(first=2, last=9)
    )
    weights[f"{block}.modulation.lin.bias"][2 * HIDDEN :] += BLUR


def rows_of(head: int) -> tuple[int, int, int]:
    """Return where a head's query, key and value rows begin in a fused projection."""
    first = head * HEAD_DIM
    return first, HIDDEN + first, 2 * HIDDEN + first


def on_axis(axis: int) -> Tensor:
    """Mark the dimensions of a head that turn with one axis of the position: ``[HEAD_DIM]``."""
    return torch.repeat_interleave(torch.tensor(AXES)) == axis


def band(first: int, last: int) -> Tensor:
    """Mark the rotary frequencies ``10000 ** (-j / 28)``, first <= j <= last: ``[HEAD_DIM]``."""
    pairs = torch.cat([torch.arange(size // 2) for size in AXES]).repeat_interleave(2)
    return ((pairs >= first) & (pairs <= last)).float()


def channel_strength() -> Tensor:
    """Return how strongly words colour the 16 latent channels: mean colours, hardly any texture."""
    return torch.tensor([0.1, 0.18, 0.18] + [0.0] * (LATENT_CHANNELS - 3))


def random(shape: tuple[int, ...], draw: torch.Generator) -> Tensor:
    """Draw normally distributed numbers."""
    return torch.randn(shape, generator=draw)


def layers() -> dict[str, tuple[int, int]]:
    """List the linear layers with the shapes of their weights."""
    found = {
        "img_in": (HIDDEN, TOKEN_VALUES),
        "txt_in": (HIDDEN, TEXT_DIM),
        "final_layer.linear": (TOKEN_VALUES, HIDDEN),
        "final_layer.adaLN_modulation.1": (2 * HIDDEN, HIDDEN),
    }
    for name, width in (("time_in", 256), ("guidance_in", 256), ("vector_in", POOLED_DIM)):
        found |= {f"{name}.in_layer": (HIDDEN, width), f"{name}.out_layer": (HIDDEN, HIDDEN)}
    for at in streams():
        found |= {
            f"{at}_mod.lin": (6 * HIDDEN, HIDDEN),
            f"{at}_attn.qkv": (3 * HIDDEN, HIDDEN),
            f"{at}_attn.proj": (HIDDEN, HIDDEN),
            f"{at}_mlp.0": (MLP_RATIO * HIDDEN, HIDDEN),
            f"{at}_mlp.2": (HIDDEN, MLP_RATIO * HIDDEN),
        }
    for block in range(SINGLE_BLOCKS):
        found |= {
            f"single_blocks.{block}.modulation.lin": (3 * HIDDEN, HIDDEN),
            f"single_blocks.{block}.linear1": ((3 + MLP_RATIO) * HIDDEN, HIDDEN),
            f"single_blocks.{block}.linear2": (HIDDEN, (1 + MLP_RATIO) * HIDDEN),
        }
    return found


def norms() -> list[str]:
    """List the norms of queries and keys."""
    attentions = [f"{at}_attn" for at in streams()]
    attentions += [f"single_blocks.{block}" for block in range(SINGLE_BLOCKS)]
    return [f"{at}.norm.{side}_norm" for at in attentions for side in ("query", "key")]


def streams() -> list[str]:
    """List the streams of the double blocks."""
    return [
        f"double_blocks.{block}.{side}" for block in range(DOUBLE_BLOCKS) for side in ("img", "txt")
    ]
