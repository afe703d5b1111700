"""Published files by their names and shapes, written down once more, with as few blocks as loads.

Rows of a wide weight are one row again and again, so that a file of full width takes no memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

WIDE = 1_000_000
"""Numbers of a weight from which on its rows are alike."""
Shapes = dict[str, tuple[int, ...]]


def linear(name: str, rows: int, columns: int, *, biased: bool = True) -> Shapes:
    """Return a linear layer."""
    bias: Shapes = {f"{name}.bias": (rows,)} if biased else {}
    return {f"{name}.weight": (rows, columns), **bias}


def z_image() -> Shapes:
    """Return a Z-Image: the host takes no other width, and two refiners of each kind."""
    width, text, head = 3840, 2560, 128
    shapes: Shapes = {
        "cap_embedder.0.weight": (text,),
        "cap_pad_token": (1, width),
        "x_pad_token": (1, width),
        **linear("cap_embedder.1", width, text),
        **linear("x_embedder", width, 64),
        **linear("t_embedder.mlp.0", 1024, 256),
        **linear("t_embedder.mlp.2", 256, 1024),
        **linear("final_layer.linear", 64, width),
        **linear("final_layer.adaLN_modulation.1", width, 256),
    }
    refiners = [f"{kind}_refiner.{index}" for kind in ("context", "noise") for index in (0, 1)]
    for block in (*refiners, "layers.0"):
        norms = ("attention_norm1", "attention_norm2", "ffn_norm1", "ffn_norm2")
        shapes |= {f"{block}.{norm}.weight": (width,) for norm in norms}
        shapes |= {f"{block}.attention.{x}_norm.weight": (head,) for x in "qk"}
        shapes |= linear(f"{block}.attention.qkv", 3 * width, width, biased=False)
        shapes |= linear(f"{block}.attention.out", width, width, biased=False)
        for layer, (rows, columns) in {"w1": (10240, width), "w2": (width, 10240)}.items():
            shapes |= linear(f"{block}.feed_forward.{layer}", rows, columns, biased=False)
        shapes |= linear(f"{block}.feed_forward.w3", 10240, width, biased=False)
        if not block.startswith("context"):
            shapes |= linear(f"{block}.adaLN_modulation.0", 4 * width, 256)
    return shapes


def qwen_image() -> Shapes:
    """Return a Qwen-Image: the host takes no other width."""
    width, text, block = 3072, 3584, "transformer_blocks.0"
    shapes: Shapes = {
        "txt_norm.weight": (text,),
        **linear("img_in", width, 64),
        **linear("txt_in", width, text),
        **linear("time_text_embed.timestep_embedder.linear_1", width, 256),
        **linear("time_text_embed.timestep_embedder.linear_2", width, width),
        **linear("norm_out.linear", 2 * width, width),
        **linear("proj_out", 64, width),
    }
    for layer in ("to_q", "to_k", "to_v", "to_out.0", "to_add_out"):
        shapes |= linear(f"{block}.attn.{layer}", width, width)
    for x in "qkv":
        shapes |= linear(f"{block}.attn.add_{x}_proj", width, width)
    for norm in ("norm_q", "norm_k", "norm_added_q", "norm_added_k"):
        shapes[f"{block}.attn.{norm}.weight"] = (128,)
    for stream in ("img", "txt"):
        shapes |= linear(f"{block}.{stream}_mod.1", 6 * width, width)
        shapes |= linear(f"{block}.{stream}_mlp.net.0.proj", 4 * width, width)
        shapes |= linear(f"{block}.{stream}_mlp.net.2", width, 4 * width)
    return shapes


def flux2() -> Shapes:
    """Return a narrow FLUX.2."""
    width, text = 256, 48
    layers = {
        **{"img_in": (width, 128), "txt_in": (width, text)},
        **{f"{x}_in.in_layer": (width, 256) for x in ("time", "guidance")},
        **{f"{x}_in.out_layer": (width, width) for x in ("time", "guidance")},
        **{f"double_stream_modulation_{x}.lin": (6 * width, width) for x in ("img", "txt")},
        "single_stream_modulation.lin": (3 * width, width),
        "final_layer.linear": (128, width),
        "final_layer.adaLN_modulation.1": (2 * width, width),
        "single_blocks.0.linear1": (9 * width, width),
        "single_blocks.0.linear2": (width, 4 * width),
    }
    scales = ["single_blocks.0.norm"]
    for stream in ("img", "txt"):
        block = f"double_blocks.0.{stream}"
        layers |= {f"{block}_attn.qkv": (3 * width, width), f"{block}_attn.proj": (width, width)}
        layers |= {f"{block}_mlp.0": (6 * width, width), f"{block}_mlp.2": (width, 3 * width)}
        scales.append(f"{block}_attn.norm")
    return {f"{name}.weight": shape for name, shape in layers.items()} | {
        f"{scale}.{x}_norm.scale": (128,) for scale in scales for x in ("query", "key")
    }


def tensors(shapes: Shapes) -> dict[str, Tensor]:
    """Fill a file."""
    return dict(_tensors(shapes))


def _tensors(shapes: Shapes) -> Iterator[tuple[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    for name, shape in shapes.items():
        rows = shape if math.prod(shape) < WIDE else shape[-1:]
        values = torch.randn(rows, generator=generator) / shape[-1] ** 0.5
        if len(shape) == 1:
            values = values + float("norm" in name)
        yield name, values.expand(shape)  # in float32, as the host has it on a CPU
