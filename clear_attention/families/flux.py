"""FLUX.1: its kinds of blocks, the published checkpoints' names (those of diffusers)."""

from __future__ import annotations

from ..families import network
from .family import AttentionKind, Family
from .names import BlockKind, Layer, NameTable

NAMES = NameTable(
    family="flux",
    title="FLUX.1",
    kinds=(
        BlockKind(
            name="double",
            layers=(
                Layer("transformer_blocks.{}.attn.to_q", "double_blocks.{}.img_attn.qkv", 0),
                Layer("transformer_blocks.{}.attn.to_k", "double_blocks.{}.img_attn.qkv", 1),
                Layer("transformer_blocks.{}.attn.to_v", "double_blocks.{}.img_attn.qkv", 2),
                Layer("transformer_blocks.{}.attn.to_out.0", "double_blocks.{}.img_attn.proj", 0),
            ),
            pooling="transformer_blocks.{}.attn.processor.spatial_weight",
        ),
        BlockKind(
            name="single",
            # linear1 is q, k, v and the MLP's input; the MLP's rows, from the third part on, stay.
            layers=(
                Layer("single_transformer_blocks.{}.attn.to_q", "single_blocks.{}.linear1", 0),
                Layer("single_transformer_blocks.{}.attn.to_k", "single_blocks.{}.linear1", 1),
                Layer("single_transformer_blocks.{}.attn.to_v", "single_blocks.{}.linear1", 2),
            ),
            pooling="single_transformer_blocks.{}.attn.processor.spatial_weight",
        ),
    ),
)

FLUX = Family(
    key=NAMES.family,
    title="FLUX",
    kinds=(AttentionKind("double"), AttentionKind("single")),
    positions="rotary",
    network=network.flux,
    names=NAMES,
)
