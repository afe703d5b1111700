"""The demo's ControlNet: taught to follow a blurred picture.

The demo model stays as it is. The net starts as a copy of the model's first block and learns what
to add behind it, so that the pictures that come out have the colours of the one that it is shown.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clear_attention.comfyui.distill.denoiser import HostDenoiser
from clear_attention.distill.data.tensor_files import write_tensors

from ..codec.latents import encode
from ..nodes import text
from ..nodes.checkpoint import MODELS
from ..nodes.control import FILE, build_network, own_weights
from ..nodes.network import load_model
from ..students import GUIDANCE, TRAINED_PX
from .photographs import PHOTOGRAPHS, captions, squares

STEPS = 700
RATE, WARM_UP, COSINE_TO = 1e-3, 20, 0.02
NEW_RATE = 4e-3  # of the layers that start from nothing
BATCHES = {TRAINED_PX: 3, 2 * TRAINED_PX: 1}  # edge in pixels -> pictures in a batch
SQUARES = 40  # of each photograph and size
BLURS = (4, 6, 8, 12, 16)  # pixels of the picture per pixel of what the net is shown
MEAN = 0.6  # of the logit of the noise level: noisy, as that is where a picture's layout is made
NEW = ("pos_embed_input.", "controlnet_blocks.")
SEED = 11


@dataclass(frozen=True, eq=False)
class Shown:
    """Pictures of one size with their captions.

    Attributes:
        pictures: ``[B, H, W, 3]`` in [0, 1].
        context: ``[B, T, D]``.
        pooled: ``[B, P]``.
    """

    pictures: Tensor
    context: Tensor
    pooled: Tensor


def train(observe: Callable[[int, float], None]) -> None:
    """Train the net and write it in bfloat16.

    Args:
        observe: Told after each update how many were done, and its flow-matching error.
    """
    torch.manual_seed(SEED)
    denoiser = HostDenoiser(load_model())
    denoiser.network.float().requires_grad_(False)
    net = build_network()
    weights = own_weights(net)
    for weight in weights.values():
        weight.requires_grad_(True)
    optimiser = torch.optim.AdamW(groups(weights), betas=(0.9, 0.98), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
    data = {edge: examples(edge) for edge in BATCHES}
    draw = random.Random(SEED)
    for step in range(STEPS):
        optimiser.zero_grad(set_to_none=True)
        with denoiser.training():
            loss = flow_matching(denoiser, net, batch(data, draw), draw.choice(BLURS))
            loss.backward()
        nn.utils.clip_grad_norm_(weights.values(), 1.0)
        optimiser.step()
        schedule.step()
        observe(step + 1, float(loss.detach()))
    tensors = {name: weight.detach().bfloat16() for name, weight in weights.items()}
    write_tensors(MODELS / FILE, tensors, format="pt")


def groups(weights: Mapping[str, nn.Parameter]) -> list[dict[str, Any]]:
    """Sort weights by the size of their steps."""
    new = [weight for name, weight in weights.items() if name.startswith(NEW)]
    copied = [weight for name, weight in weights.items() if not name.startswith(NEW)]
    return [{"params": new, "lr": NEW_RATE}, {"params": copied, "lr": RATE}]


def rate(step: int) -> float:
    """Return the share of the step size: a warm-up, then a cosine."""
    cosine = (1 + math.cos(math.pi * min(1.0, step / STEPS))) / 2
    return min(1.0, (step + 1) / WARM_UP) * (COSINE_TO + (1 - COSINE_TO) * cosine)


def examples(edge: int) -> list[Shown]:
    """Cut squares of all photographs, one to an example."""
    found: list[Shown] = []
    for photograph in PHOTOGRAPHS:
        draw = random.Random(f"control {edge} {photograph.file}")
        cut = islice(squares(photograph.load(edge), edge, draw), SQUARES)
        for picture, caption in zip(cut, captions(photograph, draw), strict=False):
            words = text.words_of(caption)
            found.append(Shown(picture[None], text.embed(words), text.pool(words)))
    return found


def batch(data: dict[int, list[Shown]], draw: random.Random) -> Shown:
    """Draw a batch of one size."""
    edge = draw.choice(list(data))
    chosen = draw.sample(data[edge], BATCHES[edge])
    columns = zip(*((one.pictures, one.context, one.pooled) for one in chosen), strict=True)
    return Shown(*(torch.cat(column) for column in columns))


def flow_matching(denoiser: HostDenoiser, net: nn.Module, shown: Shown, blur: int) -> Tensor:
    """Return the error of the model's velocity, with what the net adds to it."""
    clean, hint = (
        denoiser.latent_in(encode(pictures))
        for pictures in (shown.pictures, blurred(shown.pictures, blur))
    )
    noise = torch.randn_like(clean)
    sigma = torch.sigmoid(torch.randn(len(clean)) + MEAN)
    noisy = torch.lerp(clean, noise, sigma.view(-1, 1, 1, 1))
    guidance = torch.full((len(clean),), GUIDANCE)
    call = dict(context=shown.context, y=shown.pooled, guidance=guidance)
    control = {"output": (), **net(noisy, timesteps=sigma, hint=hint, **call)}
    # The host adds the control in place, which autograd refuses where nothing had a gradient yet.
    noisy.requires_grad_(True)
    velocity = denoiser.network(noisy, sigma, control=control, transformer_options={}, **call)
    return (velocity.float() - (noise - clean)).square().mean()


def blurred(pictures: Tensor, factor: int) -> Tensor:
    """Shrink pictures ``[B, H, W, 3]`` by a factor and enlarge them again."""
    planes = pictures.movedim(-1, 1)
    height, width = planes.shape[-2:]
    size = (max(1, round(height / factor)), max(1, round(width / factor)))
    small = F.interpolate(planes, size, mode="bilinear", antialias=True)
    large = F.interpolate(small, (height, width), mode="bicubic")
    return large.clamp(0, 1).movedim(1, -1)
