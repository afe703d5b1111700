"""The demo's teacher: a small FLUX, trained from nothing on a handful of photographs."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

from clear_attention.distill.data.shards import Samples, ShardFolder

from ..codec.latents import encode
from ..nodes import text
from ..nodes.sizes import TRAINED
from .photographs import PHOTOGRAPHS, captions, crops

# Edge in pixels -> crops of each photograph. How often a size is seen follows from their number.
CROPS = {256: 384, 384: 64, 512: 8}
HELD_OUT_CROPS = {256: 12, 384: 4, 512: 2}
SHARD = 64


def write_data(folder: Path, counts: Mapping[int, int], seed: int) -> ShardFolder:
    """Write crops of all photographs as shards; go on where an earlier call was interrupted."""
    made_with = {"crops": {str(edge): count for edge, count in counts.items()}, "seed": seed}
    shards = ShardFolder(folder, made_with)
    jobs = [
        (edge, photograph, first)
        for edge, count in counts.items()
        for photograph in PHOTOGRAPHS
        for first in range(0, count, SHARD)
    ]
    for edge, photograph, first in jobs[len(shards.shards) :]:
        draw = random.Random(f"{seed} {edge} {photograph.file} {first}")
        count = min(SHARD, counts[edge] - first)
        pictures = torch.stack(list(islice(crops(photograph.load(), edge, draw), count)))
        words = [text.words_of(line) for line in islice(captions(photograph, draw), count)]
        shards.add(
            Samples(
                latent=encode(pictures).half(),
                context=torch.cat([text.embed(line) for line in words]),
                pooled=torch.cat([text.pool(line) for line in words]),
                seed=torch.arange(first, first + count),
            )
        )
    return shards


def initial_weights(seed: int = 0) -> dict[str, Tensor]:
    """Draw the weights from which training starts, float32, by FLUX's own names."""
    import comfy.ldm.flux.model
    import comfy.ops

    from ..nodes.network import required_by_host

    network = comfy.ldm.flux.model.Flux(
        **TRAINED,
        **required_by_host(),
        dtype=torch.float32,
        operations=comfy.ops.disable_weight_init,
    )
    draw = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        with torch.no_grad():
            parameter.copy_(_initial(name, parameter, draw))
    return dict(network.state_dict())


def _initial(name: str, parameter: nn.Parameter, draw: torch.Generator) -> Tensor:
    if parameter.ndim == 1:
        return torch.ones_like(parameter) if "norm" in name else torch.zeros_like(parameter)
    # Blocks start as the identity (DiT, section 3.2): their gates and the last layer give nothing.
    if any(part in name for part in ("mod.lin", "modulation", "final_layer.linear")):
        return torch.zeros_like(parameter)
    return torch.randn(parameter.shape, generator=draw) / math.sqrt(parameter.shape[1])
